"""The three services as real processes on loopback, to be killed and started again by tests."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import SystemRandom

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

START_TIMEOUT_S = 60.0


def free_port() -> int:
    """Return a port that nothing listens on now, and that the system hands to nobody who asks for any.

    One that the system hands out may be taken by another connection while the service on it is down.
    """
    draw = SystemRandom()  # not the global one, which tests seed: processes would all draw the same
    while True:
        port = draw.randrange(20_000, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class ServiceProcess:
    """One service, started with `python -m`, always on the same port and folder.

    Parameters
    ----------
    address
        Not on a free port.
    health_address
        Where it says in plain text whether it serves, for one that speaks TLS.
    """

    def __init__(self, module: str, folder: Path, *flags: str, address: str = "", health_address: str = "") -> None:
        self.module = module
        self.address = address or f"127.0.0.1:{free_port()}"
        self.metrics_address = f"127.0.0.1:{free_port()}"
        self._health_address = health_address
        self.log = folder / f"{module}.log"
        self._command = [
            *(sys.executable, "-m", module, "--listen", self.address, "--metrics-listen", self.metrics_address),
            *("--data-dir", str(folder / module), *(("--http-listen=",) if module == "scheduler" else ()), *flags),
            *(("--health-listen", health_address) if health_address else ()),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, failpoint: str = "") -> None:
        """Start and return once health says SERVING."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("SEALPOOL_FAILPOINT", None)
        if failpoint:
            environment["SEALPOOL_FAILPOINT"] = failpoint
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=environment, stderr=log, stdout=log)
        self._wait_until_serving()

    def _wait_until_serving(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        where = self._health_address or self.address
        with grpc.insecure_channel(where, options=[("grpc.max_reconnect_backoff_ms", 100)]) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while time.monotonic() < deadline:
                if self.exit_code is not None:
                    break
                with contextlib.suppress(grpc.RpcError):
                    answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=1, wait_for_ready=True)
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                time.sleep(0.02)  # health has no event to wait for that a service without it yet would answer
        raise AssertionError(f"{self.module} does not serve:\n{self.log.read_text()[-4000:]}")

    @property
    def exit_code(self) -> int | None:
        """How the process ended; None while it runs, or if it was never started."""
        return None if self._process is None else self._process.poll()

    @property
    def runs(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def wait_until_killed(self, timeout_s: float = 30.0) -> None:
        """Return once the process has died of SIGKILL."""
        if self._process is None:
            raise AssertionError(f"{self.module} was not started")
        code = self._process.wait(timeout_s)
        if code != -signal.SIGKILL:
            raise AssertionError(f"{self.module} ended with {code}:\n{self.log.read_text()[-4000:]}")

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """Stop it as an operator would, with SIGTERM, and return the exit code."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise


class Stack:
    """Index server, learner and scheduler, wired to each other; all three with `flags`."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.index = ServiceProcess("index_server", folder, *flags)
        self.learner = ServiceProcess("learner", folder, "--index-server", self.index.address, *flags)
        self.scheduler = ServiceProcess(
            *("scheduler", folder, "--index-server", self.index.address, "--learner", self.learner.address, *flags)
        )

    def __iter__(self) -> Iterator[ServiceProcess]:
        return iter((self.index, self.learner, self.scheduler))

    def by_module(self, module: str) -> ServiceProcess:
        """Return the service of that name."""
        return next(service for service in self if service.module == module)

    def start(self) -> None:
        """Start all three."""
        for service in self:
            service.start()

    def stop(self) -> list[int]:
        """Stop all three, callers first, and return their exit codes."""
        return [service.stop() for service in (self.scheduler, self.learner, self.index)]

    def kill(self) -> None:
        """Kill whatever still runs."""
        for service in self:
            service.kill()
