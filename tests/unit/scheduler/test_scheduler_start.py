"""What stops the scheduler at its start says so in one line, and what it shows to the services behind it."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import text

from scheduler.app import client_options, main
from scheduler.settings import SchedulerSettings
from scheduler.storage.engine import open_engine
from scheduler.storage.migrate import migrate
from scheduler.storage.store import Store
from tests.unit.scheduler.fakes import FakeClock


def start(data_dir: Path, *flags: str) -> str:
    """Start a scheduler that cannot; return its last words."""
    with pytest.raises(SystemExit) as caught:
        main(["--data-dir", str(data_dir), "--listen", "127.0.0.1:0", "--metrics-listen", "", *flags])
    words = str(caught.value.code)
    assert len(words.splitlines()) == 1
    return words


def test_a_database_of_a_newer_version_stops_the_start(tmp_path: Path) -> None:
    store = Store(open_engine(f"sqlite:///{tmp_path / 'scheduler.db'}", connections=2), clock=FakeClock())
    migrate(store)
    with store.writing_engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    assert "revision 9999, which this version does not know" in start(tmp_path)


def test_a_database_that_is_away_stops_the_start_without_telling_its_password(tmp_path: Path) -> None:
    words = start(tmp_path, "--database-url", "postgresql+psycopg://user:secret@127.0.0.1:1/x")
    assert "the scheduler's database" in words
    assert "secret" not in words
    assert "cannot be read" in start(tmp_path, "--database-url", "nonsense:secret")


def test_the_services_are_shown_our_certificate() -> None:
    ca, certificate, key = Path("ca.pem"), Path("cert.pem"), Path("key.pem")
    settings = SchedulerSettings(services_ca=ca, services_certificate=certificate, services_key=key)
    options = client_options(settings, 3.0)
    assert (options.ca_certificate, options.client_certificate, options.client_key) == (ca, certificate, key)
    assert (options.timeout_s, options.retry_for_s) == (3.0, 0)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"services_certificate": "c.pem", "services_ca": "ca.pem"}, "go together"),
        ({"services_key": "k.pem", "services_ca": "ca.pem"}, "go together"),
        ({"services_certificate": "c.pem", "services_key": "k.pem"}, "needs services_ca"),
    ],
)
def test_half_a_certificate_is_refused(given: dict[str, str], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        SchedulerSettings(**given)  # type: ignore[arg-type]
