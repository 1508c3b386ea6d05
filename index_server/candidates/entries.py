"""The items that one campaign ever had to do with, in columns."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from index_server.ports import Rows
from index_server.table.columns import Column
from index_server.table.hash_index import Hashes, HashIndex

Entries = NDArray[np.int64]
"""Positions in an EntryTable: unlike rows they never change."""

_Number = TypeVar("_Number", bound=np.generic)
_SCRAMBLE = np.uint64(0x9E3779B97F4A7C15)


class EntryTable:
    """One entry an item, found by its row; about 55 bytes each.

    The columns are views that can be written to: `rows` (−1 once the pool has lost the item), `standing`, `expanded`,
    `spans` (the version with which it last came in), `order` (which of two came later), `sources` (an entry, −1 for
    none) and `scores`.
    """

    def __init__(self) -> None:
        self._index = HashIndex()
        self._rows = Column(np.int64, directory=None)
        self._standing = Column(np.uint8, directory=None)
        self._expanded = Column(np.bool_, directory=None)
        self._spans = Column(np.int64, directory=None)
        self._order = Column(np.int64, directory=None)
        self._sources = Column(np.int64, directory=None)
        self._scores = Column(np.float32, directory=None)
        self._next_order = 0

    @property
    def rows(self) -> Rows:
        """Where the items lie."""
        return self._rows.values

    @property
    def standing(self) -> NDArray[np.uint8]:
        """What they are to the campaign."""
        return self._standing.values

    @property
    def expanded(self) -> NDArray[np.bool_]:
        """Whether they brought their neighbours."""
        return self._expanded.values

    @property
    def spans(self) -> NDArray[np.int64]:
        """Versions with which they last came in."""
        return self._spans.values

    @property
    def order(self) -> NDArray[np.int64]:
        """Rises with each coming in."""
        return self._order.values

    @property
    def sources(self) -> Entries:
        """What brought them."""
        return self._sources.values

    @property
    def scores(self) -> NDArray[np.float32]:
        """How near what brought them is."""
        return self._scores.values

    def find(self, rows: Rows) -> Entries:
        """Return the entries of `rows` (n,), −1 for a row without one, and for −1."""
        found = self._index.find(_hashes(rows), lambda positions, entries: self.rows[entries] == rows[positions])
        found[rows < 0] = -1
        return found

    def at(self, column: NDArray[_Number], rows: Rows) -> NDArray[_Number]:
        """Return the values of a column for `rows` (n,), zero for a row without an entry."""
        entries = self.find(rows)
        values = np.zeros(len(rows), column.dtype)
        values[entries >= 0] = column[entries[entries >= 0]]
        return values

    def ensure(self, rows: Rows) -> Entries:
        """Return the entries of `rows` (n,), none twice and none −1; make those that are not there."""
        entries = self.find(rows)
        missing = np.flatnonzero(entries < 0)
        made = np.arange(len(self._rows), len(self._rows) + len(missing))
        self._rows.extend(len(made))[:] = rows[missing]
        for column in (self._standing, self._expanded, self._spans, self._order):
            column.extend(len(made))
        self._sources.extend(len(made))[:] = -1
        self._scores.extend(len(made))[:] = np.nan
        self._index.insert(_hashes(rows[missing]), made)
        entries[missing] = made
        return entries

    def to_end(self, entries: Entries) -> None:
        """Let `entries` be the last that came, in this order."""
        self.order[entries] = np.arange(self._next_order, self._next_order + len(entries))
        self._next_order += len(entries)

    def move(self, old: Rows, new: Rows) -> None:
        """Find the items at `old` by `new` from now on."""
        entries = self.find(old)
        known = entries >= 0
        self.rows[entries[known]] = new[known]
        self._index.insert(_hashes(new[known]), entries[known])

    def forget(self, rows: Rows) -> None:
        """Find the items at `rows` no more."""
        entries = self.find(rows)
        self.rows[entries[entries >= 0]] = -1

    def renumber(self, new_rows: Rows) -> None:
        """Find the item at row r by `new_rows[r]`."""
        here = np.flatnonzero(self.rows >= 0)
        self.rows[here] = new_rows[self.rows[here]]
        here = here[self.rows[here] >= 0]
        self._index = HashIndex(expected=len(here))
        self._index.insert(_hashes(self.rows[here]), here)


def _hashes(rows: Rows) -> Hashes:
    return ((rows.astype(np.uint64) * _SCRAMBLE) >> np.uint64(32)).astype(np.uint32)
