"""Waiting for a turn, while the caller is still there."""

import threading
from collections.abc import Iterator
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


class Turns:
    """A bounded number at once, and a bounded number waiting.

    Parameters
    ----------
    running, waiting
        The two limits.
    setting
        The setting that moves the second.
    """

    def __init__(self, *, running: int, waiting: int, setting: str) -> None:
        self._semaphore = threading.Semaphore(running)
        self._places = threading.Semaphore(running + waiting)
        self._waiting_limit = waiting
        self._setting = setting

    @contextmanager
    def turn(self, what: str, cancelled: CancelCheck) -> Iterator[None]:
        """Wait for a turn and hold it.

        Raises
        ------
        ResourceExhausted
            As many wait already as may.
        Cancelled
            The caller left first.
        """
        if not self._places.acquire(blocking=False):
            raise ResourceExhausted(f"one more {what} waiting", limit=self._waiting_limit, setting=self._setting)
        try:
            with _turn(self._semaphore, cancelled):
                yield
        finally:
            self._places.release()
