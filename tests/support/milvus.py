"""A Milvus for tests: milvus-lite's server, in this process or in one that can be killed."""

import multiprocessing
import os
import signal
import socket
import time
from contextlib import contextmanager

import structlog

from index_server.engines.milvus_server import MilvusIndex, MilvusServer
from tests.support.processes import free_port

PATIENCE_S = 60


def silent_log():
    return structlog.wrap_logger(structlog.ReturnLogger())


def connect(port, *, owner="owner", start="start", index=MilvusIndex.HNSW, timeout_s=20.0, log=None):
    return MilvusServer(
        f"http://127.0.0.1:{port}",
        token="",
        prefix="test",
        owner=owner,
        start=start,
        index=index,
        timeout_s=timeout_s,
        log=log or silent_log(),
    )


@contextmanager
def lite_in_process(directory):
    """Yield the port of a server in this process, with its data in `directory`."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, database, port = start_server_in_thread(str(directory))
    try:
        yield port
    finally:
        server.stop(grace=None).wait()
        database.close()


class LiteProcess:
    """A server in a process of its own, with its data in `directory`. It may be killed and started again."""

    def __init__(self, directory):
        self._directory = directory
        self.port = free_port()
        self._process = None

    def start(self):
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_serve, args=(str(self._directory), self.port), daemon=True)
        self._process.start()
        wait_until(self._answers)

    def pause(self):
        """Let it answer nothing, until it is killed."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            self._process = None

    def _answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


def wait_until(true, *, patience_s=PATIENCE_S):
    """Return once `true()` is."""
    ends = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.02)


def _serve(directory, port):
    from milvus_lite.adapter.grpc.server import run_server

    run_server(directory, host="127.0.0.1", port=port)
