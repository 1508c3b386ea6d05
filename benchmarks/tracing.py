"""What traces cost a call: three index servers, without, with a share of 0 and with a share of 1, called in turns.

The collector takes everything and keeps nothing. `python -m benchmarks.tracing [repetitions]` takes a minute.
"""

import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import grpc
import numpy as np

from benchmarks.server import IndexServer
from benchmarks.statistics import median, side_by_side
from sealpool.client import IndexClient
from sealpool.types import ItemId, Items, Vectors
from sealpool.v1 import index_pb2

ITEMS, DIMENSION = 5_000, 64
OFF, NONE, ALL = "off", "on, share 0", "on, share 1"

Call = Callable[[IndexClient], object]


def collector() -> tuple[grpc.Server, str]:
    """Return a server that answers OTLP's Export, and its address."""
    export: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")
    server = grpc.server(ThreadPoolExecutor(2))
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {"Export": export})])
    return server, f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"


def calls_with(queries: Vectors) -> dict[str, Call]:
    """Return what is timed."""
    return {
        "GetPool": lambda client: client.get_pool("p"),
        "Search, 1 query": lambda client: client.search("p", k=10, vectors=queries[:1]),
        "Search, 100 queries": lambda client: client.search("p", k=10, vectors=queries),
    }


def filled(server: IndexServer, vectors: Vectors) -> IndexClient:
    """Return a client of a server with a pool."""
    client = server.client()
    client.create_pool(index_pb2.PoolSpec(name="p", dimension=DIMENSION))
    client.upsert("p", Items(ids=[ItemId(f"i{number}") for number in range(len(vectors))], vectors=vectors))
    return client


def main(repetitions: int) -> None:
    """Print the median milliseconds of each call, and how many times that of the server without traces it is."""
    vectors = np.random.default_rng(0).normal(size=(ITEMS, DIMENSION)).astype(np.float32)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sink, endpoint = collector()
        sink.start()
        stack.callback(sink.stop, None)
        flags = {share: ("--trace-endpoint", endpoint, "--trace-sample-share", share) for share in ("0", "1")}
        clients = {
            name: stack.enter_context(filled(stack.enter_context(IndexServer(folder / place, *more)), vectors))
            for name, place, more in ((OFF, "off", ()), (NONE, "none", flags["0"]), (ALL, "all", flags["1"]))
        }
        for name, call in calls_with(vectors[:100]).items():
            works = {kind: partial(_once, call, client) for kind, client in clients.items()}
            times = {kind: median(took) for kind, took in side_by_side(works, repetitions=repetitions).items()}
            for kind, seconds in times.items():
                sys.stdout.write(f"{name:20} {kind:12} {1e3 * seconds:8.3f} ms  x {seconds / times[OFF]:.2f}\n")


def _once(call: Call, client: IndexClient, _repetition: int) -> None:
    call(client)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
