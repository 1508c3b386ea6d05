"""What the FAISS engines on CPU share: the mask of removed rows, and widening a search that came up short."""

from collections.abc import Sequence
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from index_server.ports import Rows
from index_server.spec import Metric
from sealpool.types import Vectors

EXHAUSTIVE: Final = 0
"""The effort of a search that looks at every row."""
_EFFORTS: Final = (1, 4, 16, EXHAUSTIVE)


def faiss_metric(metric: Metric) -> int:
    """Return FAISS's number of a metric. Cosine is the inner product of unit vectors."""
    return int(faiss.METRIC_L2 if metric is Metric.L2 else faiss.METRIC_INNER_PRODUCT)


def set_threads(threads: int) -> None:
    """Let FAISS use `threads` threads in calls from this thread. OpenMP keeps that number a thread, not a process."""
    faiss.omp_set_num_threads(threads)


def search_parameters(name: str, **values: Any) -> Any:
    """Make one of FAISS's SearchParameters. Its type stubs know neither their keywords nor all of their names."""
    return getattr(faiss, name)(**values)


def _selector(bits: NDArray[np.uint8]) -> Any:
    make: Any = faiss.IDSelectorBitmap  # the wrapper takes an array, the stub does not
    return make(bits)


class RowMask:
    """Which rows are not removed, one bit each, as FAISS's IDSelectorBitmap reads it."""

    def __init__(self) -> None:
        self._bits = np.zeros(0, np.uint8)
        self.size = 0
        self.removed = 0

    def append(self, count: int) -> None:
        """Add `count` rows, marked as removed until they are revealed."""
        needed = (self.size + count + 7) // 8
        if needed > len(self._bits):
            grown = np.zeros(max(needed, len(self._bits) * 3 // 2), np.uint8)
            grown[: len(self._bits)] = self._bits
            self._bits = grown
        self.size += count
        self.removed += count

    def reveal(self, rows: Rows) -> None:
        """Mark rows, each given once, as not removed."""
        self.removed -= len(rows) - len(self._kept(rows))
        _set(self._bits, rows)

    def remove(self, rows: Rows) -> None:
        """Mark rows as removed."""
        rows = np.unique(rows)
        self.removed += len(self._kept(rows))
        _clear(self._bits, rows)

    def without(self, excluded: Rows | None) -> tuple[NDArray[np.uint8] | None, int]:
        """Return the bits less `excluded` (None if every row counts), and how many rows count."""
        left = self.size - self.removed
        if excluded is not None and len(excluded):
            kept = self._kept(np.unique(excluded))
            if len(kept):
                bits = self._bits.copy()
                _clear(bits, kept)
                return bits, left - len(kept)
        return (self._bits if self.removed else None), left

    @property
    def nbytes(self) -> int:
        """Memory used."""
        return self._bits.nbytes

    def _kept(self, rows: Rows) -> Rows:
        kept: Rows = rows[(self._bits[rows >> 3] >> (rows & 7).astype(np.uint8)) & 1 == 1]
        return kept


def _set(bits: NDArray[np.uint8], rows: Rows) -> None:
    np.bitwise_or.at(bits, rows >> 3, np.left_shift(1, rows & 7).astype(np.uint8))


def _clear(bits: NDArray[np.uint8], rows: Rows) -> None:
    np.bitwise_and.at(bits, rows >> 3, (255 - np.left_shift(1, rows & 7)).astype(np.uint8))


class FaissCpuEngine:
    """An Engine over one FAISS index in host memory. A subclass says how one search with a given effort goes.

    FAISS searches on CPU run side by side and release the GIL; `add` must run alone.
    """

    name = ""
    device = "cpu"

    def __init__(self, index: Any, *, threads: int) -> None:
        self._index = index
        self._threads = threads
        self._mask = RowMask()

    @property
    def size(self) -> int:
        """Rows added."""
        return self._mask.size

    @property
    def removed(self) -> int:
        """Rows removed."""
        return self._mask.removed

    @property
    def memory_bytes(self) -> int:
        """Memory of vectors, structure and mask."""
        return self.size * int(self._index.d) * 4 + self._structure_bytes() + self._mask.nbytes

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """Append `vectors` as `rows`, masked."""
        check_dense(rows, self.size)
        set_threads(self._threads)
        self._index.add(np.ascontiguousarray(vectors, np.float32))
        self._mask.append(len(rows))

    def reveal(self, rows: Rows) -> None:
        """Let `rows` be found."""
        self._mask.reveal(rows)

    def remove(self, rows: Rows) -> None:
        """Mask `rows`."""
        self._mask.remove(rows)

    def search(self, queries: Vectors, k: int, *, excluded: Rows | None = None) -> tuple[Rows, NDArray[np.float32]]:
        """Return the nearest rows and their scores, each (q, k)."""
        bits, left = self._mask.without(excluded)
        selector = None if bits is None else _selector(bits)
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.zeros((len(queries), k), np.float32)
        found = min(k, left)
        if not found or not len(queries):
            return rows, scores
        set_threads(self._threads)
        queries = np.ascontiguousarray(queries, np.float32)
        short = np.arange(len(queries))
        for effort in self._efforts():
            scores[short, :found], rows[short, :found] = self._search(queries[short], found, selector, effort)
            short = short[(rows[short, :found] < 0).any(axis=1)]
            if not len(short):
                break
        return rows, scores

    def vectors(self, rows: Rows) -> Vectors:
        """Return the vectors of `rows`."""
        set_threads(self._threads)
        vectors: Vectors = self._index.reconstruct_batch(np.ascontiguousarray(rows, np.int64))
        return vectors

    def save(self) -> bytes | None:
        """Return None: nothing was trained."""
        return None

    def close(self) -> None:
        """Do nothing: memory goes with the object."""

    def _efforts(self) -> Sequence[int]:
        return _EFFORTS

    def _search(self, queries: Vectors, k: int, selector: Any | None, effort: int) -> tuple[NDArray[np.float32], Rows]:
        """Return scores and rows (q, k) of one search with `effort` times the engine's breadth, or EXHAUSTIVE."""
        raise NotImplementedError

    def _structure_bytes(self) -> int:
        return 0


def check_dense(rows: Rows, size: int) -> None:
    """Raise ValueError unless `rows` are size, size + 1 …."""
    if not np.array_equal(rows, np.arange(size, size + len(rows))):
        raise ValueError(f"rows must go on from {size}")
