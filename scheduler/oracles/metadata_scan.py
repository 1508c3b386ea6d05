"""One metadata field of a whole pool, read once for many campaigns."""

import threading
from collections.abc import Iterator, Sequence

from scheduler.ports import Index
from sealpool.types import ItemId, Items

MAX_KEPT = 500_000
"""Items whose values are kept, at some 200 bytes each; a larger pool is read anew each time."""

Values = Sequence[tuple[ItemId, object]]


class MetadataScan:
    """Reads a field of all items of a pool, and keeps it until another field is asked for or the pool has changed.

    Hundreds of concept campaigns begin on one pool, each by a look at all of its items. Safe to share between threads;
    those that ask for the same wait for one reading.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._key: object = None
        self._values: Values = ()

    def values(self, pool: str, field: str) -> Values:
        """Return each item with what its field says, None where it has none.

        Raises
        ------
        NotFound
            No such pool.
        """
        with self._lock:
            found = self._index.get_pool(pool)
            key = (found.spec.name, found.created_at.ToNanoseconds(), found.version, field)
            if key == self._key:
                return self._values
            self._key, self._values = None, ()
            values = [
                pair
                for items in self._index.scan_items(pool, vectors=False, payloads=True)
                for pair in values_of(items, field)
            ]
            if len(values) <= MAX_KEPT:
                self._key, self._values = key, values
            return values


def values_of(items: Items, field: str) -> Iterator[tuple[ItemId, object]]:
    """Yield each item with what its field says, None where it has none. The payloads must have been read."""
    for item, payload in zip(items.ids, items.payloads or (), strict=True):
        yield item, payload.metadata.get(field)
