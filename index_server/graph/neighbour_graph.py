"""The neighbour graph of one pool: its keys, and their lists of neighbours."""

import contextlib
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index_server.graph.key_log import DamagedLog, KeyLog, Numbering
from index_server.graph.lists import GONE, Keys, NeighbourLists
from sealpool.durable import make_directory, sync_directory
from sealpool.errors import ResourceExhausted
from sealpool.failpoint import reach

_MAX_KEYS: Final = np.iinfo(np.int32).max
_MIN_DEAD_KEYS: Final = 1024
_MAX_EVENTS: Final = 1000
_BLOCK_KEYS: Final = 8192


class NeighbourGraph:
    """Keys of a pool's items, and lists of the nearest neighbours of some or all of them.

    Live keys, ascending, are the items in the store's order, at every moment. A change of items goes like this:
    `record` it, naming the pool version that it makes; commit it in the store; `apply` it. Where the commit fails,
    `discard`.

    Threads: `record`, `apply` and `discard` by one; nobody may read while `apply` runs; all else by many at once.
    """

    def __init__(self, log: KeyLog, lists: NeighbourLists, numbering: Numbering, *, neighbors: int) -> None:
        self._log = log
        self._count = len(numbering.retired)
        self._retired = numbering.retired
        self._pending: tuple[int, Keys] | None = None
        self.neighbors = neighbors
        self.lists = lists

    @classmethod
    def open(cls, directory: Path, *, neighbors: int, store_version: int, live_count: int) -> "NeighbourGraph":
        """Open or make the graph of a store that is at `store_version` and holds `live_count` items.

        If what is on disk does not fit them, the graph begins with nothing known. Where most keys are dead, they are
        given anew, and lists are taken over.

        Parameters
        ----------
        neighbors
            The most a look-up can answer. Lists are an eighth wider, so that they outlast some retired neighbours.

        Raises
        ------
        ResourceExhausted
            The disk is full.
        """
        make_directory(directory)
        log, numbering = _open_log(directory, store_version)
        with contextlib.ExitStack() as undo:
            undo.callback(log.close)
            if numbering is None or np.count_nonzero(~numbering.retired) != live_count:
                generation = numbering.generation + 1 if numbering else 1
                numbering = _begin(log, directory, generation, version=store_version, count=live_count)
            width = neighbors + max(4, neighbors // 8)
            _remove_lists(directory, but=_stem(numbering.generation, width))
            lists, numbering = _tidied(log, directory, numbering, width)
            undo.pop_all()
        return cls(log, lists, numbering, neighbors=neighbors)

    @property
    def key_count(self) -> int:
        """Keys given out: the next one."""
        return self._count

    @property
    def retired(self) -> NDArray[np.bool_]:
        """For each key whether its item is gone: (keys,), a view."""
        return self._retired[: self._count]

    @property
    def live_count(self) -> int:
        """Live keys."""
        return int(np.count_nonzero(~self.retired))

    @property
    def known_count(self) -> int:
        """Live keys whose list is known. A damaged list counts until it is looked up."""
        return int(np.count_nonzero((self.lists.as_of(0, self._count) > 0) & ~self.retired))

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return self.lists.size_bytes + self._log.size_bytes

    def live_keys(self, first: int = 0) -> Keys:
        """Return the live keys from `first` on, ascending: the items in the store's order."""
        return np.flatnonzero(~self.retired[first:]) + first

    def last_live_keys(self, count: int) -> Keys:
        """Return the last `count` live keys, or all if there are fewer, ascending."""
        span = 2 * count
        while True:
            first = max(0, self._count - span)
            live = self.live_keys(first)
            if len(live) >= count or first == 0:
                return live[max(0, len(live) - count) :]
            span *= 4

    def record(self, version: int, *, appended: int, retired: Keys) -> None:
        """Write down, durably, that the pool's `version` will add items at its end and let those of `retired` go.

        Raises
        ------
        ResourceExhausted
            The disk is full, or there are no keys left until the pool is opened again.
        """
        if self._count + appended > _MAX_KEYS:
            raise ResourceExhausted("neighbour graph of the items since the start", limit=_MAX_KEYS, setting="")
        self._log.record(version, appended=appended, retired=retired)
        self._pending = (appended, retired)

    def apply(self) -> Keys:
        """Let what was recorded last be so, as its version is committed; return the keys of the added items."""
        if self._pending is None:
            raise ValueError("nothing was recorded")
        appended, retired = self._pending
        first, self._count = self._count, self._count + appended
        if self._count > len(self._retired):
            self._retired = _grown(self._retired, max(self._count, len(self._retired) * 3 // 2))
        self._retired[retired] = True
        self._pending = None
        return np.arange(first, self._count, dtype=np.int64)

    def discard(self, version: int) -> None:
        """Forget what was recorded for versions above the store's `version`."""
        self._log.discard(version)
        self._pending = None

    def close(self) -> None:
        """Let go of the files."""
        self.lists.close()
        self._log.close()


def _open_log(directory: Path, version: int) -> tuple[KeyLog, Numbering | None]:
    """Return the log and the numbering in it, if there is one that can be used."""
    path = directory / "keys.sqlite"
    with contextlib.suppress(DamagedLog):
        log = KeyLog(path)
        with contextlib.ExitStack() as undo:
            undo.callback(log.close)
            numbering = log.load(version)
            undo.pop_all()
        return log, numbering
    for name in ("keys.sqlite", "keys.sqlite-journal"):
        (directory / name).unlink(missing_ok=True)
    return KeyLog(path), None


def _begin(log: KeyLog, directory: Path, generation: int, *, version: int, count: int) -> Numbering:
    # Lists of another numbering must be gone before this one counts: where its log was lost, they bear its generation.
    _remove_lists(directory, but="")
    numbering = Numbering(generation=generation, version=version, retired=np.zeros(count, np.bool_))
    log.rebase(numbering)
    return numbering


def _remove_lists(directory: Path, *, but: str) -> None:
    for path in directory.glob("*-*.*"):
        if path.suffix in {".lists", ".marks"} and path.stem != but:
            path.unlink()
    sync_directory(directory)


def _stem(generation: int, width: int) -> str:
    return f"{generation}-{width}"


def _lists_of(directory: Path, generation: int, width: int) -> NeighbourLists:
    return NeighbourLists(directory / _stem(generation, width), width=width)


def _tidied(log: KeyLog, directory: Path, numbering: Numbering, width: int) -> tuple[NeighbourLists, Numbering]:
    """Return the lists and the numbering, renumbered if most keys are dead, its events folded if they are many."""
    lists = _lists_of(directory, numbering.generation, width)
    dead = int(np.count_nonzero(numbering.retired))
    with contextlib.ExitStack() as undo:
        undo.callback(lists.close)
        if dead > max(_MIN_DEAD_KEYS, len(numbering.retired) // 2):
            return _renumbered(log, directory, lists, numbering)
        if numbering.events > _MAX_EVENTS:
            log.rebase(numbering)
        undo.pop_all()
    return lists, numbering


def _renumbered(
    log: KeyLog, directory: Path, lists: NeighbourLists, numbering: Numbering
) -> tuple[NeighbourLists, Numbering]:
    live = np.flatnonzero(~numbering.retired)
    other = Numbering(
        generation=numbering.generation + 1, version=numbering.version, retired=np.zeros(len(live), np.bool_)
    )
    copied = _lists_of(directory, other.generation, lists.width)
    with contextlib.ExitStack() as undo:
        undo.callback(copied.close)
        _copy_lists(lists, copied, live, numbering.retired)
        reach("index.graph.before_renumbering")
        log.rebase(other)  # the one step at which the new keys and their lists count, and the old ones do not
        reach("index.graph.after_renumbering")
        _remove_lists(directory, but=_stem(other.generation, lists.width))
        undo.pop_all()
    return copied, other


def _copy_lists(lists: NeighbourLists, copied: NeighbourLists, live: Keys, retired: NDArray[np.bool_]) -> None:
    live_before = np.concatenate([[0], np.cumsum(~retired)])
    translated = np.where(retired, GONE, live_before[:-1])
    for start in range(0, len(live), _BLOCK_KEYS):
        keys = live[start : start + _BLOCK_KEYS]
        neighbors, scores, as_of = lists.look_up(keys)
        known = np.flatnonzero(as_of > 0)
        old = neighbors[known]
        new = np.where(old < 0, old, translated[np.maximum(old, 0)])
        copied.put(start + known, new, scores[known], live_before[as_of[known]])


def _grown(array: NDArray[np.bool_], capacity: int) -> NDArray[np.bool_]:
    grown = np.zeros(capacity, np.bool_)
    grown[: len(array)] = array
    return grown
