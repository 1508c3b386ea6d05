"""What a pool answers with, and how items are read for it."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index_server.candidates.book import CampaignView
from index_server.index import PoolIndex
from index_server.ports import Addresses, Snapshot
from index_server.records import Records
from sealpool.types import ItemId

_READ_BYTES: Final = 8 << 20
_READ_ROWS: Final = 4096
_READ_ROWS_WITH_PAYLOADS: Final = 256
"""Payloads can have a megabyte each."""
_QUERIES: Final = 128
"""Searched for at once in an expansion. Many more would hold up who waits to change the index, and win no time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Changed:
    """What a change of items did."""

    version: int
    inserted: int = 0
    replaced: int = 0
    deleted: int = 0
    missing: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbors:
    """Answers to queries: `counts[i]` ids and scores of query i, nearest first, one query after the other."""

    version: int
    counts: NDArray[np.int64]
    ids: list[ItemId]
    scores: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Expansion:
    """A candidate pool and what is new in it, at one version of the pool."""

    version: int
    pool_size: int
    campaign: CampaignView
    added: Iterator[Records]
    direction: NDArray[np.float32]
    search_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """Items at one version of the pool, in parts."""

    version: int
    parts: Iterator[Records]


class IndexNeighbourhood:
    """What a candidate policy may ask, answered by an index whose items do not change meanwhile.

    `reading` is held for each search alone. `seconds` is the time spent searching.
    """

    def __init__(self, index: PoolIndex, reading: Callable[[], AbstractContextManager[None]]) -> None:
        self._index = index
        self._reading = reading
        self.seconds = 0.0

    def require(self, ids: Sequence[ItemId]) -> None:
        """Raise NotFound for ids that the pool does not have."""
        self._index.table.lookup(ids, field="expand_from_ids")

    def nearest(self, ids: Sequence[ItemId], k: int) -> Iterable[Sequence[ItemId]]:
        """Return the k nearest items of each of `ids`."""
        rows = self._index.table.lookup(ids, field="expand_from_ids")
        for start in range(0, len(rows), _QUERIES):
            begun = time.perf_counter()
            with self._reading():
                found, _ = self._index.search_rows(rows[start : start + _QUERIES], k)
            self.seconds += time.perf_counter() - begun
            for neighbors in found:
                yield self._index.table.ids_at(neighbors[neighbors >= 0])

    def item_ids(self) -> Iterable[ItemId]:
        """Return all ids in the pool's order."""
        table = self._index.table
        return table.ids_at(table.live_rows())


def read_rows(dimension: int, *, payloads: bool) -> int:
    """Return how many items to read at once: some megabytes."""
    return max(1, min(_READ_ROWS_WITH_PAYLOADS if payloads else _READ_ROWS, _READ_BYTES // (4 * dimension)))


def take(snapshot: Snapshot, addresses: Addresses, size: int, *, vectors: bool, payloads: bool) -> Iterator[Records]:
    """Read items from the store in parts of `size`, in the order of `addresses`."""
    for start in range(0, len(addresses), size):
        yield snapshot.take(addresses[start : start + size], vectors=vectors, payloads=payloads)
