"""`ivf_flat`: items in clusters, and a query looks into the nearest clusters only. Approximate, needs training."""

import io
import math
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from index_server.engines.build import BuildRequest, EngineKind
from index_server.engines.faiss_cpu import EXHAUSTIVE, FaissCpuEngine, faiss_metric, search_parameters, set_threads
from index_server.engines.faiss_gpu import FaissGpuEngine, ivf_flat_on_gpu
from index_server.ports import Engine, Rows
from index_server.spec import Device, EngineOptions
from sealpool.types import Vectors

DEFAULT_PROBES: Final = 32
_POINTS_A_LIST: Final = 39
"""Below this many training points a cluster FAISS warns that the clusters are poor."""
_SAMPLE_A_LIST: Final = 256
"""FAISS's own cap; more points a cluster cost time and hardly move it."""


class IvfFlatEngine(FaissCpuEngine):
    """IndexIVFFlat. Memory: the vectors, and 16 bytes an item for its id and its place.

    Given the same centroids, an answer depends on the items alone, not on the order or the batches in which they came;
    that is why the centroids are kept beside the pool.
    """

    name = "ivf_flat"

    def __init__(self, centroids: Vectors, request: BuildRequest) -> None:
        metric = faiss_metric(request.metric)
        quantizer = faiss.IndexFlat(request.dimension, metric)
        quantizer.add(centroids)
        index = faiss.IndexIVFFlat(quantizer, request.dimension, len(centroids), metric)
        index.is_trained = True
        index.make_direct_map(True)
        super().__init__(index, threads=request.threads)
        self._quantizer = quantizer  # the index does not own it
        self._centroids = centroids
        self._probes = request.options.ivf_probes or DEFAULT_PROBES

    def save(self) -> bytes:
        """Return the centroids."""
        return centroids_to_bytes(self._centroids)

    def _search(self, queries: Vectors, k: int, selector: Any | None, effort: int) -> tuple[NDArray[np.float32], Rows]:
        lists = len(self._centroids)
        probes = lists if effort == EXHAUSTIVE else min(lists, self._probes * effort)
        parameters = search_parameters("SearchParametersIVF", nprobe=probes, sel=selector)
        scores, rows = self._index.search(queries, k, params=parameters)
        return scores, rows

    def _structure_bytes(self) -> int:
        return 16 * self.size + self._centroids.nbytes


def lists_for(items: int, options: EngineOptions) -> int:
    """Return how many clusters `items` are put into: as asked, or 4·√items."""
    return options.ivf_lists or max(1, round(4 * math.sqrt(items)))


def centroids_to_bytes(centroids: Vectors) -> bytes:
    """Return `centroids` in NumPy's file format."""
    buffer = io.BytesIO()
    np.save(buffer, centroids, allow_pickle=False)
    return buffer.getvalue()


def _centroids_from_bytes(content: bytes) -> Vectors:
    centroids: Vectors = np.load(io.BytesIO(content), allow_pickle=False)
    return centroids


def _items_to_train(_items: int, options: EngineOptions) -> int:
    if options.ivf_lists:
        return _POINTS_A_LIST * options.ivf_lists
    # The least n with n ≥ 39 · 4·√n, and one list's worth more against rounding.
    return (4 * _POINTS_A_LIST) ** 2 + _POINTS_A_LIST


def _train(request: BuildRequest) -> Vectors:
    lists = lists_for(request.items, request.options)
    parameters = faiss.ClusteringParameters()
    parameters.seed = request.seed
    parameters.spherical = faiss_metric(request.metric) == faiss.METRIC_INNER_PRODUCT
    parameters.min_points_per_centroid = 1
    set_threads(request.threads)
    clustering = faiss.Clustering(request.dimension, lists, parameters)
    clustering.train(
        np.ascontiguousarray(request.sample(_SAMPLE_A_LIST * lists)),
        faiss.IndexFlat(request.dimension, faiss_metric(request.metric)),
    )
    centroids: Vectors = faiss.vector_to_array(clustering.centroids).reshape(lists, request.dimension)
    return centroids


def _build(request: BuildRequest) -> Engine:
    centroids = _train(request) if request.saved is None else _centroids_from_bytes(request.saved)
    if request.device is Device.CUDA:
        return FaissGpuEngine("ivf_flat", request, ivf_flat_on_gpu(centroids), saved=centroids_to_bytes(centroids))
    return IvfFlatEngine(centroids, request)


KIND = EngineKind(name="ivf_flat", exact=False, cuda=True, items_to_train=_items_to_train, build=_build)
