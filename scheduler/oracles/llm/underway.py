"""What is under way, and who waits for its end."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Underway:
    """Futures that have not ended. Any thread may use it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._futures: set[Future[Any]] = set()
        self._then: list[Callable[[], None]] = []

    def add(self, future: Future[Any]) -> None:
        """Count a future until it has ended."""
        with self._changed:
            self._futures.add(future)
        future.add_done_callback(self._discard)

    def when_none(self, then: Callable[[], None]) -> None:
        """Call `then` once, as soon as nothing is under way: now, or on the thread on which the last one ends."""
        with self._changed:
            if self._futures:
                self._then.append(then)
                return
        then()

    def wait(self, timeout_s: float) -> bool:
        """Return True once nothing is under way, or False after so long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._futures, timeout_s)

    def _discard(self, future: Future[Any]) -> None:
        with self._changed:
            self._futures.discard(future)
            if self._futures:
                return
            then, self._then = self._then, []
            self._changed.notify_all()
        for each in then:
            each()
