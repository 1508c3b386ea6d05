"""Locks and threads that the standard library lacks."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class ReadWriteLock:
    """Many readers or one writer. Not re-entrant.

    A waiting writer goes before new readers, and readers who waited for a writer go before the next one: so a writer
    who comes back at once, again and again, holds a reader up for one turn only.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._readers = 0
        self._writing = False
        self._writers_waiting = 0
        self._readers_waiting = 0
        self._readers_owed = 0
        self._turns = 0

    @contextmanager
    def read(self) -> Iterator[None]:
        """Hold the lock with other readers."""
        with self._condition:
            turn = self._turns
            self._readers_waiting += 1
            try:
                self._condition.wait_for(
                    lambda: not self._writing and (self._turns != turn or not self._writers_waiting)
                )
                self._readers += 1
            finally:
                self._readers_waiting -= 1
                self._readers_owed -= self._turns != turn
        try:
            yield
        finally:
            with self._condition:
                self._readers -= 1
                self._condition.notify_all()

    @contextmanager
    def write(self) -> Iterator[None]:
        """Hold the lock alone."""
        with self._condition:
            self._writers_waiting += 1
            try:
                self._condition.wait_for(lambda: not (self._writing or self._readers or self._readers_owed))
                self._writing = True
            finally:
                self._writers_waiting -= 1
        try:
            yield
        finally:
            with self._condition:
                self._writing = False
                self._turns += 1
                self._readers_owed = self._readers_waiting
                self._condition.notify_all()


class OwnerThread:
    """The one thread that may touch something. Others send it work and wait for the result."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)

    def call(self, work: Callable[[], T]) -> T:
        """Run `work` on the thread; return what it returns, raise what it raises."""
        return self._executor.submit(work).result()

    def close(self) -> None:
        """End the thread after the work it has."""
        self._executor.shutdown(wait=True)


def error_like(error: Exception) -> Exception:
    """Return an error like `error` with a traceback of its own, to be raised in another thread.

    `copy` would call `__init__` with other arguments.
    """
    another: Exception = type(error).__new__(type(error), *error.args)
    another.__dict__.update(error.__dict__)
    another.args = error.args
    return another
