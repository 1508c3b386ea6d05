"""Vectors read straight from a Lance data file, at the speed of the disk.

Lance's own reader copies each vector several times and into fresh memory: 1M × 256 float32 took it 1.0 to 1.7 s with
all in the page cache, a plain read 0.1 s. Where a page is nothing but the numbers one after another, which is how Lance
2.1 and later write vectors of 256 bytes and more, they are read from the file itself; where it is anything else,
Lance reads.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from lance.file import LanceFileReader
from numpy.typing import NDArray

from index_server.records import FloatMatrix

PART_BYTES: Final = 4 << 20
"""What one part of vectors holds. Small enough for malloc to use the memory of the part before it again."""
_AHEAD_PARTS: Final = 4
_PLAIN_PAGE = re.compile(
    r"PageLayout\{layout:Some\(FullZipLayout\(FullZipLayout\{bits_rep:0bits_def:0num_items:(\d+)num_visible_items:\1"
    r"value_compression:Some\(CompressiveEncoding\{compression:Some\(FixedSizeList\(FixedSizeList\{"
    r"items_per_value:(\d+)has_validity:falsevalues:Some\(CompressiveEncoding\{compression:Some\(Flat\(Flat\{"
    r"bits_per_value:(\d+)data:None\}\)\)\}\)\}\)\)\}\)layers:\[RepdefAllValidItem\]"
    r"details:Some\(BitsPerValue\(\d+\)\)\}\)\)\}"
)


def rows_of_a_part(dimension: int, itemsize: int) -> int:
    """Return how many vectors one part holds."""
    return max(1, PART_BYTES // (dimension * itemsize))


def read_vectors(path: Path, column: str, dimension: int, dtype: np.dtype[np.floating]) -> Iterator[FloatMatrix]:
    """Return all vectors of a data file in order, in parts: (n, d)."""
    rows = rows_of_a_part(dimension, dtype.itemsize)
    plain = PlainVectors.find(path, column, dimension, dtype)
    if plain is not None:
        with plain:
            for start in range(0, plain.rows, rows):
                yield plain.read(start, min(start + rows, plain.rows))
    else:
        reader = LanceFileReader(str(path), columns=[column])
        for batch in reader.read_all(batch_size=rows, batch_readahead=2).to_batches():
            yield to_matrix(batch.column(column), dimension)


def to_matrix(column: Any, dimension: int) -> FloatMatrix:
    """Return a column of vectors, (n, d), without a copy."""
    matrix: FloatMatrix = column.flatten().to_numpy(zero_copy_only=True).reshape(-1, dimension)
    return matrix


class PlainVectors:
    """The vectors of one data file, whose pages are known to be plain. Use by one thread, as a context."""

    def __init__(
        self, path: Path, dimension: int, dtype: np.dtype[np.floating], pages: NDArray[np.int64], rows: int
    ) -> None:
        self._dimension, self._dtype = dimension, dtype
        # (p, 2): the first row of each page, and where in the file it lies
        self._pages = pages
        self._file = path.open("rb", buffering=0)
        self.rows = rows

    @classmethod
    def find(cls, path: Path, column: str, dimension: int, dtype: np.dtype[np.floating]) -> "PlainVectors | None":
        """Return the vectors of `column` if they can be read so, which its pages and samples show."""
        metadata = LanceFileReader(str(path)).metadata()
        names = metadata.schema.names
        if len(names) != len(metadata.columns):  # nested columns: then it is not known which are whose
            return None
        pages, rows = [], 0
        for page in metadata.columns[names.index(column)].pages:
            count = _plain_rows(page, dimension, dtype)
            if not count:
                return None
            pages.append((rows, page.buffers[0].position))
            rows += count
        found = cls(path, dimension, dtype, np.array(pages, np.int64).reshape(-1, 2), rows)
        if rows and not found._agrees_with_lance(path, column):
            found._file.close()
            return None
        return found

    def __enter__(self) -> "PlainVectors":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, start: int, stop: int) -> FloatMatrix:
        """Return the vectors of rows `start` to `stop`, and let the kernel read on meanwhile."""
        vectors = np.empty((stop - start, self._dimension), self._dtype)
        for page in range(self._page_of(start), self._page_of(stop - 1) + 1):
            first, last = max(start, self._first(page)), min(stop, self._first(page + 1))
            self._read_into(vectors[first - start : last - start], self._position(page, first))
        ahead = self._position(self._page_of(stop - 1), stop)
        os.posix_fadvise(self._file.fileno(), ahead, _AHEAD_PARTS * PART_BYTES, os.POSIX_FADV_WILLNEED)
        return vectors

    def _page_of(self, row: int) -> int:
        return int(np.searchsorted(self._pages[:, 0], row, side="right")) - 1

    def _first(self, page: int) -> int:
        return int(self._pages[page, 0]) if page < len(self._pages) else self.rows

    def _position(self, page: int, row: int) -> int:
        return int(self._pages[page, 1]) + (row - self._first(page)) * self._dimension * self._dtype.itemsize

    def _read_into(self, vectors: FloatMatrix, position: int) -> None:
        left = vectors.view(np.uint8).data.cast("B")
        while left:
            count = os.preadv(self._file.fileno(), [left], position)
            if not count:
                raise OSError(f"{self._file.name} ends within its vectors")
            left, position = left[count:], position + count

    def _agrees_with_lance(self, path: Path, column: str) -> bool:
        ends = [self._first(page + 1) - 1 for page in range(len(self._pages))]
        rows = sorted({*self._pages[:, 0].tolist(), *ends})
        table = LanceFileReader(str(path), columns=[column]).take_rows(rows).to_table()
        expected = to_matrix(table.column(column).combine_chunks(), self._dimension)
        actual = np.concatenate([self.read(row, row + 1) for row in rows])
        return actual.dtype == expected.dtype and actual.tobytes() == expected.tobytes()


def _plain_rows(page: Any, dimension: int, dtype: np.dtype[np.floating]) -> int:
    """Return how many vectors a page holds, 0 if it is not plain."""
    match = _PLAIN_PAGE.fullmatch(re.sub(r"[\s,]+", "", str(page.encoding)))
    if match is None or (int(match[2]), int(match[3])) != (dimension, 8 * dtype.itemsize) or len(page.buffers) != 1:
        return 0
    count = int(match[1])
    return count if page.buffers[0].size == count * dimension * dtype.itemsize else 0
