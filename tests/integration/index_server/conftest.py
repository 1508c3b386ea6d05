"""A real index server in this process, and a stub to call it with."""

import time
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from index_server.app import build
from index_server.settings import IndexServerSettings
from sealpool.runtime.server import ServiceServer
from sealpool.v1 import index_pb2, index_pb2_grpc

LIMITS = {
    "max_pools": 3,
    "max_upsert_rows": 500,
    "max_ids": 200,
    "max_k": 100,
    "max_queries": 20,
    "max_neighbors": 1500,
    "max_sample": 50,
    "max_candidates": 60,
    "max_campaigns": 2,
    "measurable_items": 0,
}


@dataclass
class Server:
    """The server, and where it can be started again on the same data."""

    data_dir: Path
    registry: CollectorRegistry
    running: ServiceServer
    channel: grpc.Channel

    @property
    def stub(self) -> index_pb2_grpc.IndexServiceStub:
        return index_pb2_grpc.IndexServiceStub(self.channel)

    def stop(self) -> None:
        self.channel.close()
        self.running.stop()

    def restart(self, **settings: object) -> None:
        self.stop()
        other = start(self.data_dir, **settings)
        self.registry, self.running, self.channel = other.registry, other.running, other.channel

    def started(self, **options: object) -> "Server":
        """Start another server on the same data, which nobody may own any more."""
        return start(self.data_dir, **options)

    def calls_in_progress(self, method: str) -> float:
        name = "sealpool_index_server_requests_in_progress"
        return self.registry.get_sample_value(name, {"method": method}) or 0.0

    def health(self) -> int:
        return health_pb2_grpc.HealthStub(self.channel).Check(health_pb2.HealthCheckRequest()).status

    def wait_until_serving(self) -> None:
        watch = health_pb2_grpc.HealthStub(self.channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert any(answer.status == health_pb2.HealthCheckResponse.SERVING for answer in watch)
        watch.cancel()

    def wait_for_engine(self, pool: str, engine: str) -> index_pb2.Pool:
        """Return the pool once that engine, built in the background, is in use."""
        deadline = time.monotonic() + 30
        while True:
            found = self.stub.GetPool(index_pb2.GetPoolRequest(name=pool)).pool
            if found.engine == engine and not found.building:
                return found
            assert time.monotonic() < deadline, f"{found.engine}: {found.engine_reason}"
            time.sleep(0.01)


def start(data_dir: Path, *, wait: bool = True, **settings: object) -> Server:
    """Start a server and return once it says SERVING, or at once."""
    registry = CollectorRegistry()
    values = {**LIMITS, "listen": "127.0.0.1:0", "metrics_listen": "", "data_dir": data_dir, "search_threads": 1}
    running = build(
        IndexServerSettings(**{**values, **settings}),
        registry=registry,
        log=structlog.wrap_logger(structlog.ReturnLogger()),
    )
    channel = grpc.insecure_channel(running.address)
    server = Server(data_dir, registry, running, channel)
    if wait:
        server.wait_until_serving()
    return server


@pytest.fixture
def server(tmp_path):
    server = start(tmp_path)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory):
    server = start(tmp_path_factory.mktemp("shared"))
    yield server
    server.stop()


@pytest.fixture
def stub(server):
    return server.stub
