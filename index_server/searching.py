"""Nearest rows, ordered by scores that do not depend on what else is searched for."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index_server.engines.faiss_gpu import MAX_NEIGHBORS as MAX_GPU_NEIGHBORS
from index_server.geometry import lengths_of, pair_scores
from index_server.ports import Engine, Rows, Scores
from index_server.spec import Device, Metric
from sealpool.runtime.tracing import Tracer
from sealpool.types import Vectors

_SPARE: Final = 16
"""Neighbours fetched beyond k, so that ties at the k-th place are seen."""
_MAX_FETCH: Final = 16_384
_GATHER_BYTES: Final = 8 << 20


class RescoredSearch:
    """An engine's searches, exact in their last step.

    The engine brings somewhat more rows than asked for, their scores are computed anew in float32, and rows are ordered
    by score and then by row, which is the pool's order. With an exact engine the answer to a query so depends on the
    pool and the query alone: not on what else is in the batch, and not on FAISS's rounding. That holds while no more
    than about 15·k items lie within rounding of the k-th.

    Threads: as the engine.
    """

    def __init__(self, engine: Engine, metric: Metric, dimension: int) -> None:
        self._engine = engine
        self._metric = metric
        self._dimension = dimension
        self.longest = 0.0
        """Of the vectors in the engine; of no matter under cosine."""

    def nearest(self, compared: Vectors, k: int, *, excluded: Rows | None = None) -> tuple[Rows, Scores]:
        """Return the k nearest rows of each query and their scores, each (q, k); rows are −1 where there are fewer.

        Parameters
        ----------
        compared
            (q, d) float32, unit vectors under cosine.
        excluded
            Rows that are in no answer.
        """
        rows = np.full((len(compared), k), -1, np.int64)
        scores = np.zeros((len(compared), k), np.float32)
        if not self._engine.size - self._engine.removed:
            return rows, scores
        unclear, fetch, limit = np.arange(len(compared)), k + _SPARE, self._fetch_limit(k)
        while len(unclear):
            fetch = min(fetch, limit)
            rows[unclear], scores[unclear], clear = self._fetched(compared[unclear], k, fetch, excluded)
            if fetch == limit:
                break
            unclear, fetch = unclear[~clear], 4 * fetch
        return rows, scores

    def _fetch_limit(self, k: int) -> int:
        reachable = MAX_GPU_NEIGHBORS if self._engine.device == Device.CUDA else _MAX_FETCH
        return max(min(reachable, 16 * (k + _SPARE), self._engine.size), k + 1)

    def _fetched(
        self, compared: Vectors, k: int, fetch: int, excluded: Rows | None
    ) -> tuple[Rows, Scores, NDArray[np.bool_]]:
        """Return rows and scores (q, k) out of `fetch` > k neighbours, and for which queries that is surely right."""
        found, rough = self._engine.search(compared, fetch, excluded=excluded)
        rows, scores = np.empty((len(found), k), np.int64), np.empty((len(found), k), np.float32)
        for some in _blocks(len(found), _GATHER_BYTES // (4 * fetch * self._dimension)):
            rows[some], scores[some] = self._rescored(compared[some], found[some], k)
        clear = (found[:, -1] < 0) | self._beyond(compared, scores[:, -1], rough[:, -1])
        return rows, scores, clear

    def _rescored(self, compared: Vectors, found: Rows, k: int) -> tuple[Rows, Scores]:
        """Return the best k of the rows found for each query, by scores computed anew."""
        neighbors = self._engine.vectors(np.maximum(found, 0).reshape(-1)).reshape(*found.shape, -1)
        scores = pair_scores(self._metric, compared, neighbors)
        sign = np.float32(-1 if self._metric.higher_is_nearer else 1)
        keys = np.where(found >= 0, sign * scores, np.float32(np.inf))
        best = np.lexsort((found, keys), axis=-1)[:, :k]
        rows = np.take_along_axis(found, best, -1)
        return rows, np.where(rows < 0, np.float32(0), np.take_along_axis(scores, best, -1))

    def _beyond(self, compared: Vectors, kth: Scores, last: Scores) -> NDArray[np.bool_]:
        """Whether the `last` score that an engine gave is surely worse than that of the `kth` row, exact: (q,)."""
        longest = 1.0 if self._metric is Metric.COSINE else self.longest
        rounding = self._engine.rounding
        exact = kth.astype(np.float64)
        if self._metric is Metric.L2:
            beyond: NDArray[np.bool_] = exact**2 < last - rounding * (lengths_of(compared) + longest) ** 2
        else:
            beyond = exact > last + rounding * lengths_of(compared) * longest
        return beyond


class TracedSearch:
    """Searches of a pool's engine, each in a span."""

    def __init__(self, searching: RescoredSearch, tracer: Tracer, *, pool: str, engine: str) -> None:
        self._searching = searching
        self._tracer = tracer
        self._pool = pool
        self._engine = engine

    def __call__(
        self, compared: Vectors, k: int, /, *, excluded: Rows | None = None, links: Sequence[object] = ()
    ) -> tuple[Rows, Scores]:
        """Do what RescoredSearch.nearest does.

        Each of what a merged search serves has its own span, which waits; they are linked to the one that works.
        """
        with self._tracer.span(
            "milvus.search" if self._engine == "milvus" else "faiss.search",
            links=links,
            pool=self._pool,
            engine=self._engine,
            queries=len(compared),
            k=k,
        ):
            return self._searching.nearest(compared, k, excluded=excluded)


def without_own(rows: Rows, scores: Scores, own: Rows) -> tuple[Rows, Scores]:
    """Return answers (q, k) out of (q, k + 1), without the query's own row (q,), or without the last where it is not.

    By row and never by place: of items with equal vectors the query's own need not come first.
    """
    order = np.argsort(rows == own[:, None], axis=1, kind="stable")[:, :-1]
    return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)


def _blocks(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, max(1, size)):
        yield slice(start, start + max(1, size))
