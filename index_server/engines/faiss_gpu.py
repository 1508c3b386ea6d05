"""FAISS engines on a GPU: one owner thread an index, and what the GPU indexes lack made up for.

A GPU index removes nothing, ignores an IDSelector in silence, returns at most 2,048 neighbours, and may be touched by
one thread at a time, searches included. So masked rows are over-fetched and dropped here; where that could not reach
far enough, the vectors' copy in host memory is scanned.
"""

from collections.abc import Callable
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from index_server.concurrency import OwnerThread
from index_server.engines.build import BuildRequest
from index_server.engines.faiss_cpu import RowMask, check_dense, faiss_metric, set_threads
from index_server.ports import Rows
from index_server.spec import Metric
from sealpool.types import Vectors

MAX_NEIGHBORS: Final = 2048
_SCAN_ROWS: Final = 65_536

GpuIndexMaker = Callable[[Any, BuildRequest], Any]
"""Makes an empty, trained GPU index from its resources. Runs on the owner thread."""


def gpu_count() -> int:
    """Return how many GPUs FAISS can use; 0 for a build without GPU support."""
    return int(faiss.get_num_gpus())


def flat_on_gpu(resources: Any, request: BuildRequest) -> Any:
    """Return an empty GpuIndexFlat."""
    config = faiss.GpuIndexFlatConfig()
    config.device = 0
    config.use_cuvs = False
    return faiss.GpuIndexFlat(resources, request.dimension, faiss_metric(request.metric), config)


def ivf_flat_on_gpu(centroids: Vectors) -> GpuIndexMaker:
    """Return a maker of GpuIndexIVFFlat with these centroids."""

    def make(resources: Any, request: BuildRequest) -> Any:
        metric = faiss_metric(request.metric)
        quantizer = faiss.IndexFlat(request.dimension, metric)
        quantizer.add(centroids)
        index = faiss.IndexIVFFlat(quantizer, request.dimension, len(centroids), metric)
        index.is_trained = True
        options = faiss.GpuClonerOptions()
        options.use_cuvs = False
        on_gpu: Any = faiss.index_cpu_to_gpu(resources, 0, index, options)
        on_gpu.nprobe = min(len(centroids), MAX_NEIGHBORS, request.options.ivf_probes or 32)
        return on_gpu

    return make


class FaissGpuEngine:
    """An Engine over one FAISS index on GPU 0, with a copy of the vectors in host memory."""

    device = "cuda"

    def __init__(self, name: str, request: BuildRequest, make: GpuIndexMaker, *, saved: bytes | None = None) -> None:
        self.name = name
        self._metric = request.metric
        self._threads = request.threads
        self._saved = saved
        self._mask = RowMask()
        self._host = np.empty((0, request.dimension), np.float32)
        self._owner = OwnerThread(f"gpu-{name}")
        self._resources, self._index = self._owner.call(lambda: _with_resources(make, request))

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
        """Memory in host and device: each holds the vectors."""
        return 2 * self.size * self._host.shape[1] * 4 + self._mask.nbytes

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """Append `vectors` as `rows`, masked."""
        check_dense(rows, self.size)
        vectors = np.ascontiguousarray(vectors, np.float32)
        self._owner.call(lambda: self._index.add(vectors))
        if self.size + len(rows) > len(self._host):
            grown = np.empty((max(self.size + len(rows), len(self._host) * 3 // 2), self._host.shape[1]), np.float32)
            grown[: self.size] = self._host[: self.size]
            self._host = grown
        self._host[self.size : self.size + len(rows)] = vectors
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
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.zeros((len(queries), k), np.float32)
        found = min(k, left)
        if not found or not len(queries):
            return rows, scores
        fetch = min(self.size, MAX_NEIGHBORS, found + self.size - left)
        queries = np.ascontiguousarray(queries, np.float32)
        raw_scores, raw_rows = self._owner.call(lambda: self._index.search(queries, fetch))
        for query in range(len(queries)):
            kept = np.flatnonzero(_selected(bits, raw_rows[query]))[:found]
            if len(kept) == found:
                rows[query, :found], scores[query, :found] = raw_rows[query, kept], raw_scores[query, kept]
            else:
                rows[query, :found], scores[query, :found] = self._scan(queries[query], found, bits)
        return rows, scores

    def vectors(self, rows: Rows) -> Vectors:
        """Return the vectors of `rows`."""
        return self._host[rows]

    def save(self) -> bytes | None:
        """Return what training found."""
        return self._saved

    def close(self) -> None:
        """Free the device memory."""
        self._owner.call(self._free)
        self._owner.close()

    def _free(self) -> None:
        self._index = self._resources = None

    def _scan(self, query: Vectors, k: int, bits: NDArray[np.uint8] | None) -> tuple[Rows, NDArray[np.float32]]:
        """Return the k nearest selected rows of one query (d,) and their scores by scanning host memory."""
        set_threads(self._threads)
        best_rows, best_scores = np.empty(0, np.int64), np.empty(0, np.float32)
        sign = 1 if self._metric is Metric.L2 else -1
        for start in range(0, self.size, _SCAN_ROWS):
            block = np.arange(start, min(start + _SCAN_ROWS, self.size))
            block = block[_selected(bits, block)]
            vectors = self._host[block]
            scores = ((vectors - query) ** 2).sum(axis=1) if self._metric is Metric.L2 else vectors @ query
            best_rows, best_scores = np.concatenate([best_rows, block]), np.concatenate([best_scores, scores])
            order = np.argsort(sign * best_scores, kind="stable")[:k]
            best_rows, best_scores = best_rows[order], best_scores[order]
        return best_rows, best_scores


def _with_resources(make: GpuIndexMaker, request: BuildRequest) -> tuple[Any, Any]:
    resources = faiss.StandardGpuResources()
    return resources, make(resources, request)


def _selected(bits: NDArray[np.uint8] | None, rows: Rows) -> NDArray[np.bool_]:
    if bits is None:
        return rows >= 0
    selected: NDArray[np.bool_] = (rows >= 0) & ((bits[rows >> 3] >> (rows & 7).astype(np.uint8)) & 1 == 1)
    return selected
