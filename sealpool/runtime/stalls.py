"""Calls that wait for their client, and the end of those that wait too long."""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

from sealpool.runtime.logs import Logger

T = TypeVar("T")


class Waiting:
    """Since when one call waits for its client: for its next message, or for room for ours. None: it does not.

    A thread that waits so cannot end the call itself: gRPC's waits have no limit. StallWatch cancels it from outside.
    """

    __slots__ = ("cancel", "method", "since")

    def __init__(self, method: str, cancel: Callable[[], object]) -> None:
        self.method = method
        self.cancel = cancel
        self.since: float | None = None

    def for_messages(self, messages: Iterator[T]) -> Iterator[T]:
        """Yield the client's messages, noting when they are waited for."""
        while True:
            self.since = time.monotonic()
            try:
                message = next(messages)
            except StopIteration:
                return
            finally:
                self.since = None
            yield message

    def for_reader(self, answers: Iterator[T]) -> Iterator[T]:
        """Yield our messages, noting when the client does not take them."""
        try:
            for answer in answers:
                self.since = time.monotonic()  # gRPC asks for the next one when this one has room on the way
                yield answer
                self.since = None
        finally:
            if isinstance(answers, Generator):
                answers.close()  # before its permit is given back


class StallWatch:
    """One thread that cancels calls whose client has neither sent nor taken anything for `patience_s`; 0 for never."""

    def __init__(self, patience_s: float, *, log: Logger) -> None:
        self._patience_s = patience_s
        self._log = log
        self._lock = threading.Lock()
        self._calls: set[Waiting] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stall watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        if self._patience_s:
            self._thread.start()

    def stop(self) -> None:
        """Watch no longer. Asking twice does no harm."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def add(self, call: Waiting) -> None:
        """Watch a call."""
        if self._patience_s:
            with self._lock:
                self._calls.add(call)

    def discard(self, call: Waiting) -> None:
        """Forget a call that ended."""
        with self._lock:
            self._calls.discard(call)

    def _run(self) -> None:
        while not self._stopped.wait(min(self._patience_s / 4, 5.0)):
            before = time.monotonic() - self._patience_s
            with self._lock:
                stalled = [call for call in self._calls if call.since is not None and call.since < before]
                self._calls.difference_update(stalled)
            for call in stalled:
                self._log.warning("call cancelled: its client neither sends nor reads", method=call.method)
                call.cancel()
