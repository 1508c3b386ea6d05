"""A Lance data set read at one version: a pool's own, or another system's."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from index_server.ports import Addresses
from index_server.records import FloatMatrix, PayloadColumns, Records
from index_server.store.stored_items import StoredItems
from index_server.store.vector_pages import PlainVectors, rows_of_a_part, to_matrix
from sealpool.types import ItemId

_SCAN_BYTES: Final = 8 << 20
_SCAN_ROWS_WITH_PAYLOADS: Final = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """What a data set calls its columns. A payload column is "" where there is none."""

    id: str = "id"
    vector: str = "vector"
    text: str = "text"
    uri: str = "uri"
    metadata_json: str = "metadata_json"

    @property
    def payload(self) -> tuple[str, str, str]:
        """The names of the three payload columns."""
        return self.text, self.uri, self.metadata_json


class LanceSnapshot:
    """A Lance data set at one version.

    Parameters
    ----------
    files
        The data and deletion files that it consists of, where they are ours to keep.
    root
        Where it lies on this machine; None for an object store.
    """

    def __init__(
        self,
        dataset: lance.LanceDataset,
        *,
        root: Path | None,
        files: frozenset[str] = frozenset(),
        columns: Columns | None = None,
    ) -> None:
        self.dataset = dataset
        self.files = files
        self.version = int(dataset.version)
        self.count = int(dataset.count_rows())
        self._root = root
        self._columns = columns or Columns()
        vector_type = dataset.schema.field(self._columns.vector).type
        self._dimension = int(vector_type.list_size)
        self._dtype: np.dtype[np.floating] = np.dtype(vector_type.value_type.to_pandas_dtype())

    def addresses(self, *, last: int | None = None) -> Addresses:
        """Return the addresses of all items, or of the last ones, in order."""
        if last == 0:
            return np.empty(0, np.uint64)
        offset = None if last is None else self.count - last
        table = self.dataset.to_table(columns=[], with_row_address=True, offset=offset)
        addresses: Addresses = table["_rowaddr"].to_numpy()
        return addresses

    def items(self) -> Iterator[StoredItems]:
        """Read ids and vectors of all items in order."""
        for fragment in self.dataset.get_fragments():
            plain = self._plain_vectors(fragment)
            if plain is None:
                yield from self._decoded_items(fragment)
            else:
                with plain:
                    yield from self._plain_items(fragment, plain)

    def scan(self, *, vectors: bool, payloads: bool) -> Iterator[Records]:
        """Read all items in order."""
        rows = max(1, _SCAN_BYTES // (4 * self._dimension))
        if payloads:
            rows = min(rows, _SCAN_ROWS_WITH_PAYLOADS)
        names = self._names(vectors=vectors, payloads=payloads)
        for batch in self.dataset.to_batches(columns=names, batch_size=rows, scan_in_order=True):
            if batch.num_rows:
                yield self._to_records(batch, payloads=payloads)

    def take(self, addresses: Addresses, *, vectors: bool, payloads: bool) -> Records:
        """Read the items at `addresses` in that order."""
        names = self._names(vectors=vectors, payloads=payloads)
        # The public `take` goes by position among the live rows, which every deletion shifts.
        table = self.dataset._take_rows(pa.array(addresses, pa.uint64()), columns=names)  # noqa: SLF001
        if table.num_rows != len(addresses):
            raise RuntimeError(f"{len(addresses) - table.num_rows} addresses hold no item at version {self.version}")
        return self._to_records(table.combine_chunks(), payloads=payloads)

    def _plain_vectors(self, fragment: Any) -> PlainVectors | None:
        files = fragment.metadata.files
        if self._root is None or len(files) != 1:
            return None
        path = self._root / "data" / files[0].path
        return PlainVectors.find(path, self._columns.vector, self._dimension, self._dtype)

    def _plain_items(self, fragment: Any, plain: PlainVectors) -> Iterator[StoredItems]:
        ids = to_id_array(fragment.to_table(columns=[self._columns.id])[self._columns.id])
        live = None if fragment.metadata.deletion_file is None else _live_offsets(fragment)
        rows = rows_of_a_part(self._dimension, self._dtype.itemsize)
        for start in range(0, plain.rows, rows):
            stop = min(start + rows, plain.rows)
            if live is None:
                yield StoredItems(ids=ids[start:stop], vectors=plain.read(start, stop))
                continue
            first, last = np.searchsorted(live, [start, stop]).tolist()
            if last > first:
                vectors: FloatMatrix = plain.read(start, stop)[live[first:last] - start]
                yield StoredItems(ids=ids[first:last], vectors=vectors)

    def _decoded_items(self, fragment: Any) -> Iterator[StoredItems]:
        names = [self._columns.id, self._columns.vector]
        rows = rows_of_a_part(self._dimension, self._dtype.itemsize)
        for batch in fragment.to_batches(columns=names, batch_size=rows):
            if batch.num_rows:
                vectors = to_matrix(batch.column(names[1]), self._dimension)
                yield StoredItems(ids=to_id_array(batch.column(names[0])), vectors=vectors)

    def _names(self, *, vectors: bool, payloads: bool) -> list[str]:
        names = [self._columns.id, *([self._columns.vector] if vectors else [])]
        return [*names, *(name for name in self._columns.payload if payloads and name)]

    def _to_records(self, data: pa.RecordBatch | pa.Table, *, payloads: bool) -> Records:
        vectors = None
        if self._columns.vector in data.schema.names:
            column = data.column(self._columns.vector)
            vectors = to_matrix(_one_array(column), self._dimension)
        ids = [ItemId(item_id) for item_id in to_id_array(data.column(self._columns.id)).to_pylist()]
        return Records(ids=ids, vectors=vectors, payloads=self._payloads(data) if payloads else None)

    def _payloads(self, data: pa.RecordBatch | pa.Table) -> PayloadColumns:
        texts, uris, metadata = (
            pc.fill_null(data.column(name), "").to_pylist() if name else [""] * data.num_rows
            for name in self._columns.payload
        )
        return PayloadColumns(texts=texts, uris=uris, metadata_json=metadata)


def to_id_array(column: Any) -> pa.StringArray:
    """Return ids, strings or integers, as one array of strings."""
    array = _one_array(column)
    return array if array.type == pa.string() else array.cast(pa.string())


def _one_array(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _live_offsets(fragment: Any) -> Any:
    addresses = fragment.to_table(columns=[], with_row_address=True)["_rowaddr"].to_numpy()
    return (addresses & np.uint64(0xFFFFFFFF)).astype(np.int64)
