"""A load of calls from the client library, each of which must end well."""

import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from sealpool.client import ClientOptions
from sealpool.client.connection import Connection

OPTIONS = ClientOptions(timeout_s=150, long_timeout_s=300, retry_for_s=120)
"""Four times the patience of the default: a machine that is busy with other tests takes long over a start."""
_PROGRESS_TIMEOUT_S = 300.0


class Caller(ABC):
    """Makes one kind of call, and knows what must then be true."""

    def __init__(self, name: str, *clients: Connection) -> None:
        self.name = name
        self._clients = clients

    @abstractmethod
    def call(self) -> None:
        """Make one call, or a few that belong together."""

    def end(self) -> None:  # noqa: B027 - most end by themselves
        """Let a call end that would go on for ever. The callers before this one have ended."""

    def check(self) -> None:  # noqa: B027 - some hold every answer against what must be true
        """Hold what was acknowledged against what is there, when nothing happens any more."""

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            client.close()


class Load:
    """Callers at work, each in a thread. How often each called, and how long its longest call took."""

    def __init__(self, callers: Sequence[Caller]) -> None:
        self._callers = callers
        self._ending = threading.Event()
        self._changed = threading.Condition()
        self._running: list[Future[None]] = []
        self.calls: Counter[str] = Counter()
        self.longest_s: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Call until the block ends; raise what a caller met."""
        with ThreadPoolExecutor(len(self._callers)) as threads:
            self._running = [threads.submit(self._run, caller) for caller in self._callers]
            try:
                self.wait_for_calls()
                yield
            finally:
                self._ending.set()
                for caller, future in zip(self._callers, self._running, strict=True):
                    caller.end()
                    future.result()

    def wait_for_calls(self) -> None:
        """Return once every caller has made a call more."""
        with self._changed:
            before = self.calls.copy()
            moved = self._changed.wait_for(
                lambda: all(self.calls[c.name] > before[c.name] for c in self._callers) or self._has_failed,
                _PROGRESS_TIMEOUT_S,
            )
        assert moved, f"{before}, and after {_PROGRESS_TIMEOUT_S} s {self.calls}"
        for future in self._running:
            assert not self._has_failed or not future.done() or future.result() is None

    @property
    def _has_failed(self) -> bool:
        return any(future.done() for future in self._running)

    def _run(self, caller: Caller) -> None:
        try:
            while not self._ending.wait(0.02):
                started = time.monotonic()
                caller.call()
                with self._changed:
                    self.calls[caller.name] += 1
                    self.longest_s[caller.name] = max(self.longest_s[caller.name], time.monotonic() - started)
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._changed.notify_all()
