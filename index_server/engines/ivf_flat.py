"""`ivf_flat`: items in clusters, and a query looks into the nearest clusters only. Approximate, needs training."""

import io
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index_server.engines.build import BuildRequest, EngineKind
from index_server.engines.clustering import (
    DEFAULT_PROBES,
    coarse_quantizer,
    items_to_train,
    train_centroids,
    training_sample,
)
from index_server.engines.faiss_cpu import EXHAUSTIVE, FaissCpuEngine, faiss_metric, search_parameters
from index_server.engines.faiss_gpu import FaissGpuEngine, ivf_on_gpu
from index_server.ports import Engine, Rows
from index_server.spec import Device, VectorType
from sealpool.types import Vectors


class IvfFlatEngine(FaissCpuEngine):
    """IndexIVFFlat, or of float16 vectors IndexIVFScalarQuantizer.

    Memory: 4·d bytes an item of vectors, 2·d as float16, and 16 for its id and its place. Cost: a query is compared
    with the centroids (4·√n by default) and with the items of `ivf_probes` clusters, about 8·√n by default.

    Given the same centroids, an answer depends on the items alone, not on the order or the batches in which they came;
    that is why the centroids are kept beside the pool.
    """

    name = "ivf_flat"

    def __init__(self, centroids: Vectors, request: BuildRequest) -> None:
        # FAISS shares a batch among threads by queries (parallel_mode 0). Sharing by lists, for a single query's sake,
        # won nothing on 2 cores at 100,000 × 256 (0.112 ms for 0.117) and cost a batch of 100 an eighth.
        quantizer = coarse_quantizer(centroids, request)
        index = _empty_index(quantizer, centroids, request)
        super().__init__(index, threads=request.threads, vector_type=request.vector_type)
        self._index.make_direct_map(True)
        self._quantizer = quantizer  # the index does not own it
        self._centroids = centroids
        self._probes = request.options.ivf_probes or DEFAULT_PROBES

    def save(self) -> bytes:
        """Return the centroids."""
        return _centroids_to_bytes(self._centroids)

    def _search(
        self, queries: Vectors, k: int, selector: Any | None, effort: float
    ) -> tuple[NDArray[np.float32], Rows]:
        lists = len(self._centroids)
        probes = lists if effort == EXHAUSTIVE else min(lists, round(self._probes * effort))
        parameters = search_parameters("SearchParametersIVF", nprobe=probes, sel=selector)
        scores, rows = self._index.search(queries, k, params=parameters)
        return scores, rows

    def _structure_bytes(self) -> int:
        return 16 * self.size + self._centroids.nbytes


def _empty_index(quantizer: Any, centroids: Vectors, request: BuildRequest) -> Any:
    metric, lists = faiss_metric(request.metric), len(centroids)
    index: Any
    if request.vector_type is VectorType.FLOAT16:
        half, by_residual = faiss.ScalarQuantizer.QT_fp16, False
        index = faiss.IndexIVFScalarQuantizer(quantizer, request.dimension, lists, half, metric, by_residual)
    else:
        index = faiss.IndexIVFFlat(quantizer, request.dimension, lists, metric)
    index.is_trained = True
    return index


def _centroids_to_bytes(centroids: Vectors) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, centroids, allow_pickle=False)
    return buffer.getvalue()


def _centroids(request: BuildRequest) -> Vectors:
    if request.saved is None:
        return train_centroids(request, training_sample(request))
    saved: Vectors = np.load(io.BytesIO(request.saved), allow_pickle=False)
    return saved


def _build(request: BuildRequest) -> Engine:
    centroids = _centroids(request)
    if request.device is Device.CPU:
        return IvfFlatEngine(centroids, request)

    def on_host() -> tuple[Any, Any]:
        quantizer = coarse_quantizer(centroids, request)
        return _empty_index(quantizer, centroids, request), quantizer

    return FaissGpuEngine("ivf_flat", request, ivf_on_gpu(on_host), saved=_centroids_to_bytes(centroids))


KIND = EngineKind(name="ivf_flat", exact=False, cuda=True, items_to_train=items_to_train, build=_build)
