from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.storage.engine import open_engine
from scheduler.storage.migrate import migrate
from scheduler.storage.store import Store
from tests.contract.scheduler.postgres import emptied, fresh_database, running_postgres
from tests.unit.scheduler.fakes import FakeClock


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with running_postgres() as server:
        yield fresh_database(server, "contract")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'scheduler.db'}"
    return emptied(request.getfixturevalue("postgres"))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(database_url: str, clock: FakeClock) -> Iterator[Store]:
    opened = Store(open_engine(database_url, connections=12), clock=clock)
    migrate(opened)
    yield opened
    opened.close()
