"""Lists of neighbours on disk, memory-mapped and checksummed."""

import contextlib
import os
import threading
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sealpool.durable import full_disk_is_exhaustion

Keys = NDArray[np.int64]
"""Items by the graph's own numbers; −1 where there is none."""

NONE: Final = -1
"""Fills up a list that holds every other item there was."""
GONE: Final = -2
"""Stands for an item that was retired before the keys were renumbered. Its score still bounds what is not listed."""
_MARK: Final = np.dtype([("as_of", np.uint32), ("checksum", np.uint32)])
_MIN_GROWTH: Final = 1024


class NeighbourLists:
    """For each key at most one list: the nearest keys, their scores, and `as_of`, how many keys there were then.

    A list that was never put, or that is not on disk as it was put (torn by a power cut, a flipped bit), reads as
    unknown: `as_of` 0. So nothing is synced. Space is allocated before it is mapped: a full disk is an error of `put`
    and never a SIGBUS.

    Threads: any. A look-up takes no lock; one that meets a `put` of the same key finds the list before, after, or
    none, since a mixture fails its checksum.

    Parameters
    ----------
    stem
        Path of the two files without their suffix. They are made where they are missing.
    width
        Neighbours a list.
    """

    def __init__(self, stem: Path, *, width: int) -> None:
        self.width = width
        self._lists = _MappedArray(stem.with_suffix(".lists"), _list_type(width))
        with contextlib.ExitStack() as undo:
            undo.callback(self._lists.close)
            self._marks = _MappedArray(stem.with_suffix(".marks"), _MARK)
            undo.pop_all()
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return self._lists.size_bytes + self._marks.size_bytes

    def close(self) -> None:
        """Let go of the files. They stay mapped for look-ups that are under way."""
        with self._lock:
            self._lists.close()
            self._marks.close()

    def look_up(self, keys: Keys) -> tuple[Keys, NDArray[np.float32], NDArray[np.int64]]:
        """Return the lists of `keys` (n,).

        Returns
        -------
        neighbors : (n, width) int64
            Nearest first, then `NONE`.
        scores : (n, width) float32
        as_of : (n,) int64
            0 where the list is unknown; its neighbours are `NONE` then.
        """
        lists = np.zeros(len(keys), _list_type(self.width))
        marks = np.zeros(len(keys), _MARK)
        inside = np.flatnonzero(keys < min(len(self._lists.array), len(self._marks.array)))
        lists[inside] = self._lists.array[keys[inside]]
        marks[inside] = self._marks.array[keys[inside]]
        sound = _checksums(keys, lists, marks["as_of"]) == marks["checksum"]
        as_of = np.where(sound, marks["as_of"], 0).astype(np.int64)
        neighbors = np.where((as_of > 0)[:, None], lists["neighbors"], NONE).astype(np.int64)
        return neighbors, lists["scores"], as_of

    def put(self, keys: Keys, neighbors: Keys, scores: NDArray[np.float32], as_of: int | NDArray[np.int64]) -> None:
        """Keep the lists of `keys` (n,), each given once, in place of those before.

        Parameters
        ----------
        neighbors, scores
            (n, width).
        as_of
            One or (n,), above 0.

        Raises
        ------
        ResourceExhausted
            The disk is full. Nothing was put.
        """
        if not len(keys):
            return
        lists = np.zeros(len(keys), _list_type(self.width))
        lists["neighbors"], lists["scores"] = neighbors, scores
        marks = np.zeros(len(keys), _MARK)
        marks["as_of"] = as_of
        marks["checksum"] = _checksums(keys, lists, marks["as_of"])
        with self._lock:
            self._lists.reserve(int(keys.max()) + 1)
            self._marks.reserve(int(keys.max()) + 1)
            self._lists.array[keys] = lists
            self._marks.array[keys] = marks

    def forget_damaged(self, keys: Keys) -> None:
        """Mark those of `keys` as unknown whose lists are not what was put."""
        with self._lock:
            _, _, as_of = self.look_up(keys)
            doubtful = keys[(as_of == 0) & (keys < len(self._marks.array))]
            damaged = doubtful[self._marks.array["as_of"][doubtful] > 0]
            self._marks.array["as_of"][damaged] = 0

    def as_of(self, first: int, last: int) -> NDArray[np.int64]:
        """Return the `as_of` of the keys from `first` to before `last`, unchecked: a damaged list seems known."""
        told = self._marks.array["as_of"][first:last]
        found = np.zeros(last - first, np.int64)
        found[: len(told)] = told
        return found


class _MappedArray:
    """A file of equal records, mapped whole, that grows."""

    def __init__(self, path: Path, dtype: np.dtype[np.void]) -> None:
        self._path = path
        self._dtype = dtype
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self.array: NDArray[Any] = np.empty(0, dtype)
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            # A file as long as it says may still lack blocks, after a power cut or a copy that left holes.
            self._allocate(os.fstat(self._descriptor).st_size // dtype.itemsize)
            undo.pop_all()

    @property
    def size_bytes(self) -> int:
        return self.array.nbytes

    def reserve(self, count: int) -> None:
        if count > len(self.array):
            self._allocate(max(count, len(self.array) * 9 // 8, _MIN_GROWTH))

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _allocate(self, count: int) -> None:
        if not count:
            return
        with full_disk_is_exhaustion("the neighbour graph", self._path.parent):
            os.posix_fallocate(self._descriptor, 0, count * self._dtype.itemsize)
        self.array = np.memmap(self._path, self._dtype, mode="r+", shape=(count,)).view(np.ndarray)


def _list_type(width: int) -> np.dtype[np.void]:
    return np.dtype([("neighbors", np.int32, (width,)), ("scores", np.float32, (width,))])


def _checksums(keys: Keys, lists: NDArray[Any], as_of: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return a CRC-32 over the list, its key and its `as_of`, for each: a list at another's place fails it too."""
    content, size = memoryview(lists.tobytes()), lists.dtype.itemsize
    starts = np.stack([keys.astype(np.uint32), as_of], axis=1).tobytes()
    crc32 = zlib.crc32
    return np.array(
        [
            crc32(content[position * size : (position + 1) * size], crc32(starts[position * 8 : position * 8 + 8]))
            for position in range(len(keys))
        ],
        np.uint32,
    )
