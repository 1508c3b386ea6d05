"""Engines whose index holds short codes: what they find is compared again by the whole vectors, kept beside it."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from index_server.engines.build import BuildRequest
from index_server.engines.exact import rescored
from index_server.engines.faiss_cpu import EXHAUSTIVE, FaissCpuEngine, check_dense, set_threads
from index_server.engines.vector_log import vector_log
from index_server.ports import Rows
from sealpool.types import Vectors

_LEAST_SHORTLIST: Final = 100
"""What a refine factor multiplies at least: recall, measured at k = 100, would fall with a shortlist that shrank."""
MAX_CANDIDATES: Final = 1 << 16
"""Candidates that are compared again at most, unless k is larger: each is a read at a random place."""


class RefinedEngine(FaissCpuEngine):
    """An Engine over codes in memory and vectors in `request.scratch_dir`. A subclass finds candidates by their codes.

    Scores are true ones, in float32. The breadth widens both the search in the codes and the number of candidates.
    """

    def __init__(self, index: Any, request: BuildRequest, *, refine_factor: int) -> None:
        super().__init__(index, threads=request.threads)
        self._metric = request.metric
        self._refine_factor = request.options.refine_factor or refine_factor
        self._vectors = vector_log(request.dimension, request.vector_type, request.scratch_dir)

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """Append `vectors` as `rows`, masked."""
        check_dense(rows, self.size)
        if not len(rows):
            return
        self._vectors.write(self.size, vectors)
        set_threads(self._threads)
        self._add_codes(np.ascontiguousarray(vectors, np.float32))
        self._mask.append(len(rows))

    def vectors(self, rows: Rows) -> Vectors:
        """Return the vectors of `rows`."""
        return self._vectors.take(rows)

    def _efforts(self) -> Sequence[int]:
        return (1, 4, 16, EXHAUSTIVE)

    def _search(
        self, queries: Vectors, k: int, selector: Any | None, effort: float
    ) -> tuple[NDArray[np.float32], Rows]:
        wanted = round(max(k, _LEAST_SHORTLIST) * self._refine_factor * max(effort, self._breadth))
        count = min(wanted, max(MAX_CANDIDATES, k), self.size)
        found = self._candidates(queries, count, selector, effort)
        rows, scores = rescored(queries, k, found, metric=self._metric, read=self._vectors.take)
        return scores, rows

    def _add_codes(self, vectors: Vectors) -> None:
        self._index.add(vectors)

    def _candidates(self, queries: Vectors, count: int, selector: Any | None, effort: float) -> Rows:
        """Return the nearest rows by code (q, count), −1 where there are fewer."""
        raise NotImplementedError

    def _vector_bytes(self) -> int:
        return self._vectors.memory_bytes
