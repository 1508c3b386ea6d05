"""Vectors of labelled and held-out items, read from the index server and kept while the pool stays as it is."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learner.ports import Index
from sealpool.types import ItemId, Vectors
from sealpool.v1 import index_pb2

_ENTRY_BYTES = 300
"""What an entry takes beside its vector, about: two dictionary places, the id, the array's header."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolStamp:
    """What a pool was when something was read from it. A pool deleted and made anew counts its versions anew."""

    created_ns: int
    version: int

    @classmethod
    def of(cls, pool: index_pb2.Pool) -> "PoolStamp":
        """Return the stamp of a pool as the index server describes it."""
        return cls(created_ns=pool.created_at.ToNanoseconds(), version=pool.version)


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundVectors:
    """Vectors of those items that the pool has: `rows` (n,) are their positions in what was asked for."""

    rows: NDArray[np.int64]
    vectors: Vectors


class VectorReader:
    """Reads vectors by id through a cache. Safe to share between threads.

    Vectors of a pool are kept for one stamp of it; when the pool has changed, they are read anew. So what is returned
    was true at some moment of the call.

    Parameters
    ----------
    cache_bytes
        What the cache may hold, over all pools; the least recently used go first. 0 keeps nothing.
    """

    def __init__(self, index: Index, *, cache_bytes: int) -> None:
        self._index = index
        self._limit = cache_bytes
        self._lock = threading.Lock()
        self._stamps: dict[str, PoolStamp] = {}
        self._held: OrderedDict[tuple[str, ItemId], NDArray[np.float32]] = OrderedDict()
        self._bytes = 0

    @property
    def cached_bytes(self) -> int:
        """Memory in use."""
        return self._bytes

    def read(self, pool: index_pb2.Pool, ids: Sequence[ItemId]) -> FoundVectors:
        """Return the vectors of `ids`, which are distinct. `pool` was asked for within the same call.

        Raises
        ------
        NotFound
            There is no such pool any more.
        """
        name, stamp = pool.spec.name, PoolStamp.of(pool)
        found = self._cached(name, stamp, ids)
        missing = [item_id for item_id in ids if item_id not in found]
        if missing:
            items = self._index.get_items(name, missing, allow_missing=True)
            if items.vectors is None:
                raise AssertionError("items came without vectors")
            read = dict(zip(items.ids, items.vectors, strict=True))
            self._keep(name, stamp, read)
            found |= read
        rows = [row for row, item_id in enumerate(ids) if item_id in found]
        vectors = np.empty((len(rows), pool.spec.dimension), np.float32)
        for place, row in enumerate(rows):
            vectors[place] = found[ids[row]]
        return FoundVectors(rows=np.array(rows, np.int64), vectors=vectors)

    def _cached(self, pool: str, stamp: PoolStamp, ids: Sequence[ItemId]) -> dict[ItemId, NDArray[np.float32]]:
        with self._lock:
            if self._stamps.get(pool) != stamp:
                self._forget(pool)
                self._stamps[pool] = stamp
            found = {}
            for item_id in ids:
                key = (pool, item_id)
                if key in self._held:
                    self._held.move_to_end(key)
                    found[item_id] = self._held[key]
            return found

    def _keep(self, pool: str, stamp: PoolStamp, vectors: dict[ItemId, NDArray[np.float32]]) -> None:
        with self._lock:
            if self._stamps.get(pool) != stamp:  # another call has seen the pool change meanwhile
                return
            for item_id, vector in vectors.items():
                if (pool, item_id) not in self._held:
                    self._held[pool, item_id] = vector.copy()  # a copy: the row would keep its whole chunk alive
                    self._bytes += vector.nbytes + _ENTRY_BYTES
            while self._bytes > self._limit:
                _, vector = self._held.popitem(last=False)
                self._bytes -= vector.nbytes + _ENTRY_BYTES

    def _forget(self, pool: str) -> None:
        for key in [key for key in self._held if key[0] == pool]:
            self._bytes -= self._held.pop(key).nbytes + _ENTRY_BYTES
