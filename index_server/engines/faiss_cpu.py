"""What the FAISS engines on CPU share: masking rows, and widening a search that came up short."""

from collections.abc import Sequence
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from index_server.engines.row_mask import RowMask
from index_server.ports import Rows
from index_server.spec import Metric, VectorType
from sealpool.types import Vectors

EXHAUSTIVE: Final = 0
"""The effort of a search that looks at every row."""
_EFFORTS: Final = (1, 4, 16, EXHAUSTIVE)


def rounding_of(dimension: int) -> float:
    """Return what the sum of d float32 products may be off by, as a share of the product of the lengths."""
    return float(4 * np.sqrt(dimension) * np.finfo(np.float32).eps)


def checked_breadth(value: float) -> float:
    """Return `value`, a breadth; ValueError unless it is at least 1."""
    if not value >= 1:
        raise ValueError(f"a breadth of {value:g} is below 1")
    return float(value)


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


class FaissCpuEngine:
    """An Engine over one FAISS index in host memory. A subclass says how one search with a given effort goes.

    FAISS searches on CPU run side by side and release the GIL; `add` must run alone.
    """

    name = ""
    device = "cpu"

    def __init__(self, index: Any, *, threads: int, vector_type: VectorType = VectorType.FLOAT32) -> None:
        self._index = index
        self._threads = threads
        self._dtype = vector_type.dtype
        self._mask = RowMask()
        self._breadth = 1.0

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
        return self._vector_bytes() + self._structure_bytes() + self._mask.nbytes

    @property
    def rounding(self) -> float:
        """Of float32."""
        return rounding_of(int(self._index.d))

    @property
    def breadth(self) -> float:
        """How many times wider than by default it searches."""
        return self._breadth

    @breadth.setter
    def breadth(self, value: float) -> None:
        self._breadth = checked_breadth(value)

    def revealed(self, rows: Rows) -> NDArray[np.bool_]:
        """Say which of `rows` can be found."""
        return self._mask.contains(rows)

    def settled(self) -> bool:
        """Return True."""
        return True

    def make_room(self, rows: int) -> None:
        """Do nothing."""

    def reserve(self, rows: int) -> None:
        """Do nothing."""

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """Append `vectors` as `rows`, masked."""
        check_dense(rows, self.size)
        set_threads(self._threads)
        # Halfway between two float16 (6 numbers in 100,000) FAISS rounds to the one, NumPy to the other.
        self._index.add(np.ascontiguousarray(vectors.astype(self._dtype, copy=False), np.float32))
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
            wide = effort * self._breadth
            scores[short, :found], rows[short, :found] = self._search(queries[short], found, selector, wide)
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

    def _search(
        self, queries: Vectors, k: int, selector: Any | None, effort: float
    ) -> tuple[NDArray[np.float32], Rows]:
        """Return scores and rows (q, k) of one search `effort` times as wide as by default, or EXHAUSTIVE."""
        raise NotImplementedError

    def _vector_bytes(self) -> int:
        return self.size * int(self._index.d) * self._dtype.itemsize

    def _structure_bytes(self) -> int:
        return 0


def check_dense(rows: Rows, size: int) -> None:
    """Raise ValueError unless `rows` are size, size + 1 …."""
    if not np.array_equal(rows, np.arange(size, size + len(rows))):
        raise ValueError(f"rows must go on from {size}")
