"""`ivf_pq`: clusters of items as short codes (Jégou, Douze and Schmid, TPAMI 2011). Approximate, needs training."""

from collections.abc import Mapping
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from index_server.engines.build import BuildRequest, EngineKind
from index_server.engines.clustering import (
    DEFAULT_PROBES,
    coarse_quantizer,
    items_to_train,
    pack,
    train_centroids,
    training_sample,
    unpack,
)
from index_server.engines.faiss_cpu import EXHAUSTIVE, faiss_metric, search_parameters, set_threads
from index_server.engines.faiss_gpu import FaissGpuEngine, ivf_on_gpu
from index_server.engines.refined import RefinedEngine
from index_server.ports import Engine, Rows
from index_server.spec import Device, EngineOptions
from sealpool.errors import InvalidArgument
from sealpool.types import Vectors

DEFAULT_REFINE: Final = 4
_BITS: Final = 8
_GPU_SUBQUANTIZERS: Final = (1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96)
"""What FAISS's own GPU kernels are compiled for."""
_NO_TABLE: Final = -1
_POINTS_A_CODE: Final = 64
"""A quarter of FAISS's own 256, for faster training: recall was 0.954 for 0.953 at 26,000 × 64 without clusters."""

Trained = Mapping[str, NDArray[Any]]
"""`centroids` (lists, d) and `codebook`, 256·d floats."""


class IvfPqEngine(RefinedEngine):
    """IndexIVFPQ over residuals, 8 bits a part; the nearest k·refine_factor codes are compared by true distance.

    Memory: an item takes `pq_subquantizers` bytes of code (d/4 by default) and 8 of id: at 256 dimensions 72 bytes for
    the 1,024 of `flat`. Its whole vector, 4·d bytes (2·d of float16), lies on disk in the scratch folder, and in the
    page cache as far as there is room. Cost: of one query the centroids, a table of 256·d products, the codes of
    `ivf_probes` clusters, and k·refine_factor reads of vectors. Under L2 the table is made anew for each cluster:
    FAISS's precomputed one would take lists·256·4 bytes a subquantizer, at a million items four times the codes.
    """

    name = "ivf_pq"

    def __init__(self, trained: Trained, request: BuildRequest) -> None:
        quantizer = coarse_quantizer(trained["centroids"], request)
        super().__init__(_empty_index(quantizer, trained, request), request, refine_factor=DEFAULT_REFINE)
        self._quantizer = quantizer  # the index does not own it
        self._trained = trained
        self._probes = request.options.ivf_probes or DEFAULT_PROBES

    def save(self) -> bytes:
        """Return centroids and codebook."""
        return pack(self._trained)

    def _candidates(self, queries: Vectors, count: int, selector: Any | None, effort: float) -> Rows:
        lists = int(self._index.nlist)
        probes = lists if effort == EXHAUSTIVE else min(lists, round(self._probes * effort))
        parameters = search_parameters("SearchParametersIVF", nprobe=probes, sel=selector)
        rows: Rows = self._index.search(queries, count, params=parameters)[1]
        return rows

    def _structure_bytes(self) -> int:
        return (int(self._index.code_size) + 8) * self.size + sum(part.nbytes for part in self._trained.values())


def subquantizers_for(dimension: int, options: EngineOptions, device: Device) -> int:
    """Return how many parts a vector is cut into: as asked, or its least divisor from d/4 on.

    On a GPU it is the largest divisor up to d/4 that FAISS has a kernel for.
    """
    if options.pq_subquantizers:
        return options.pq_subquantizers
    divisors = [parts for parts in range(1, dimension + 1) if dimension % parts == 0]
    if device is Device.CUDA:
        return max(parts for parts in divisors if parts in _GPU_SUBQUANTIZERS and parts <= max(1, dimension // 4))
    return min(parts for parts in divisors if 4 * parts >= dimension)


def _empty_index(quantizer: Any, trained: Trained, request: BuildRequest) -> Any:
    index = _untrained_index(quantizer, len(trained["centroids"]), request)
    faiss.copy_array_to_vector(np.ascontiguousarray(trained["codebook"], np.float32), index.pq.centroids)
    index.is_trained = True
    return index


def _untrained_index(quantizer: Any, lists: int, request: BuildRequest) -> Any:
    parts = subquantizers_for(request.dimension, request.options, request.device)
    index = faiss.IndexIVFPQ(quantizer, request.dimension, lists, parts, _BITS, faiss_metric(request.metric))
    index.use_precomputed_table = _NO_TABLE
    return index


def _train(request: BuildRequest) -> Trained:
    sample = training_sample(request)
    centroids = train_centroids(request, sample)
    index = _untrained_index(coarse_quantizer(centroids, request), len(centroids), request)
    index.pq.cp.seed = request.seed
    index.pq.cp.min_points_per_centroid = 1
    index.pq.cp.max_points_per_centroid = _POINTS_A_CODE
    set_threads(request.threads)
    index.train(sample)
    return {"centroids": centroids, "codebook": faiss.vector_to_array(index.pq.centroids)}


def _build(request: BuildRequest) -> Engine:
    trained = _train(request) if request.saved is None else unpack(request.saved)
    if request.device is Device.CPU:
        return IvfPqEngine(trained, request)

    def on_host() -> tuple[Any, Any]:
        quantizer = coarse_quantizer(trained["centroids"], request)
        return _empty_index(quantizer, trained, request), quantizer

    parts = subquantizers_for(request.dimension, request.options, request.device)
    refine = request.options.refine_factor or DEFAULT_REFINE
    maker = ivf_on_gpu(on_host, float16_tables=True)
    return FaissGpuEngine("ivf_pq", request, maker, saved=pack(trained), refine_factor=refine, device_bytes=parts + 8)


def _check(dimension: int, options: EngineOptions, device: Device) -> None:
    parts = options.pq_subquantizers
    if parts and dimension % parts:
        raise InvalidArgument("spec.options.pq_subquantizers", f"{parts} does not divide the dimension, {dimension}")
    if parts and device is Device.CUDA and parts not in _GPU_SUBQUANTIZERS:
        known = ", ".join(map(str, _GPU_SUBQUANTIZERS))
        raise InvalidArgument("spec.options.pq_subquantizers", f"{parts} is on a GPU not one of {known}")


def _items_to_train(items: int, options: EngineOptions) -> int:
    return max(items_to_train(items, options), 1 << _BITS)


KIND = EngineKind(name="ivf_pq", exact=False, cuda=True, items_to_train=_items_to_train, build=_build, check=_check)
