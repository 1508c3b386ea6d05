"""Labelled and held-out items, read from the index server and kept while the pool stays as it is."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learner.index_port import Index
from sealpool.errors import FailedPrecondition
from sealpool.types import ItemId, Items, Vectors
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
class FoundItems:
    """Those items that the pool has: `rows` (n,) are their positions in what was asked for.

    `vectors` (n, d), and `texts` (n) where they were asked for; none of them is empty.
    """

    rows: NDArray[np.int64]
    vectors: Vectors
    texts: Sequence[str] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    vector: NDArray[np.float32]
    text: str | None

    @property
    def nbytes(self) -> int:
        return self.vector.nbytes + len(self.text or "") + _ENTRY_BYTES


class VectorReader:
    """Reads items by id through a cache. Safe to share between threads.

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
        self._held: OrderedDict[tuple[str, ItemId], _Entry] = OrderedDict()
        self._bytes = 0

    @property
    def cached_bytes(self) -> int:
        """Memory in use."""
        return self._bytes

    def read(self, pool: index_pb2.Pool, ids: Sequence[ItemId], *, texts: bool = False) -> FoundItems:
        """Return those of `ids`, which are distinct, that the pool has. `pool` was asked for within the same call.

        Raises
        ------
        NotFound
            There is no such pool any more.
        FailedPrecondition
            Texts were asked for, and an item has none.
        """
        name, stamp = pool.spec.name, PoolStamp.of(pool)
        found = self._cached(name, stamp, ids, texts=texts)
        missing = [item_id for item_id in ids if item_id not in found]
        if missing:
            read = _entries(self._index.get_items(name, missing, payloads=texts, allow_missing=True))
            self._keep(name, stamp, read)
            found |= read
        rows = [row for row, item_id in enumerate(ids) if item_id in found]
        vectors = np.empty((len(rows), pool.spec.dimension), np.float32)
        for place, row in enumerate(rows):
            vectors[place] = found[ids[row]].vector
        some = [found[ids[row]].text or "" for row in rows] if texts else None
        if some is not None:
            require_texts([ids[row] for row in rows], some)
        return FoundItems(rows=np.array(rows, np.int64), vectors=vectors, texts=some)

    def _cached(self, pool: str, stamp: PoolStamp, ids: Sequence[ItemId], *, texts: bool) -> dict[ItemId, _Entry]:
        with self._lock:
            if self._stamps.get(pool) != stamp:
                self._forget(pool)
                self._stamps[pool] = stamp
            found = {}
            for item_id in ids:
                key = (pool, item_id)
                entry = self._held.get(key)
                if entry is not None and not (texts and entry.text is None):
                    self._held.move_to_end(key)
                    found[item_id] = entry
            return found

    def _keep(self, pool: str, stamp: PoolStamp, entries: dict[ItemId, _Entry]) -> None:
        with self._lock:
            if self._stamps.get(pool) != stamp:  # another call has seen the pool change meanwhile
                return
            for item_id, entry in entries.items():
                before = self._held.pop((pool, item_id), None)
                self._held[pool, item_id] = entry
                self._bytes += entry.nbytes - (before.nbytes if before else 0)
            while self._bytes > self._limit:
                self._bytes -= self._held.popitem(last=False)[1].nbytes

    def _forget(self, pool: str) -> None:
        for key in [key for key in self._held if key[0] == pool]:
            self._bytes -= self._held.pop(key).nbytes


def require_texts(ids: Sequence[ItemId], texts: Sequence[str]) -> None:
    """Raise FailedPrecondition where a text is empty, naming one of the items."""
    if all(texts):  # the usual case, for a million candidates a round
        return
    without = [item_id for item_id, text in zip(ids, texts, strict=True) if not text]
    raise FailedPrecondition(
        f"{len(without):,} of {len(ids):,} items have no text, {without[0]!r} for example, and the model reads texts"
    )


def _entries(items: Items) -> dict[ItemId, _Entry]:
    if items.vectors is None:
        raise AssertionError("items came without vectors")
    texts = [None] * len(items) if items.payloads is None else [payload.text for payload in items.payloads]
    return {
        # a copy: the row would keep its whole chunk alive
        item_id: _Entry(vector=vector.copy(), text=text)
        for item_id, vector, text in zip(items.ids, items.vectors, texts, strict=True)
    }
