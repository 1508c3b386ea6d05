"""A real index server in this process, for as long as a `with` block."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from index_server.app import build
from index_server.settings import IndexServerSettings
from sealpool.v1 import index_pb2_grpc

START_TIMEOUT_S = 60.0


@contextmanager
def index_server(data_dir: Path, **settings: object) -> Iterator[grpc.Channel]:
    """Serve `data_dir` and give a channel to it, once every pool was read, whether it could be or not."""
    values = {"listen": "127.0.0.1:0", "metrics_listen": "", "data_dir": data_dir, "search_threads": 1, **settings}
    snapshots_beside(data_dir).mkdir(parents=True, exist_ok=True)
    values.setdefault("snapshot_roots", [str(snapshots_beside(data_dir))])
    server = build(
        IndexServerSettings(**values),  # type: ignore[arg-type]
        registry=CollectorRegistry(),
        log=structlog.wrap_logger(structlog.ReturnLogger()),
    )
    try:
        with grpc.insecure_channel(server.address) as channel:
            wait_until_serving(channel)
            yield channel
    finally:
        server.stop()


def wait_until_serving(channel: grpc.Channel) -> None:
    """Return once health says SERVING."""
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=START_TIMEOUT_S)
    if not any(answer.status == health_pb2.HealthCheckResponse.SERVING for answer in watch):
        raise TimeoutError("the index server does not say that it is serving")
    watch.cancel()


def stub_of(channel: grpc.Channel) -> index_pb2_grpc.IndexServiceStub:
    """Return a stub."""
    return index_pb2_grpc.IndexServiceStub(channel)


def snapshots_beside(data_dir: Path) -> Path:
    """Return where snapshots of the pools in `data_dir` may be written."""
    return data_dir.resolve().parent / "snapshots"
