"""Taking from several lists in turn."""

from collections.abc import Container, Sequence
from typing import TypeVar

T = TypeVar("T")


def turn_by_turn(lists: Sequence[Sequence[T]], count: int, *, taken: Container[T]) -> list[T]:
    """Return up to `count` distinct values that are not in `taken`.

    In each turn, every list gives the first of its values that is neither taken nor given by another before; so no list
    has a smaller share because others begin with the same values.
    """
    found: dict[T, None] = {}
    sources = [(value for value in one if value not in taken) for one in lists]
    while sources and len(found) < count:
        going = []
        for source in sources:
            value = next((value for value in source if value not in found), None)
            if value is not None and len(found) < count:
                found[value] = None
            if value is not None:
                going.append(source)
        sources = going
    return list(found)
