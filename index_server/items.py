"""The items of a pool in memory: which id lies at which row, and where in the store."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from index_server.ports import Addresses, Rows
from sealpool.errors import NotFound
from sealpool.types import ItemId

_Number = TypeVar("_Number", bound=np.generic)


class ItemTable:
    """Ids, rows and store addresses of a pool's items.

    Rows are dense and append-only, as an Engine's are. The live rows in ascending order are the items in the store's
    order, so a table that was just loaded and one that lived through the same changes enumerate the same items in the
    same order, though by other rows.

    Threads: reads by many at once, `append`, `retire` and `move` by one, while nobody reads.
    """

    def __init__(self) -> None:
        self._ids: list[ItemId] = []
        self._row_of: dict[ItemId, int] = {}
        self._addresses = np.empty(0, np.uint64)
        self._lengths = np.empty(0, np.float32)
        self._live = np.empty(0, np.bool_)

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, item_id: ItemId) -> bool:
        return item_id in self._row_of

    @property
    def rows(self) -> int:
        """Rows given out, dead ones included: the next one."""
        return len(self._ids)

    def append(self, ids: Sequence[ItemId], addresses: Addresses, lengths: NDArray[np.float32]) -> Rows:
        """Give the next rows to `ids`. An id that has a row already must have been retired before.

        `lengths` (n,) are the norms of their vectors as stored, which an index of unit vectors has lost.
        """
        first = len(self._ids)
        self._reserve(first + len(ids))
        self._ids.extend(ids)
        self._addresses[first : first + len(ids)] = addresses
        self._lengths[first : first + len(ids)] = lengths
        self._live[first : first + len(ids)] = True
        self._row_of.update(zip(ids, range(first, first + len(ids)), strict=True))
        return np.arange(first, first + len(ids), dtype=np.int64)

    def skip_to(self, row: int) -> None:
        """Leave the rows before `row` dead that were not given out."""
        self._reserve(row)
        self._ids.extend([ItemId("")] * (row - len(self._ids)))

    def retire(self, rows: Rows) -> None:
        """Make live `rows` dead: their items are gone, or lie elsewhere."""
        for row in rows.tolist():
            del self._row_of[self._ids[row]]
        self._live[rows] = False

    def move(self, addresses: Addresses) -> None:
        """Take new addresses for the live rows, in ascending order of rows, which is the store's order.

        Raises
        ------
        ValueError
            There are not as many addresses as live rows.
        """
        live = self.live_rows()
        if len(addresses) != len(live):
            raise ValueError(f"{len(addresses)} addresses for {len(live)} items")
        self._addresses[live] = addresses

    def find(self, ids: Iterable[ItemId]) -> Rows:
        """Return the rows of `ids`, −1 for each that the pool does not have."""
        get = self._row_of.get
        return np.array([get(item_id, -1) for item_id in ids], dtype=np.int64)

    def lookup(self, ids: Sequence[ItemId], *, field: str = "ids") -> Rows:
        """Return the rows of `ids`; raise NotFound naming those that the pool does not have."""
        rows = self.find(ids)
        if (rows < 0).any():
            missing = [ids[position] for position in np.flatnonzero(rows < 0).tolist()]
            raise NotFound("item", *missing, field=field)
        return rows

    def ids_at(self, rows: Rows) -> list[ItemId]:
        """Return the ids at `rows`."""
        ids = self._ids
        return [ids[row] for row in rows.tolist()]

    def addresses_at(self, rows: Rows) -> Addresses:
        """Return the store addresses of `rows`."""
        return self._addresses[rows]

    def lengths_at(self, rows: Rows) -> NDArray[np.float32]:
        """Return the norms of the stored vectors at `rows`."""
        return self._lengths[rows]

    def live_rows(self) -> Rows:
        """Return the rows of all items, ascending: the items in the pool's order."""
        return np.flatnonzero(self._live[: len(self._ids)])

    def live_mask(self) -> NDArray[np.bool_]:
        """Return for each row whether it is live: a copy, (rows,)."""
        return self._live[: len(self._ids)].copy()

    def compacted(self) -> "ItemTable":
        """Return a table of the same items in the same order without dead rows."""
        live = self.live_rows()
        table = ItemTable()
        table.append(self.ids_at(live), self.addresses_at(live), self.lengths_at(live))
        return table

    def _reserve(self, rows: int) -> None:
        if rows > len(self._live):
            capacity = max(rows, len(self._live) * 3 // 2, 1024)
            self._addresses = _grown(self._addresses, capacity)
            self._lengths = _grown(self._lengths, capacity)
            self._live = _grown(self._live, capacity)


def _grown(array: NDArray[_Number], capacity: int) -> NDArray[_Number]:
    grown = np.zeros(capacity, array.dtype)
    grown[: len(array)] = array
    return grown
