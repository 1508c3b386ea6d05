"""How a stream that broke in the middle goes on: without what was told, or with what was not answered."""

import threading
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from sealpool.errors import Unavailable

T = TypeVar("T")


class Told(Generic[T]):
    """How much a caller was told of an answer that is the same each time that it is asked for.

    A message has `rows`, and something that it is known by again, like the version of the pool with what it says.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._last: object = None

    def add(self, rows: int, known_by: object) -> None:
        """Take note of a message that the caller was given. It keeps what the last one is known by."""
        self._rows += rows
        self._last = known_by

    def beyond(self, messages: Iterable[tuple[int, object, T]]) -> Iterator[tuple[int, object, T]]:
        """Yield the messages of an answer that was asked for again, without those told.

        Each comes with its rows and with what it is known by.

        Raises
        ------
        Unavailable
            It is another answer by now: it ends before, is cut otherwise, or has another message where it broke off.
        """
        passed, told = 0, self._rows
        for rows, known_by, message in messages:
            if passed == told:
                yield rows, known_by, message
                continue
            passed += rows
            if passed > told or (passed == told and known_by != self._last):
                raise _changed()
        if passed < told:
            raise _changed()


def _changed() -> Unavailable:
    return Unavailable("what was being read has changed since it broke off: begin anew")


class Unanswered(Generic[T]):
    """Items as they come, kept until they are answered, so that they can be sent again.

    Each sending has a thread of gRPC's own, and the one of a call that broke may still wait for the next item: what it
    then gets is the next sending's.
    """

    def __init__(self, items: Iterable[T]) -> None:
        self._items = iter(items)
        self._taking = threading.Lock()
        self._kept: dict[int, T] = {}
        self._taken = 0
        self._answered = 0
        self._sending = 0

    def send(self) -> Iterator[T]:
        """Yield what is not answered, and what comes. The sending before ends."""
        self._sending += 1
        return self._send(self._sending, self._answered)

    def answer(self, count: int) -> None:
        """Forget the first items that are kept: they are answered."""
        for position in range(self._answered, self._answered + count):
            del self._kept[position]
        self._answered += count

    def _send(self, sending: int, position: int) -> Iterator[T]:
        while sending == self._sending and (position < self._taken or self._take(sending, position)):
            item = self._kept.get(position)
            if item is None:
                return  # a later sending's, and answered, since this one looked
            yield item
            position += 1

    def _take(self, sending: int, position: int) -> bool:
        with self._taking:
            if position == self._taken:
                for item in self._items:
                    self._kept[position] = item
                    self._taken += 1
                    break
            return position < self._taken and sending == self._sending
