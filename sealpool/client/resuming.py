"""How a stream that broke in the middle goes on: without what was told, or with what was not answered."""

import threading
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from sealpool.errors import Unavailable

T = TypeVar("T")


class Told(Generic[T]):
    """How much a caller was told of an answer that is the same each time that it is asked for.

    A message has `rows`, and a `state`: what the answer depends on beside the request, like the version of a pool. The
    state is the same in all messages of an answer.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._state: Hashable = None

    def add(self, rows: int, state: Hashable) -> None:
        """Take note of a message that the caller was given."""
        self._rows += rows
        self._state = state

    def beyond(self, messages: Iterable[tuple[int, Hashable, T]]) -> Iterator[tuple[int, Hashable, T]]:
        """Yield the messages of an answer that was asked for again, without those told; each with its rows and state.

        Raises
        ------
        Unavailable
            It is another answer by now.
        """
        passed, told = 0, self._rows
        for rows, state, message in messages:
            if passed >= told:
                yield rows, state, message
                continue
            passed += rows
            if state != self._state or passed > told:
                raise Unavailable("what was being read has changed since it broke off: begin anew")


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
            yield self._kept[position]
            position += 1

    def _take(self, sending: int, position: int) -> bool:
        with self._taking:
            if position == self._taken:
                for item in self._items:
                    self._kept[position] = item
                    self._taken += 1
                    break
            return position < self._taken and sending == self._sending
