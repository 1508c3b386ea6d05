"""Arrays that grow, in memory or in files that the system can page out."""

import mmap
import os
import tempfile
from pathlib import Path
from typing import Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", bound=np.generic)
_GROWTH: Final = 1.25
_MIN_BYTES: Final = 1 << 16


class Column(Generic[_Number]):
    """A one-dimensional array that grows at its end.

    With a `directory` it lies in a file there that has no name: the system may write its pages out, and it is gone with
    the process. Disk is taken before it is written to, so a full one is an OSError here and never a SIGBUS.

    Threads: `values` may be read by many at once; what was taken before `extend` stays valid.
    """

    def __init__(self, dtype: type[_Number], *, directory: Path | None) -> None:
        self._dtype = np.dtype(dtype)
        # No descriptor without a directory: a server of many pools would run out of them.
        self._file = tempfile.TemporaryFile(dir=directory) if directory else None  # noqa: SIM115 - closed by `close`
        self._room: NDArray[_Number] = np.empty(0, self._dtype)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def values(self) -> NDArray[_Number]:
        """The array as it is now: a view, which can be written to."""
        return self._room[: self._length]

    def reserve(self, count: int) -> None:
        """Take room for `count` more, so that the next `extend` by as many cannot fail.

        Raises
        ------
        OSError
            The disk is full; the column is as it was.
        """
        needed = self._length + count
        if needed > len(self._room):
            self._room = self._roomier(max(int(_GROWTH * needed), _MIN_BYTES // self._dtype.itemsize))

    def extend(self, count: int) -> NDArray[_Number]:
        """Grow by `count` zeros and return the view of them. Raises as `reserve`."""
        self.reserve(count)
        self._length += count
        return self._room[self._length - count : self._length]

    def close(self) -> None:
        """Give the disk back once no view is left."""
        if self._file is not None:
            self._file.close()

    def _roomier(self, capacity: int) -> NDArray[_Number]:
        if self._file is None:
            grown = np.zeros(capacity, self._dtype)
            grown[: self._length] = self.values
            return grown
        size = capacity * self._dtype.itemsize
        os.posix_fallocate(self._file.fileno(), 0, size)
        # Another mapping of the same pages: nothing is copied, and readers keep the one they have.
        return np.frombuffer(mmap.mmap(self._file.fileno(), size), self._dtype)
