"""A learner served in this process, before an index server in memory."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from learner.app import build
from learner.settings import LearnerSettings
from sealpool.client import ClientOptions, LearnerClient
from sealpool.runtime.logs import make_logger
from tests.support.fake_index import FakeIndex

Serve = Callable[..., LearnerClient]


@pytest.fixture
def index() -> FakeIndex:
    """120 items in three clusters; item-<number> is of cluster number % 3."""
    rng = np.random.default_rng(0)
    centres = np.array([[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]])
    rows = centres[np.arange(120) % 3] + rng.normal(0, 0.7, (120, 4))
    return FakeIndex({f"item-{number:03}": row.tolist() for number, row in enumerate(rows)})


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a learner over an index: serve(index, folder=..., **settings) returns a client of it."""
    stop: list[Callable[[], None]] = []

    def start(index: FakeIndex, *, folder: str = "data", **settings: object) -> LearnerClient:
        values = {
            "listen": "127.0.0.1:0",
            "metrics_listen": "",
            "data_dir": tmp_path / folder,
            "device": "cpu",
            "progress_interval_s": 0,
            "log_level": "warning",
            **settings,
        }
        chosen = LearnerSettings(**values)
        server = build(chosen, registry=CollectorRegistry(), log=make_logger(chosen, "learner"), index=index)
        server.start()
        server.set_serving()
        client = LearnerClient(server.address, options=ClientOptions(retry_for_s=0))
        stop.extend([server.stop, client.close])
        return client

    yield start
    for each in reversed(stop):
        each()


@pytest.fixture
def client(serve: Serve, index: FakeIndex) -> LearnerClient:
    return serve(index, max_batch=50)
