"""A real index server in this process, for as long as a `with` block."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from index_server.app import build
from index_server.servicer import IndexServicer
from index_server.settings import IndexServerSettings
from sealpool.v1 import index_pb2, index_pb2_grpc

START_TIMEOUT_S = 60.0

TOLERATE_UNBUILT = True
"""Pass over calls that are declared and not built yet. To be False, and then to go, once every call is built."""

_BEING_BUILT = "being built"


@contextmanager
def index_server(data_dir: Path, **settings: object) -> Iterator[grpc.Channel]:
    """Serve `data_dir` and give a channel to it, once every pool was read, whether it could be or not."""
    values = {"listen": "127.0.0.1:0", "metrics_listen": "", "data_dir": data_dir, "search_threads": 1, **settings}
    if "snapshot_roots" in IndexServerSettings.model_fields:
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


def unbuilt_methods() -> frozenset[str]:
    """Return the names of the calls that are not built yet, as long as that is tolerated."""
    if not TOLERATE_UNBUILT:
        return frozenset()
    base = index_pb2_grpc.IndexServiceServicer
    names = [method.name for method in index_pb2.DESCRIPTOR.services_by_name["IndexService"].methods]
    return frozenset(name for name in names if getattr(IndexServicer, name) is getattr(base, name))


def is_unbuilt(error: grpc.RpcError) -> bool:
    """Whether a call ended so because it is not built yet, as long as that is tolerated."""
    return TOLERATE_UNBUILT and error.details() == _BEING_BUILT


def snapshots_beside(data_dir: Path) -> Path:
    """Return where snapshots of the pools in `data_dir` may be written."""
    return data_dir.resolve().parent / "snapshots"
