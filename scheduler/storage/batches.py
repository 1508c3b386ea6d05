"""Long lists in IN (…)."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

MAX_PARAMETERS = 10_000
"""SQLite takes 32,766 parameters in a statement, PostgreSQL 65,535."""


def in_batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield `values` in pieces that fit into one statement."""
    for start in range(0, len(values), MAX_PARAMETERS):
        yield values[start : start + MAX_PARAMETERS]
