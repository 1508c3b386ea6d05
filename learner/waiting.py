"""Waiting for a turn, while the caller is still there."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakValueDictionary

from learner.ports import CancelCheck
from sealpool.errors import Cancelled, ResourceExhausted

_POLL_S = 0.05


class _Acquirable(Protocol):
    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...

    def release(self) -> None: ...


@contextmanager
def _turn(lock: _Acquirable, cancelled: CancelCheck) -> Iterator[None]:
    while not lock.acquire(timeout=_POLL_S):
        if cancelled():
            raise Cancelled("the caller left while waiting for a turn")
    try:
        yield
    finally:
        lock.release()


class _KeyLock:
    def __init__(self) -> None:
        self.lock = threading.Lock()


class KeyedLocks:
    """One lock a name, for as long as somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: WeakValueDictionary[str, _KeyLock] = WeakValueDictionary()

    @contextmanager
    def turn(self, name: str, cancelled: CancelCheck) -> Iterator[None]:
        """Hold the lock of `name`. Raises Cancelled when the caller left first."""
        with self._guard:
            key_lock = self._locks.get(name)
            if key_lock is None:
                key_lock = self._locks[name] = _KeyLock()
        with _turn(key_lock.lock, cancelled):
            yield


PlaceTold = Callable[[int], None]
"""Told a place in a queue when it changes: 1 is next, 0 is not waiting any more."""


class TrainingQueue:
    """Trainings in the order they came: some at once, as far as memory allows, and a bounded number waiting.

    The first in the queue begins when fewer than `running` train and what all need together fits into
    `memory_bytes`; a training that alone needs more than that begins when nothing else trains.

    Parameters
    ----------
    running, waiting
        The two limits.
    setting
        The setting that moves the second.
    """

    def __init__(self, *, running: int, waiting: int, memory_bytes: int, setting: str) -> None:
        self._running_limit = running
        self._waiting_limit = waiting
        self._memory = memory_bytes
        self._setting = setting
        self._changed = threading.Condition()
        self._waiting: list[object] = []
        self._running = 0
        self._used = 0

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many train now."""
        return self._running

    @contextmanager
    def turn(self, needed_bytes: int, place_told: PlaceTold, cancelled: CancelCheck) -> Iterator[None]:
        """Wait for a turn and hold it.

        Raises
        ------
        ResourceExhausted
            As many wait already as may.
        Cancelled
            The caller left first.
        """
        self._enter(needed_bytes, place_told, cancelled)
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._used -= needed_bytes
                self._changed.notify_all()

    def _enter(self, needed_bytes: int, place_told: PlaceTold, cancelled: CancelCheck) -> None:
        ticket, told = object(), -1
        with self._changed:
            if not (self._may_begin(needed_bytes) and not self._waiting) and len(self._waiting) >= self._waiting_limit:
                raise ResourceExhausted("one more training waiting", limit=self._waiting_limit, setting=self._setting)
            self._waiting.append(ticket)
            try:
                while not (self._waiting[0] is ticket and self._may_begin(needed_bytes)):
                    if cancelled():
                        raise Cancelled("the caller left while waiting for a turn")
                    place = self._waiting.index(ticket) + 1
                    if place != told:
                        told = place
                        place_told(place)
                    self._changed.wait(_POLL_S)
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
            self._running += 1
            self._used += needed_bytes
        if told > 0:
            place_told(0)

    def _may_begin(self, needed_bytes: int) -> bool:
        if not self._running:
            return True
        return self._running < self._running_limit and self._used + needed_bytes <= self._memory
