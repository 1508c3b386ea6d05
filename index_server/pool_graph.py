"""The neighbour graph of a pool, by rows of its index."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, ParamSpec, TypeVar
from weakref import WeakMethod

import numpy as np
from numpy.typing import NDArray

from index_server.geometry import lengths_of, pair_scores
from index_server.graph.builder import GraphBuilder
from index_server.graph.lists import Keys
from index_server.graph.neighbour_graph import NeighbourGraph
from index_server.graph.search import GraphSearch
from index_server.index import PoolIndex, blocks
from index_server.merging import Caller
from index_server.ports import Rows, Scores
from index_server.spec import GraphKind, GraphSpec, Metric
from sealpool.runtime.callers import NO_CALLER
from sealpool.types import Vectors

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")

MAX_TAIL: Final = 10_000
"""Items that came since a list was made, above which it is made anew."""
_TAIL_BYTES: Final = 16 << 20


class PoolGraph:
    """Translates between rows, which change when the index is rebuilt or loaded, and the graph's keys, which do not.

    Threads: `nearest` and `build` by many at once, holding the index as it is; `record` and `discard` by one; `apply`
    and `renumber` by one, while nobody reads.
    """

    def __init__(self, graph: NeighbourGraph, index: PoolIndex, spec: GraphSpec) -> None:
        self._graph = graph
        self._index = index
        self._full = spec.kind is GraphKind.FULL
        self._row_of = np.full(graph.key_count, -1, np.int32)
        self._row_of[graph.live_keys()] = index.table.live_rows()
        self._key_of = self._keys_by_row(index.table.rows)
        higher = index.spec.metric.higher_is_nearer
        self._search = GraphSearch(
            graph,
            search=_not_held(self._search_index),
            score_tail=_not_held(self._score_tail),
            higher_is_nearer=higher,
            max_tail=MAX_TAIL,
        )
        self._builder = GraphBuilder(graph, self._search, max_tail=MAX_TAIL)

    @classmethod
    def open(cls, directory: Path, index: PoolIndex, *, store_version: int) -> "PoolGraph | None":
        """Open or make the graph that the index's pool asks for; None if it asks for none."""
        spec = index.spec.graph
        if spec.kind is GraphKind.NONE:
            return None
        graph = NeighbourGraph.open(
            directory / "graph", neighbors=spec.neighbors, store_version=store_version, live_count=len(index)
        )
        with ExitStack() as unless_opened:
            unless_opened.callback(graph.close)
            opened = cls(graph, index, spec)
            unless_opened.pop_all()
        return opened

    @property
    def known_items(self) -> int:
        """Items whose neighbours are known."""
        return self._graph.known_count

    @property
    def neighbors(self) -> int:
        """The most neighbours that a look-up answers."""
        return self._graph.neighbors

    def nearest(self, rows: Rows, k: int, *, caller: Caller) -> tuple[Rows, Scores]:
        """Return the k nearest rows of `rows` (n,), each left out of its own answer, and their scores."""
        caller.check()
        distinct, back = np.unique(rows, return_inverse=True)
        keys, scores = self._search.nearest(self._key_of[distinct].astype(np.int64), k)
        return self._rows_of(keys)[back], scores[back]

    def build(self, batch: int) -> int:
        """Find some lists that a full graph lacks; return how many, 0 when it lacks none or is not to be full."""
        return self._builder.step(batch) if self._full else 0

    def record(self, version: int, *, appended: int, retired: Rows) -> None:
        """Write down what the pool's `version` will change, before it is committed."""
        self._graph.record(version, appended=appended, retired=self._key_of[retired].astype(np.int64))

    def apply(self, new_rows: Rows) -> None:
        """Let what was recorded last be so; the added items lie at `new_rows`, the last of the index."""
        keys = self._graph.apply()
        self._row_of = np.concatenate([self._row_of, new_rows.astype(np.int32)])
        grown = np.full(self._index.table.rows, -1, np.int32)
        grown[: len(self._key_of)] = self._key_of
        grown[new_rows] = keys
        self._key_of = grown

    def discard(self, version: int) -> None:
        """Forget what was recorded for versions above `version`."""
        self._graph.discard(version)

    def renumber(self, index: PoolIndex, new_rows: Rows) -> None:
        """Translate to another index: the item at row r lies at `new_rows[r]` there, −1 for nowhere."""
        self._index = index
        known = self._row_of >= 0
        self._row_of[known] = new_rows[self._row_of[known]]
        self._key_of = self._keys_by_row(index.table.rows)

    def close(self) -> None:
        """Let go of the files."""
        self._graph.close()

    def _keys_by_row(self, rows: int) -> NDArray[np.int32]:
        key_of = np.full(rows, -1, np.int32)
        keys = np.flatnonzero(self._row_of >= 0)
        key_of[self._row_of[keys]] = keys
        return key_of

    def _rows_of(self, keys: Keys) -> Rows:
        return np.where(keys < 0, -1, self._row_of[keys]).astype(np.int64)

    def _search_index(self, keys: Keys, k: int) -> tuple[Keys, Scores]:
        rows, scores = self._index.search_rows(self._rows_of(keys), k, caller=NO_CALLER)
        return np.where(rows < 0, -1, self._key_of[rows]).astype(np.int64), scores

    def _score_tail(self, keys: Keys, tail: Keys, bounds: Scores) -> Scores:
        """Return the scores of keys (n,) with the tail (t,), exact to the last bit where they may beat a bound (n,)."""
        metric = self._index.spec.metric
        queries = self._index.engine.vectors(self._rows_of(keys))
        scores = np.full((len(keys), len(tail)), -np.inf if metric.higher_is_nearer else np.inf, np.float32)
        rows = self._rows_of(tail)
        for places in blocks(np.arange(len(tail)), _TAIL_BYTES // (4 * queries.shape[1])):
            vectors = self._index.engine.vectors(rows[places])
            near, other = np.nonzero(_may_beat(metric, queries, vectors, bounds))
            exact = pair_scores(metric, queries[near], vectors[other][:, None, :])
            scores[near, places[other]] = exact[:, 0]
        return scores


def _not_held(method: Callable[_Arguments, _Answer]) -> Callable[_Arguments, _Answer]:
    """Return `method` without a reference to its object: in a cycle it would outlive its pool."""
    weak = WeakMethod(method)

    def call(*args: _Arguments.args, **more: _Arguments.kwargs) -> _Answer:
        found = weak()
        if found is None:
            raise AssertionError("a neighbour graph is used by who does not hold it")
        return found(*args, **more)

    return call


def _may_beat(metric: Metric, queries: Vectors, vectors: Vectors, bounds: Scores) -> NDArray[np.bool_]:
    """Whether a score is not surely worse than a bound, by more than the rounding of a float32 product: (n, t)."""
    products = (queries @ vectors.T).astype(np.float64)
    sizes, others = lengths_of(queries)[:, None], lengths_of(vectors)[None]
    slack = 4 * np.sqrt(queries.shape[1]) * np.finfo(np.float32).eps
    limits = bounds.astype(np.float64)[:, None]
    beats: NDArray[np.bool_] = products >= limits - slack * sizes * others
    if metric is Metric.L2:
        squares = sizes**2 + others**2 - 2 * products
        beats = squares <= limits**2 + slack * (sizes + others) ** 2
    return beats
