"""`milvus`: an index in a Milvus server, for pools that are larger than this machine's memory. Approximate."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index_server.engines.build import BuildRequest, EngineKind
from index_server.engines.exact import exact_top, rescored
from index_server.engines.faiss_cpu import check_dense, checked_breadth, rounding_of
from index_server.engines.hnsw import DEFAULT_EF_CONSTRUCTION, DEFAULT_EF_SEARCH, DEFAULT_NEIGHBORS
from index_server.engines.milvus_filling import MAX_BEHIND, Filling, There
from index_server.engines.milvus_server import MAX_FETCH, MilvusIndex, MilvusServer, Shape
from index_server.engines.row_mask import Bits, RowMask, selected
from index_server.engines.vector_log import vector_log
from index_server.ports import Engine, Rows
from index_server.spec import Device, EngineOptions
from sealpool.errors import FailedPrecondition, InvalidArgument, Unavailable
from sealpool.types import Vectors

MAX_DIMENSION: Final = 32_768
_MAX_LINKS: Final = 2048
_MAX_EF: Final = 32_768
_QUERY_BYTES: Final = 8 << 20
_MAX_QUERIES: Final = 16_384
"""Milvus takes no more at once."""
_ANSWER_KEYS: Final = 1 << 19
"""Keys and scores of one answer, 6 MiB. Milvus sends up to 100."""
_WIDENING: Final = 4

Answer = tuple[Rows, NDArray[np.float32]]


class MilvusEngine:
    """A collection of Milvus that a thread fills from whole vectors, which are kept here, on disk.

    Milvus finds rows. Which of them count, and how near they are, is said here, by mask and by whole vectors, so scores
    are true whatever Milvus stores. Rows that it does not have yet, up to 65,536, are compared one by one.

    Memory here: a bit an item. Disk here: 4·d bytes an item (2·d as float16). In Milvus: as its index takes it.
    """

    name = "milvus"
    device = "cpu"

    def __init__(self, request: BuildRequest, server: MilvusServer) -> None:
        self._metric = request.metric
        self._dimension = request.dimension
        self._server = server
        self._vectors = vector_log(request.dimension, request.vector_type, request.scratch_dir)
        self._mask = RowMask()
        self._shown = 0
        """No row from here on was ever revealed."""
        self._breadth = 1.0
        self._ef = request.options.hnsw_ef_search or DEFAULT_EF_SEARCH
        shape = Shape(
            dimension=request.dimension,
            metric=request.metric,
            index=server.index,
            parameters=_index_parameters(server.index, request.options),
        )
        self._filling = Filling(server, self._vectors, shape)

    @property
    def size(self) -> int:
        """Rows added."""
        return self._mask.size

    @property
    def removed(self) -> int:
        """Rows masked."""
        return self._mask.removed

    @property
    def memory_bytes(self) -> int:
        """Memory of the mask here, and of vectors that are not on disk."""
        return self._vectors.memory_bytes + self._mask.nbytes

    @property
    def rounding(self) -> float:
        """Of float32."""
        return rounding_of(self._dimension)

    @property
    def breadth(self) -> float:
        """How many times wider than by default it searches."""
        return self._breadth

    @breadth.setter
    def breadth(self, value: float) -> None:
        self._breadth = checked_breadth(value)

    def settled(self) -> bool:
        """Whether Milvus has and has indexed all rows; Unavailable while it is away."""
        return self._filling.settled()

    def make_room(self, rows: int) -> None:
        """Wait for Milvus where it is so far behind that searches would be refused, and not where it is away."""
        self._filling.make_room(rows)

    def reserve(self, rows: int) -> None:
        """Do nothing."""

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """Append `vectors` as `rows`, masked."""
        check_dense(rows, self.size)
        if not len(rows):
            return
        self._vectors.write(self.size, vectors)
        self._mask.append(len(rows))
        self._filling.grow(self.size)

    def reveal(self, rows: Rows) -> None:
        """Let `rows` be found."""
        self._mask.reveal(rows)
        self._shown = max(self._shown, int(rows.max(initial=-1)) + 1)

    def revealed(self, rows: Rows) -> NDArray[np.bool_]:
        """Say which of `rows` can be found."""
        return self._mask.contains(rows)

    def remove(self, rows: Rows) -> None:
        """Mask `rows`."""
        fresh = np.unique(rows[self._mask.contains(rows)])
        self._mask.remove(rows)
        if len(fresh):
            self._filling.delete(fresh)

    def search(self, queries: Vectors, k: int, *, excluded: Rows | None = None) -> Answer:
        """Return the nearest rows and their scores, each (q, k).

        Raises
        ------
        Unavailable
            Milvus is away, or lacks more rows than are compared one by one.
        """
        bits, left = self._mask.without(excluded)
        rows, scores = np.full((len(queries), k), -1, np.int64), np.zeros((len(queries), k), np.float32)
        if not left or not len(queries):
            return rows, scores
        queries = np.ascontiguousarray(queries, np.float32)
        there = self._there()
        late, late_scores = self._scan(queries, min(k, self.size - there.rows), bits, there.rows, self.size)
        late_count = int(selected(bits, np.arange(there.rows, self.size)).sum())
        wanted = min(k, left - late_count)
        found, found_scores = self._found(queries, wanted, bits, there)
        every, every_scores = np.concatenate([found, late], 1), np.concatenate([found_scores, late_scores], 1)
        keys = np.where(every < 0, np.float32(np.inf), self._sign * every_scores)
        order = np.lexsort((every, keys), axis=-1)[:, :k]
        width = order.shape[1]
        rows[:, :width] = np.take_along_axis(every, order, 1)
        scores[:, :width] = np.take_along_axis(every_scores, order, 1)
        return rows, scores

    def vectors(self, rows: Rows) -> Vectors:
        """Return the vectors of `rows`."""
        return self._vectors.take(rows)

    def save(self) -> bytes | None:
        """Return None: nothing was trained."""
        return None

    def close(self) -> None:
        """Let go of the collection."""
        self._filling.close()

    @property
    def _sign(self) -> int:
        return -1 if self._metric.higher_is_nearer else 1

    def _there(self) -> There:
        there = self._filling.there
        if self.size - there.rows > MAX_BEHIND:
            reason = self._filling.failure or "it is being filled"
            raise Unavailable(f"Milvus has {there.rows:,} of {self.size:,} items: {reason}", field="pool")
        return there

    def _found(self, queries: Vectors, k: int, bits: Bits | None, there: There) -> Answer:
        """Return the nearest of the rows that Milvus has, each (q, k), of which there are at least k."""
        rows, scores = np.full((len(queries), k), -1, np.int64), np.zeros((len(queries), k), np.float32)
        if not k:
            return rows, scores
        short = np.arange(len(queries))
        for fetch in self._widths(k, there):
            rows[short], scores[short] = self._fetched(queries[short], k, fetch, bits, there)
            short = short[rows[short, -1] < 0]
            if not len(short):
                return rows, scores
        # What is masked lies thick around these queries, or Milvus found less than there is.
        rows[short], scores[short] = self._scan(queries[short], k, bits, 0, there.rows)
        return rows, scores

    def _widths(self, k: int, there: There) -> list[int]:
        """Return how many to fetch, in turn, to be left with k that count."""
        masked = self._mask.removed / self.size
        first = k + round(2 * masked * k) + min(k, 10)
        if self._server.index is MilvusIndex.AUTOINDEX:
            first = round(first * self._breadth)
        limit = min(MAX_FETCH, there.rows)
        widths = [min(first * _WIDENING**step, limit) for step in range(4)]
        return sorted({width for width in widths if width >= k})

    def _fetched(self, queries: Vectors, k: int, fetch: int, bits: Bits | None, there: There) -> Answer:
        """Return the k nearest that count out of the `fetch` nearest in Milvus."""
        rows, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        step = max(1, min(_MAX_QUERIES, _ANSWER_KEYS // fetch, _QUERY_BYTES // (4 * self._dimension)))
        for start in range(0, len(queries), step):
            some = slice(start, start + step)
            found = there.rows_of(self._asked(queries[some], fetch, there))
            found[~selected(bits, found)] = -1
            rows[some], scores[some] = rescored(queries[some], k, found, metric=self._metric, read=self._vectors.take)
        return rows, scores

    def _asked(self, queries: Vectors, fetch: int, there: There) -> NDArray[np.int64]:
        try:
            return self._server.search(
                there.name,
                queries,
                fetch,
                metric=self._metric,
                parameters=self._search_parameters(fetch),
                below=there.key_below(self._shown) if self._shown < there.rows else None,
                timestamp=there.timestamp,
            )
        except Unavailable:
            self._filling.doubt()
            raise

    def _search_parameters(self, fetch: int) -> Mapping[str, int]:
        if self._server.index is not MilvusIndex.HNSW:
            return {}
        return {"ef": min(max(round(self._ef * self._breadth), fetch), _MAX_EF)}

    def _scan(self, queries: Vectors, k: int, bits: Bits | None, start: int, stop: int) -> Answer:
        """Return the k nearest of the rows from `start` up to `stop`, by comparing with each."""
        if not k:
            return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
        rows, scores = exact_top(
            queries,
            k,
            metric=self._metric,
            size=stop - start,
            read=lambda some: self._vectors.take(some + start),
            kept=lambda some: selected(bits, some + start),
        )
        return np.where(rows < 0, -1, rows + start), scores


def _index_parameters(index: MilvusIndex, options: EngineOptions) -> Mapping[str, int]:
    if index is not MilvusIndex.HNSW:
        return {}
    return {
        "M": options.hnsw_neighbors or DEFAULT_NEIGHBORS,
        "efConstruction": options.hnsw_ef_construction or DEFAULT_EF_CONSTRUCTION,
    }


def _build(request: BuildRequest) -> Engine:
    if request.milvus is None:
        raise FailedPrecondition("engine milvus needs the setting milvus_uri", field="spec.engine")
    return MilvusEngine(request, request.milvus)


def _check(dimension: int, _options: EngineOptions, _device: Device) -> None:
    if dimension > MAX_DIMENSION:
        raise InvalidArgument("spec.dimension", f"{dimension:,} is beyond Milvus's {MAX_DIMENSION:,}")


KIND = EngineKind(
    name="milvus",
    exact=False,
    cuda=False,
    items_to_train=lambda _items, _options: 0,
    build=_build,
    milvus=True,
    check=_check,
)
