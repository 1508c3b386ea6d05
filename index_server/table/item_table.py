"""The table of a pool's items."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from operator import eq
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from index_server.ports import Addresses, Rows
from index_server.table.columns import Column
from index_server.table.hash_index import MAX_NUMBERS, Hashes, HashIndex
from sealpool.errors import NotFound, ResourceExhausted
from sealpool.types import ItemId

_Number = TypeVar("_Number", bound=np.generic)
_COPIED_ROWS: Final = 65_536


class ItemTable:
    """Ids, rows and store addresses of a pool's items.

    Rows are dense and append-only, as an Engine's are. The live rows in ascending order are the items in the store's
    order, so a table that was just loaded and one that lived through the same changes enumerate the same items in the
    same order, though by other rows.

    An item is found by its id through 11 to 16 bytes of memory, and a byte says whether it is live. Its id, address and
    length lie in columns that, given a `directory`, the system can page out: 20 bytes and those of the id.

    Threads: reads by many at once, `append`, `retire` and `move` by one, while nobody reads.
    """

    def __init__(self, *, directory: Path | None = None) -> None:
        self._index = HashIndex()
        self._live = Column(np.bool_, directory=None)
        self._live_count = 0
        with ExitStack() as unless_made:

            def column(dtype: type[_Number]) -> Column[_Number]:
                made = Column(dtype, directory=directory)
                unless_made.callback(made.close)
                return made

            self._addresses = column(np.uint64)
            self._lengths = column(np.float32)
            self._ends = column(np.int64)
            """Where each id ends in `_text`. One more than there are rows: the first begins at 0."""
            self._text = column(np.uint8)
            self._ends.extend(1)
            unless_made.pop_all()
        self._directory = directory

    def __len__(self) -> int:
        return self._live_count

    @property
    def rows(self) -> int:
        """Rows given out, dead ones included: the next one."""
        return len(self._live)

    @property
    def nbytes(self) -> int:
        """Memory used, without the columns that can be paged out."""
        return self._index.nbytes + len(self._live)

    def append(self, ids: Sequence[ItemId] | pa.Array, addresses: Addresses, lengths: NDArray[np.float32]) -> Rows:
        """Give the next rows to `ids`. An id that has a row already must have been retired before.

        `lengths` (n,) are the norms of their vectors as stored, which an index of unit vectors has lost. Raises as
        `reserve`.
        """
        self._check_count(len(ids))
        first = self.rows
        hashes = _hashes(ids.to_pylist() if isinstance(ids, pa.Array) else ids)
        self._append_text(ids)
        self._addresses.extend(len(ids))[:] = addresses
        self._lengths.extend(len(ids))[:] = lengths
        self._live.extend(len(ids))[:] = True
        self._live_count += len(ids)
        rows = np.arange(first, first + len(ids), dtype=np.int64)
        self._index.insert(hashes, rows)
        return rows

    def reserve(self, count: int, *, text_bytes: int) -> None:
        """Take the disk that the next `count` items will need, and `text_bytes` of ids.

        Raises
        ------
        OSError
            The disk is full.
        ResourceExhausted
            There are 2³² rows.
        """
        self._check_count(count)
        for column in (self._addresses, self._lengths, self._ends, self._live):
            column.reserve(count)
        self._text.reserve(text_bytes)

    def skip_to(self, row: int) -> None:
        """Leave the rows before `row` dead that were not given out."""
        missing = row - self.rows
        if missing > 0:
            self._addresses.extend(missing)
            self._lengths.extend(missing)
            self._live.extend(missing)
            self._ends.extend(missing)[:] = len(self._text)

    def retire(self, rows: Rows) -> None:
        """Make live `rows` dead: their items are gone, or lie elsewhere. Their ids can still be read."""
        for start in range(0, len(rows), _COPIED_ROWS):
            part = rows[start : start + _COPIED_ROWS]
            self._index.remove(_hashes(self.ids_at(part)), part)
        self._live.values[rows] = False
        self._live_count -= len(rows)

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
        self._addresses.values[live] = addresses

    def find(self, ids: Iterable[ItemId]) -> Rows:
        """Return the rows of `ids`, −1 for each that the pool does not have."""
        ids = list(ids)

        def matches(positions: Rows, rows: Rows) -> NDArray[np.bool_]:
            wanted = [ids[position] for position in positions.tolist()]
            same = np.fromiter(map(eq, wanted, self.ids_at(rows)), np.bool_, len(rows))
            right: NDArray[np.bool_] = same & self._live.values[rows]
            return right

        return self._index.find(_hashes(ids), matches)

    def lookup(self, ids: Sequence[ItemId], *, field: str = "ids") -> Rows:
        """Return the rows of `ids`; raise NotFound naming those that the pool does not have."""
        rows = self.find(ids)
        if (rows < 0).any():
            missing = [ids[position] for position in np.flatnonzero(rows < 0).tolist()]
            raise NotFound("item", *missing, field=field)
        return rows

    def ids_at(self, rows: Rows) -> list[ItemId]:
        """Return the ids at `rows`, dead ones too."""
        ids: list[ItemId] = self.arrow_ids_at(rows).to_pylist()
        return ids

    def arrow_ids_at(self, rows: Rows) -> pa.LargeStringArray:
        """Return the ids at `rows` as Arrow keeps strings."""
        # Also by who reads an answer bit by bit while items come in: ends first, since text grows before them.
        ends = self._ends.values
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(self._text.values)]
        return pa.Array.from_buffers(pa.large_string(), len(ends) - 1, buffers).take(pa.array(rows))

    def addresses_at(self, rows: Rows) -> Addresses:
        """Return the store addresses of `rows`."""
        return self._addresses.values[rows]

    def lengths_at(self, rows: Rows) -> NDArray[np.float32]:
        """Return the norms of the stored vectors at `rows`."""
        return self._lengths.values[rows]

    def is_live(self, rows: Rows) -> NDArray[np.bool_]:
        """Whether each of `rows` is live."""
        return self._live.values[rows]

    def live_rows(self) -> Rows:
        """Return the rows of all items, ascending: the items in the pool's order."""
        return np.flatnonzero(self._live.values)

    def live_mask(self) -> NDArray[np.bool_]:
        """Return for each row whether it is live: a copy, (rows,)."""
        return self._live.values.copy()

    def extend_from(self, other: "ItemTable", rows: Rows) -> Rows:
        """Append the items at `rows` of another table, and return the rows that they have here."""
        first = self.rows
        for start in range(0, len(rows), _COPIED_ROWS):
            part = rows[start : start + _COPIED_ROWS]
            self.append(other.arrow_ids_at(part), other.addresses_at(part), other.lengths_at(part))
        return np.arange(first, self.rows)

    def close(self) -> None:
        """Give back the disk of the columns. They may still be read by who has them."""
        for column in (self._addresses, self._lengths, self._ends, self._text):
            column.close()

    def _check_count(self, more: int) -> None:
        if self.rows + more > MAX_NUMBERS:
            raise ResourceExhausted(
                f"{self.rows + more:,} rows in one pool", limit=MAX_NUMBERS, setting="the size of a pool"
            )

    def _append_text(self, ids: Sequence[ItemId] | pa.Array) -> None:
        strings = ids if isinstance(ids, pa.Array) else pa.array(ids, pa.large_string())
        strings = strings.cast(pa.large_string())
        ends = np.frombuffer(strings.buffers()[1], np.int64)[strings.offset : strings.offset + len(strings) + 1]
        text_first = len(self._text)
        if len(strings):
            text = strings.buffers()[2]
            self._text.extend(int(ends[-1] - ends[0]))[:] = np.frombuffer(text, np.uint8)[ends[0] : ends[-1]]
            self._ends.extend(len(strings))[:] = ends[1:] - ends[0] + text_first


def _hashes(ids: Sequence[ItemId]) -> Hashes:
    # Python's own hash: well mixed, and seeded anew in each process, so nobody can send ids that collide on purpose.
    return np.fromiter(map(hash, ids), np.int64, len(ids)).view(np.uint64).astype(np.uint32)
