"""An index server as a real process on loopback, what it uses, and calls on it."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.machine import ROOT
from sealpool.client import ClientOptions, IndexClient
from sealpool.v1 import index_pb2, index_pb2_grpc

CLIENT_OPTIONS: Final = ClientOptions(max_message_bytes=512 << 20, long_timeout_s=7200.0, timeout_s=600.0)
_FLAGS: Final = ("--log-level", "warning", "--max-message-bytes", str(512 << 20), "--max-upsert-rows", "20000000")
_POLL_S: Final = 0.02
_STOP_S: Final = 120.0
_DROP_ROUNDS: Final = 2
_GRACE_S: Final = 3.0
"""A build may begin some time after the upsert was acknowledged."""
_GRAPH_GRACE_S: Final = 30.0


class ServerFailedError(OSError):
    """The server ended, or did not begin to serve in time."""


class IndexServer:
    """One index server over `folder`. Use as a context manager, or `start` and `stop`."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{_free_port()}"
        self._log = folder.with_name(folder.name + ".log")
        self._command = [
            *(sys.executable, "-m", "index_server", "--listen", self.address, "--metrics-listen", ""),
            *("--data-dir", str(folder), *_FLAGS, *flags),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "IndexServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, *, timeout_s: float = 1800.0) -> float:
        """Start, and return the seconds until health said SERVING.

        Raises
        ------
        ServerFailedError
            It ended before, or took longer than `timeout_s`.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": _python_path()}
        started = time.perf_counter()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=environment)
        self._wait_until_serving(self._process, started + timeout_s)
        return time.perf_counter() - started

    def stop(self) -> None:
        """Stop it with SIGTERM and wait for its end."""
        if self._process is not None:
            process, self._process = self._process, None
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired as error:
                process.kill()
                process.wait()
                raise ServerFailedError(f"the index server did not stop within {_STOP_S:g} s") from error

    def client(self) -> IndexClient:
        """Return a new client of it."""
        return IndexClient(self.address, options=CLIENT_OPTIONS)

    @property
    def resident_bytes(self) -> int:
        """VmRSS of the process."""
        if self._process is None:
            raise ServerFailedError("the server does not run")
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise ServerFailedError("the system does not tell VmRSS")

    def _wait_until_serving(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        with grpc.insecure_channel(self.address, options=[("grpc.max_reconnect_backoff_ms", 100)]) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while time.perf_counter() < deadline and process.poll() is None:
                with contextlib.suppress(grpc.RpcError):
                    if stub.Check(health_pb2.HealthCheckRequest(), timeout=1).status == _SERVING:
                        return
                time.sleep(_POLL_S)
        raise ServerFailedError(f"the index server does not serve: {self._last_line()}")

    def _last_line(self) -> str:
        lines = self._log.read_text().strip().splitlines()
        return lines[-1] if lines else "nothing in its log"


_SERVING: Final = health_pb2.HealthCheckResponse.SERVING


@contextlib.contextmanager
def open_stub(address: str) -> Iterator[index_pb2_grpc.IndexServiceStub]:
    """Open a bare stub, for calls that are measured without the client's arrays around them."""
    options = [("grpc.max_receive_message_length", CLIENT_OPTIONS.max_message_bytes)]
    with grpc.insecure_channel(address, options=options) as channel:
        yield index_pb2_grpc.IndexServiceStub(channel)


def wait_until_built(client: IndexClient, name: str, *, timeout_s: float = 3600.0) -> tuple[index_pb2.Pool, float]:
    """Return the pool once nothing is built for it in the background any more, and how long that took.

    A full neighbour graph is waited for too. TimeoutError after `timeout_s`.
    """
    started = quiet_since = time.perf_counter()
    while time.perf_counter() < started + timeout_s:
        pool = client.get_pool(name)
        full = pool.spec.neighbor_graph.kind == index_pb2.NEIGHBOR_GRAPH_KIND_FULL
        if pool.building or (full and 0 < pool.graph_items < pool.size):
            quiet_since = time.perf_counter()
        grace_s = _GRAPH_GRACE_S if full and not pool.graph_items else _GRACE_S
        if time.perf_counter() > quiet_since + grace_s:
            return pool, quiet_since - started
        time.sleep(_POLL_S)
    raise TimeoutError(f"pool {name} is still being built after {timeout_s:g} s")


def files_below(folder: Path) -> list[Path]:
    """Return all files in `folder` and below."""
    return [path for path in folder.rglob("*") if path.is_file()]


def drop_page_cache(paths: list[Path]) -> None:
    """Let the system forget what it has of `paths` in memory. Written pages are synced first: only clean ones go."""
    for _ in range(_DROP_ROUNDS):
        for path in paths:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _python_path() -> str:
    return os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH", ""), str(ROOT))))
