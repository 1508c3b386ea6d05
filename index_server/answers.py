"""What a pool answers, and how its parts are read."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from index_server.candidates.book import CampaignView
from index_server.index import PoolIndex
from index_server.merging import Caller
from index_server.ports import Addresses, Rows, Scores, Snapshot
from index_server.records import FloatMatrix, Records
from index_server.spec import Metric
from sealpool.types import ItemId, Vectors

_READ_BYTES: Final = 2 << 20
_READ_ROWS: Final = 4096
_READ_ROWS_WITH_PAYLOADS: Final = 256
"""Payloads can have a megabyte each."""
_QUERIES: Final = 512
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
    """Answers to queries: `counts[i]` ids and scores of query i, nearest first, one query after the other.

    `vectors` are parallel to `ids`, None where not asked for.
    """

    version: int
    counts: NDArray[np.int64]
    ids: list[ItemId]
    scores: Scores
    vectors: FloatMatrix | None


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


class NearestRows(Protocol):
    """Finds the nearest rows of rows, each left out of its own answer: by search, or by the neighbour graph."""

    def __call__(self, rows: Rows, k: int, *, caller: Caller) -> tuple[Rows, Scores]:
        """Return rows and scores, (q, k) each."""


class IndexNeighbourhood:
    """What a candidate policy may ask, answered by an index whose items do not change meanwhile.

    `reading` is held for each search alone. `seconds` is the time spent searching.
    """

    def __init__(
        self,
        index: PoolIndex,
        reading: Callable[[], AbstractContextManager[None]],
        nearest: NearestRows,
        caller: Caller,
    ) -> None:
        self._index = index
        self._reading = reading
        self._nearest = nearest
        self._caller = caller
        self.seconds = 0.0

    @property
    def metric(self) -> Metric:
        """The pool's metric."""
        return self._index.spec.metric

    def live_rows(self) -> Rows:
        """Return the rows of all items in the pool's order."""
        return self._index.table.live_rows()

    def nearest(self, rows: Rows, k: int) -> tuple[Rows, Scores]:
        """Return the k nearest items of each of `rows`, and their scores."""
        begun = time.perf_counter()
        parts = [(np.empty((0, k), np.int64), np.empty((0, k), np.float32))]
        for start in range(0, len(rows), _QUERIES):
            self._caller.check()
            with self._reading():
                parts.append(self._nearest(rows[start : start + _QUERIES], k, caller=self._caller))
        self.seconds += time.perf_counter() - begun
        return np.concatenate([found for found, _ in parts]), np.concatenate([scores for _, scores in parts])

    def vectors(self, rows: Rows) -> Vectors:
        """Return vectors as they are compared."""
        with self._reading():
            return self._index.engine.vectors(rows)


def read_rows(dimension: int, *, payloads: bool) -> int:
    """Return how many items to read at once: some megabytes."""
    return max(1, min(_READ_ROWS_WITH_PAYLOADS if payloads else _READ_ROWS, _READ_BYTES // (4 * dimension)))


def take(snapshot: Snapshot, addresses: Addresses, size: int, *, vectors: bool, payloads: bool) -> Iterator[Records]:
    """Read items from the store in parts of `size`, in the order of `addresses`."""
    for start in range(0, len(addresses), size):
        yield snapshot.take(addresses[start : start + size], vectors=vectors, payloads=payloads)
