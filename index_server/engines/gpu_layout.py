"""An index on one GPU or on several of one host: each GPU has one thread, and nothing else touches it."""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from index_server.concurrency import OwnerThread
from index_server.engines.build import BuildRequest, GpuLayout
from index_server.ports import Rows
from index_server.spec import Metric
from sealpool.types import Vectors

T = TypeVar("T")

Found = tuple[NDArray[np.float32], Rows]
"""Scores and rows, each (q, k), as FAISS gives them; rows are −1 where there are fewer."""


class DeviceIndex(Protocol):
    """What an engine asks of an index on GPUs. Used by one thread at a time."""

    def add(self, vectors: Vectors) -> None:
        """Append `vectors` (n, d)."""

    def search(self, queries: Vectors, k: int) -> Found:
        """Return the k nearest rows of each query, nearest first."""

    def widen(self, breadth: float) -> None:
        """Search `breadth` times as wide as by default from now on."""


MakeDeviceIndex = Callable[[int, BuildRequest], DeviceIndex]
"""Makes an empty, trained index on the GPU of that number. Runs on the GPU's thread."""


class GpuPart:
    """An index on one GPU, behind its thread. May be called by many."""

    def __init__(self, name: str, make: Callable[[], DeviceIndex]) -> None:
        self._owner = OwnerThread(name)
        self._index: DeviceIndex | None = self._owner.call(make)

    def add(self, vectors: Vectors) -> None:
        """Append `vectors`."""
        self._on_owner(lambda index: index.add(vectors))

    def search(self, queries: Vectors, k: int) -> Found:
        """Return the k nearest rows of each query."""
        return self._on_owner(lambda index: index.search(queries, k))

    def widen(self, breadth: float) -> None:
        """Search wider from now on."""
        self._on_owner(lambda index: index.widen(breadth))

    def close(self) -> None:
        """Free the device memory, on the thread that took it."""
        self._owner.call(self._free)
        self._owner.close()

    def _free(self) -> None:
        self._index = None

    def _on_owner(self, work: Callable[[DeviceIndex], T]) -> T:
        def call() -> T:
            if self._index is None:
                raise RuntimeError("the index was closed")
            return work(self._index)

        return self._owner.call(call)


class Gpus:
    """The same calls to all GPUs at once. Subclasses say which part of the work is whose."""

    def __init__(self, parts: Sequence[GpuPart]) -> None:
        self._parts = parts
        self._callers = ThreadPoolExecutor(len(parts), thread_name_prefix="gpus")

    def widen(self, breadth: float) -> None:
        """Search wider from now on."""
        for part in self._parts:
            part.widen(breadth)

    def close(self) -> None:
        """Free the device memory."""
        self._callers.shutdown(wait=True)
        for part in self._parts:
            part.close()


class Replicas(Gpus):
    """Every item on each GPU; queries are dealt out in equal parts, beginning with another GPU each time."""

    def __init__(self, parts: Sequence[GpuPart]) -> None:
        super().__init__(parts)
        self._turns = itertools.count()

    def add(self, vectors: Vectors) -> None:
        """Append `vectors` on each GPU."""
        list(self._callers.map(lambda part: part.add(vectors), self._parts))

    def search(self, queries: Vectors, k: int) -> Found:
        """Return the k nearest rows of each query."""
        blocks = [block for block in np.array_split(queries, len(self._parts)) if len(block)]
        first = next(self._turns) % len(self._parts)
        parts = [*self._parts[first:], *self._parts[:first]]
        answers = list(self._callers.map(lambda part, block: part.search(block, k), parts, blocks))
        return np.concatenate([scores for scores, _ in answers]), np.concatenate([rows for _, rows in answers])


class Shards(Gpus):
    """Each item on one GPU; every GPU answers every query, and the answers are merged.

    Each addition is dealt out evenly, so that GPUs stay equally full; which row lies where takes 8 bytes of host memory
    a row. FAISS's IndexShards is not used: over indexes without ids, as GPU Flat is, it takes one addition only.
    """

    def __init__(self, parts: Sequence[GpuPart], metric: Metric) -> None:
        super().__init__(parts)
        self._metric = metric
        self._rows: list[Rows] = [np.empty(0, np.int64) for _ in parts]
        self._size = 0

    def add(self, vectors: Vectors) -> None:
        """Append `vectors`, a part of them on each GPU."""
        emptiest = np.argsort([len(rows) for rows in self._rows], kind="stable")
        start = 0
        for shard, block in zip(emptiest, np.array_split(vectors, len(self._parts)), strict=True):
            if len(block):
                self._parts[shard].add(block)
                rows = np.arange(self._size + start, self._size + start + len(block))
                self._rows[shard] = np.concatenate([self._rows[shard], rows])
            start += len(block)
        self._size += len(vectors)

    def search(self, queries: Vectors, k: int) -> Found:
        """Return the k nearest rows of each query."""
        filled = [(part, rows) for part, rows in zip(self._parts, self._rows, strict=True) if len(rows)]
        answers = list(self._callers.map(lambda shard: _search_shard(shard[0], shard[1], queries, k), filled))
        return merged(self._metric, answers, k)


def merged(metric: Metric, answers: Sequence[Found], k: int) -> Found:
    """Return the k best of several answers to the same queries; of equal scores the lower row first."""
    scores = np.concatenate([scores for scores, _ in answers], axis=1)
    rows = np.concatenate([rows for _, rows in answers], axis=1)
    sign = -1 if metric.higher_is_nearer else 1
    order = np.lexsort((rows, np.where(rows < 0, np.inf, sign * scores)), axis=-1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def lay_out(name: str, request: BuildRequest, make: MakeDeviceIndex) -> GpuPart | Replicas | Shards:
    """Return an empty index on the GPUs that `request` names."""
    parts = [GpuPart(f"gpu{gpu}-{name}", partial(make, gpu, request)) for gpu in range(request.gpus)]
    if len(parts) == 1:
        return parts[0]
    if request.gpu_layout is GpuLayout.SHARDS:
        return Shards(parts, request.metric)
    return Replicas(parts)


def _search_shard(part: GpuPart, rows: Rows, queries: Vectors, k: int) -> Found:
    scores, places = part.search(queries, k)
    return scores, np.where(places < 0, -1, rows[places])
