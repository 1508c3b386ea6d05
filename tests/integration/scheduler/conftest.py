from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.scheduler.postgres import fresh_database, running_postgres
from tests.unit.scheduler.world import World


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(**settings: Any) -> World:
        worlds.append(World(tmp_path / f"data{len(worlds)}", **settings))
        return worlds[-1]

    yield make
    for world in worlds:
        world.learner.troubles.release()
        world.index.troubles.release()
        world.close()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with running_postgres() as server:
        yield fresh_database(server, "integration")
