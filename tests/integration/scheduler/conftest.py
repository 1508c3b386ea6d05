import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.contract.scheduler.postgres import fresh_database, running_postgres
from tests.integration.scheduler.model_campaigns import truth
from tests.support.language_model import KEY, LanguageModelServer
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
def postgres_server() -> Iterator[str]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    return fresh_database(postgres_server, f"integration_{uuid.uuid4().hex}")


@pytest.fixture
def model() -> Iterator[LanguageModelServer]:
    with LanguageModelServer(truth) as running:
        yield running


@pytest.fixture
def make_with_model(
    make_world: Callable[..., World], model: LanguageModelServer, tmp_path: Path
) -> Callable[..., World]:
    def of(world: Mapping[str, Any] = {}, **endpoint: Any) -> World:
        (tmp_path / "key").write_text(KEY)
        told = {"base_url": model.url, "api_key_file": "key", "max_attempts": 1, "max_concurrency": 1, **endpoint}
        path = tmp_path / "endpoints.yaml"
        path.write_text(json.dumps({"default": told}))
        return make_world(llm_endpoints=path, **world)

    return of
