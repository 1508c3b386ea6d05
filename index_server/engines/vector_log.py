"""Whole vectors, appended and read back by row, in memory or in a file without a name."""

import mmap
import os
import tempfile
import weakref
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from index_server.ports import Rows
from index_server.spec import VectorType
from sealpool.types import Vectors

_STEP_BYTES: Final = 64 << 20


class VectorLog:
    """Vectors by row, each written once. Subclasses say where they lie.

    Threads: `take` by many at once; `write` by one, while nobody reads rows from its `start` on.
    """

    def __init__(self, dimension: int, vector_type: VectorType) -> None:
        self._dtype = vector_type.dtype
        self._vectors: NDArray[Any] = np.empty((0, dimension), self._dtype)

    @property
    def memory_bytes(self) -> int:
        """Memory that cannot be had back by dropping pages of a file."""
        return self._vectors.nbytes

    def write(self, start: int, vectors: Vectors) -> None:
        """Keep `vectors` (n, d) as rows start, start + 1 …; rows from `start` on that were there are overwritten.

        Raises
        ------
        OSError
            The disk is full or failed. Rows before `start` are as they were.
        """
        stop = start + len(vectors)
        if stop > len(self._vectors):
            self._vectors = self._grown(stop)
        self._put(start, np.ascontiguousarray(vectors, self._dtype))

    def take(self, rows: Rows) -> Vectors:
        """Return the vectors of `rows`: (n, d) float32."""
        return self._vectors[rows].astype(np.float32, copy=False)

    def _grown(self, rows: int) -> NDArray[Any]:
        kept = self._vectors
        grown = np.empty((max(rows, len(kept) * 3 // 2), kept.shape[1]), self._dtype)
        grown[: len(kept)] = kept
        return grown

    def _put(self, start: int, vectors: NDArray[Any]) -> None:
        self._vectors[start : start + len(vectors)] = vectors


class DiskVectorLog(VectorLog):
    """Vectors in a file that has no name, so that nothing is left of it however the process ends.

    The disk is allocated before it is written, with `write` and not through the map: a full disk is then an OSError,
    where a store into a page without a block would be SIGBUS. The map is read-only. Memory is the system's page cache,
    which it takes back when it needs it.
    """

    def __init__(self, dimension: int, vector_type: VectorType, directory: Path) -> None:
        super().__init__(dimension, vector_type)
        self._row_bytes = dimension * self._dtype.itemsize
        with tempfile.TemporaryFile(dir=directory) as file:
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)

    @property
    def memory_bytes(self) -> int:
        """0: pages of a file."""
        return 0

    def _grown(self, rows: int) -> NDArray[Any]:
        step = max(_STEP_BYTES, len(self._vectors) * self._row_bytes // 8) // self._row_bytes + 1
        capacity = max(rows, len(self._vectors) + step)
        os.posix_fallocate(self._file, 0, capacity * self._row_bytes)
        mapped = mmap.mmap(self._file, capacity * self._row_bytes, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, self._dtype).reshape(capacity, -1)

    def _put(self, start: int, vectors: NDArray[Any]) -> None:
        content = vectors.data.cast("B") if vectors.size else memoryview(b"")
        offset = start * self._row_bytes
        while content:
            written = os.pwrite(self._file, content, offset)
            content, offset = content[written:], offset + written


def vector_log(dimension: int, vector_type: VectorType, directory: Path | None) -> VectorLog:
    """Return an empty log in `directory`, or in memory where that is None."""
    if directory is None:
        return VectorLog(dimension, vector_type)
    return DiskVectorLog(dimension, vector_type, directory)
