"""What the engines over clusters of items share: how many there are, how they are found, and how they are kept."""

import io
import math
from collections.abc import Mapping
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from index_server.engines.build import BuildRequest
from index_server.engines.faiss_cpu import faiss_metric, set_threads
from index_server.spec import EngineOptions
from sealpool.types import Vectors

DEFAULT_PROBES: Final = 32
POINTS_A_LIST: Final = 39
"""Below this many training points a cluster FAISS warns that the clusters are poor."""
_SAMPLE_A_LIST: Final = 64
_MIN_SAMPLE: Final = 16_384
"""What the codebooks of ivf_pq are trained on: 64 points for each of 256 codes."""
_ITERATIONS: Final = 8
"""FAISS takes up to 256 points a cluster and 25 iterations. 200,000 × 256 of 24 true dimensions took 55 s so, and 7.6
s with 64 points and 10 iterations, for a recall of .599 and .582 (32 of 1,789 clusters); a mixture of 1,000 Gaussians
17.8 and 9.1 s, where both find all. Searching wider, which `tune` does, costs less."""


def lists_for(items: int, options: EngineOptions) -> int:
    """Return how many clusters `items` are put into: as asked, or 4·√items."""
    return options.ivf_lists or max(1, round(4 * math.sqrt(items)))


def items_to_train(_items: int, options: EngineOptions) -> int:
    """Return the least number of items that fill the clusters there would be."""
    if options.ivf_lists:
        return POINTS_A_LIST * options.ivf_lists
    # The least n with n ≥ 39 · 4·√n, and one list's worth more against rounding.
    return (4 * POINTS_A_LIST) ** 2 + POINTS_A_LIST


def training_sample(request: BuildRequest) -> Vectors:
    """Return as many vectors as training looks at."""
    count = max(_SAMPLE_A_LIST * lists_for(request.items, request.options), _MIN_SAMPLE)
    return np.ascontiguousarray(request.sample(count), np.float32)


def train_centroids(request: BuildRequest, sample: Vectors) -> Vectors:
    """Return the centres of clusters of `sample`, found by k-means: (lists, d)."""
    lists = lists_for(request.items, request.options)
    metric = faiss_metric(request.metric)
    parameters = faiss.ClusteringParameters()
    parameters.seed = request.seed
    parameters.spherical = metric == faiss.METRIC_INNER_PRODUCT
    parameters.min_points_per_centroid = 1
    parameters.niter = _ITERATIONS
    set_threads(request.threads)
    clustering = faiss.Clustering(request.dimension, lists, parameters)
    clustering.train(sample, faiss.IndexFlat(request.dimension, metric))
    centroids: Vectors = faiss.vector_to_array(clustering.centroids).reshape(lists, request.dimension)
    return centroids


def coarse_quantizer(centroids: Vectors, request: BuildRequest) -> Any:
    """Return the index that finds the nearest centroids."""
    quantizer = faiss.IndexFlat(request.dimension, faiss_metric(request.metric))
    quantizer.add(centroids)
    return quantizer


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return named arrays in NumPy's file format."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def unpack(content: bytes) -> dict[str, NDArray[Any]]:
    """Return what `pack` was given."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
