"""The three services as child processes: started together, watched, stopped together."""

import contextlib
import fcntl
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import grpc

from sealpool.cli.options import need
from sealpool.errors import FailedPrecondition, InternalError, Unavailable

EXTRAS = {"index_server": "index", "learner": "learner", "scheduler": "scheduler"}
"""The services, in the order in which they start, and the extra that installs each. They stop in reverse: a round
that is under way in the scheduler still needs the other two to end."""

_LOG_LINES = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class ServicePlan:
    """How one service is started."""

    module: str
    port: int
    metrics_port: int | None
    http_port: int | None = None
    data_dir: Path
    log_file: Path
    flags: Sequence[str] = ()

    @property
    def address(self) -> str:
        """Where it will listen."""
        return f"127.0.0.1:{self.port}"

    @property
    def http_address(self) -> str | None:
        """Where it will answer HTTP and JSON, if it does."""
        return None if self.http_port is None else f"http://127.0.0.1:{self.http_port}"

    def command(self, supervisor: int) -> list[str]:
        """Return the command line that starts it."""
        metrics = "" if self.metrics_port is None else f"127.0.0.1:{self.metrics_port}"
        own = ["--listen", self.address, f"--metrics-listen={metrics}", "--data-dir", str(self.data_dir)]
        if self.module == "scheduler":
            own.append(f"--http-listen={'' if self.http_port is None else f'127.0.0.1:{self.http_port}'}")
        return [sys.executable, "-m", "sealpool.cli.child", str(supervisor), self.module, *own, *self.flags]


def plan_services(
    directory: Path, *, ports: Mapping[str, int], metrics: bool, http: bool = False, flags: Sequence[str] = ()
) -> list[ServicePlan]:
    """Return how to start all three on loopback, with their data and logs under `directory`.

    A port 0 in `ports` takes a free one. A service's metrics port is ten above its own, and with `http` the scheduler's
    HTTP port twenty above, or any free one with port 0. Without what HTTP needs installed, there is none.
    """
    free = iter(_free_ports(2 * len(EXTRAS) + 1))
    chosen = {module: ports[module] or next(free) for module in EXTRAS}
    address = {module: f"127.0.0.1:{port}" for module, port in chosen.items()}
    links = {
        "index_server": [],
        "learner": ["--index-server", address["index_server"]],
        "scheduler": ["--index-server", address["index_server"], "--learner", address["learner"]],
    }
    http_ports = {"scheduler": ports["scheduler"] + 20 if ports["scheduler"] else next(free)}
    if not (http and find_spec("fastapi") and find_spec("uvicorn")):
        http_ports = {}
    return [
        ServicePlan(
            module=module,
            port=chosen[module],
            metrics_port=(ports[module] + 10 if ports[module] else next(free)) if metrics else None,
            http_port=http_ports.get(module),
            data_dir=directory / module,
            log_file=directory / "logs" / f"{module}.log",
            flags=[*links[module], *flags],
        )
        for module in EXTRAS
    ]


@contextlib.contextmanager
def hold_folder(directory: Path, taken: str) -> Iterator[None]:
    """Hold a folder for this process alone, and make it where it is missing.

    Raises
    ------
    FailedPrecondition
        Another process holds it; the message is `taken`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FailedPrecondition(taken) from error
        yield


def check_ports(plans: Sequence[ServicePlan]) -> None:
    """Raise FailedPrecondition for the first port that cannot be bound, with the flag that moves it.

    Without it, the health check of a service that cannot bind would be answered by whoever has its port.
    """
    with contextlib.ExitStack() as held:  # until the last is known, so that one port given twice is found as well
        for plan in plans:
            flag = f"--{EXTRAS[plan.module]}-port"
            _bind(held, plan.port, f"port {plan.port} of {plan.module}", f"give another {flag}")
            if plan.metrics_port is not None:
                what = f"port {plan.metrics_port} for metrics of {plan.module}"
                _bind(held, plan.metrics_port, what, f"give another {flag} (it is ten above), or --no-metrics")
            if plan.http_port is not None:
                what = f"port {plan.http_port} for HTTP of {plan.module}"
                _bind(held, plan.http_port, what, f"give another {flag} (it is twenty above), or --no-http")


def _bind(held: contextlib.ExitStack, port: int, what: str, remedy: str) -> None:
    one = held.enter_context(socket.socket())
    # As the services do: connections of an earlier run that linger do not count.
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind(("127.0.0.1", port))
        one.listen(1)
    except OSError as error:
        raise FailedPrecondition(f"{what} cannot be used: {error.strerror}; {remedy}") from error
    except OverflowError as error:
        raise FailedPrecondition(f"{what} is over 65535; {remedy}") from error


@dataclass(slots=True)
class _Child:
    plan: ServicePlan
    process: subprocess.Popen[bytes]
    log_start: int
    """Size of the log before this run wrote to it."""


@dataclass(slots=True)
class Services:
    """The three services while they run; a context manager that leaves none behind.

    Parameters
    ----------
    plans
        How to start them, in order.
    stop_within_s
        What each gets to stop by itself before it is killed.
    environment
        Of the processes; None means ours.
    """

    plans: Sequence[ServicePlan]
    environment: Mapping[str, str] | None = None
    stop_within_s: float = 30.0
    _children: list[_Child] = field(default_factory=list)
    _ended: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)

    def __enter__(self) -> Self:
        try:
            for plan in self.plans:
                self._start(plan)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def address(self, module: str) -> str:
        """Return host:port of one service."""
        return next(plan.address for plan in self.plans if plan.module == module)

    def wait_until_serving(self, *, within_s: float = 120.0) -> None:
        """Return when all say SERVING to a health check.

        Raises
        ------
        InternalError
            One ended; the message has the end of its log.
        Unavailable
            One was not ready in time.
        """
        deadline = time.monotonic() + within_s
        for plan in self.plans:
            while not _is_serving(plan.address, wait_s=0.5):
                self.check()
                if time.monotonic() > deadline:
                    raise Unavailable(f"{plan.module} is not ready after {within_s:.0f} s; its log: {plan.log_file}")
        self.check()

    def check(self) -> None:
        """Raise InternalError if a service has ended by itself."""
        for child in self._children:
            if child.process.poll() is not None:
                raise self._death_of(child)

    def wait_for_death(self) -> None:
        """Block until a service ends, then raise InternalError."""
        while True:
            # With a timeout, since a bare get() is not woken by a signal that the kernel gave to another thread.
            with contextlib.suppress(queue.Empty):
                self._ended.get(timeout=0.5)
            self.check()

    def stop(self) -> None:
        """Stop all, last started first, and return when none is left. A second Ctrl-C kills at once."""
        try:
            for child in reversed(self._children):
                _end(child.process, within_s=self.stop_within_s)
        finally:
            for child in self._children:
                child.process.kill()
            for child in self._children:
                child.process.wait()

    def _start(self, plan: ServicePlan) -> None:
        if find_spec(plan.module) is None:
            raise FailedPrecondition(
                f'the service {plan.module} is not installed: pip install "sealpool[{EXTRAS[plan.module]}]"'
            )
        plan.log_file.parent.mkdir(parents=True, exist_ok=True)
        with plan.log_file.open("ab") as log:
            log_start = log.tell()
            # Its own session: Ctrl-C in the terminal reaches the supervisor alone, which stops them in order.
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                plan.command(os.getpid()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )
        self._children.append(_Child(plan, process, log_start))
        threading.Thread(target=self._report_end, args=(plan.module, process), daemon=True).start()

    def _report_end(self, module: str, process: "subprocess.Popen[bytes]") -> None:
        process.wait()
        self._ended.put(module)

    def _death_of(self, child: _Child) -> InternalError:
        code = child.process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        log = child.plan.log_file
        return ServiceDied(f"{child.plan.module} {how}; its log: {log}", tail(log, start=child.log_start))


class ServiceDied(InternalError):
    """A child process ended by itself. `log_tail` is the end of its log."""

    def __init__(self, message: str, log_tail: str) -> None:
        super().__init__(message)
        self.log_tail = log_tail


def tail(path: Path, *, lines: int = _LOG_LINES, start: int = 0) -> str:
    """Return the last lines of a file from byte `start` on, "" where there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(start)
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


def last_error(log_files: Sequence[Path]) -> str:
    """Return the last line that a service logged as an error, with the name of its log; "" if none did."""
    for log_file in log_files:
        errors = [line for line in tail(log_file, lines=1_000).splitlines() if '"level": "error"' in line]
        if errors:
            return f"{log_file}: {errors[-1]}"
    return ""


def _end(process: "subprocess.Popen[bytes]", *, within_s: float) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()


def _is_serving(address: str, *, wait_s: float) -> bool:
    health = need("grpc_health.v1.health_pb2", extra="server")
    stubs = need("grpc_health.v1.health_pb2_grpc", extra="server")
    with grpc.insecure_channel(address, options=[("grpc.max_reconnect_backoff_ms", 200)]) as channel:
        try:
            answer = stubs.HealthStub(channel).Check(health.HealthCheckRequest(), timeout=wait_s, wait_for_ready=True)
        except grpc.RpcError:
            return False
    if answer.status != health.HealthCheckResponse.SERVING:
        time.sleep(0.05)
        return False
    return True


def _free_ports(number: int) -> list[int]:
    # All are held until the last is known, so that none comes twice.
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
