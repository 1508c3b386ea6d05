"""FAISS engines on GPUs, and what the GPU indexes lack made up for.

A GPU index removes nothing, ignores an IDSelector in silence, returns at most 2,048 neighbours, and may be touched by
one thread at a time, searches included. So masked rows are over-fetched and dropped here; where that could not reach
far enough, the vectors' copy in host memory is scanned.
"""

import ctypes
import math
from collections.abc import Callable
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from index_server.engines.build import BuildRequest, GpuLayout
from index_server.engines.clustering import DEFAULT_PROBES
from index_server.engines.exact import exact_top, rescored
from index_server.engines.faiss_cpu import check_dense, checked_breadth, faiss_metric, rounding_of, set_threads
from index_server.engines.gpu_layout import DeviceIndex, Found, MakeDeviceIndex, lay_out
from index_server.engines.row_mask import Bits, RowMask, selected
from index_server.engines.vector_log import vector_log
from index_server.ports import Rows
from index_server.spec import VectorType
from sealpool.types import Vectors

MAX_NEIGHBORS: Final = 2048
_SPARE: Final = 64
"""Neighbours fetched beyond those wanted before all masked rows are reckoned with."""
_HALF_ROUNDING: Final = 2.0**-10
"""GPU Flat rounds queries to float16 too: by 2⁻¹¹ of each number, twice that in a squared distance."""


def gpu_count() -> int:
    """Return how many GPUs FAISS can use; 0 for a build without GPU support."""
    return int(faiss.get_num_gpus())


def has_cuvs() -> bool:
    """Whether FAISS was built with cuVS."""
    return "CUVS" in faiss.get_compile_options().upper()


def gpu_memory_bytes() -> int:
    """Return the memory of the smallest GPU, in use or not; 0 where the driver does not tell."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    if not gpu_count() or driver.cuInit(0):
        return 0
    sizes = []
    for gpu in range(gpu_count()):
        device, size = ctypes.c_int(), ctypes.c_size_t()
        if driver.cuDeviceGet(ctypes.byref(device), gpu) or driver.cuDeviceTotalMem_v2(ctypes.byref(size), device):
            return 0
        sizes.append(size.value)
    return min(sizes)


class FaissDeviceIndex:
    """One of FAISS's GPU indexes with the resources it lives on. `probes` is its nprobe by default, 0 for none."""

    def __init__(self, resources: Any, index: Any, *, probes: int = 0) -> None:
        self._resources = resources
        self._index = index
        self._probes = probes
        self.widen(1.0)

    def add(self, vectors: Vectors) -> None:
        """Append `vectors`."""
        self._index.add(np.ascontiguousarray(vectors))

    def search(self, queries: Vectors, k: int) -> Found:
        """Return the k nearest rows of each query."""
        scores, rows = self._index.search(np.ascontiguousarray(queries), k)
        return scores, rows

    def widen(self, breadth: float) -> None:
        """Look into `breadth` times as many clusters."""
        if self._probes:
            self._index.nprobe = min(int(self._index.nlist), MAX_NEIGHBORS, round(self._probes * breadth))


def flat_on_gpu(gpu: int, request: BuildRequest) -> FaissDeviceIndex:
    """Return an empty GpuIndexFlat."""
    config = faiss.GpuIndexFlatConfig()
    config.device = gpu
    config.use_cuvs = False
    config.useFloat16 = request.vector_type is VectorType.FLOAT16
    resources = faiss.StandardGpuResources()
    index = faiss.GpuIndexFlat(resources, request.dimension, faiss_metric(request.metric), config)
    return FaissDeviceIndex(resources, index)


def ivf_on_gpu(on_host: Callable[[], tuple[Any, Any]], *, float16_tables: bool = False) -> MakeDeviceIndex:
    """Return a maker of the GPU form of an empty, trained IVF index, which `on_host` makes with its quantizer."""

    def make(gpu: int, request: BuildRequest) -> DeviceIndex:
        index, _quantizer = on_host()
        options = faiss.GpuClonerOptions()
        options.use_cuvs = False
        options.useFloat16 = float16_tables
        resources = faiss.StandardGpuResources()
        on_gpu = faiss.index_cpu_to_gpu(resources, gpu, index, options)
        return FaissDeviceIndex(resources, on_gpu, probes=request.options.ivf_probes or DEFAULT_PROBES)

    return make


class FaissGpuEngine:
    """An Engine over an index on GPUs, with the vectors themselves in host memory, or on disk if the index has codes.

    Parameters
    ----------
    saved
        What `save` gives.
    refine_factor
        Above 0: so many times k rows are fetched, and compared again by the vectors in the host.
    device_bytes
        Of an item on a GPU; that of its vector by default.
    reach
        The most neighbours that the index returns.
    """

    device = "cuda"

    def __init__(
        self,
        name: str,
        request: BuildRequest,
        make: MakeDeviceIndex,
        *,
        saved: bytes | None = None,
        refine_factor: int = 0,
        device_bytes: int = 0,
        reach: int = MAX_NEIGHBORS,
    ) -> None:
        self.name = name
        self._request = request
        self._saved = saved
        self._refine_factor = refine_factor
        self._device_bytes = device_bytes or request.dimension * request.vector_type.dtype.itemsize
        self._reach = reach
        self._breadth = 1.0
        self._mask = RowMask()
        directory = request.scratch_dir if refine_factor else None
        self._host = vector_log(request.dimension, request.vector_type, directory)
        self._index = lay_out(name, request, make)

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
        """Memory in host and devices."""
        copies = self._request.gpus if self._request.gpu_layout is GpuLayout.REPLICAS else 1
        return self._host.memory_bytes + copies * self.size * self._device_bytes + self._mask.nbytes

    @property
    def rounding(self) -> float:
        """Of float32, or where the index holds float16 of that."""
        rounding = rounding_of(self._request.dimension)
        half = self._request.vector_type is VectorType.FLOAT16 and not self._refine_factor
        return rounding + _HALF_ROUNDING if half else rounding

    @property
    def breadth(self) -> float:
        """How many times wider than by default it searches."""
        return self._breadth

    @breadth.setter
    def breadth(self, value: float) -> None:
        self._breadth = checked_breadth(value)
        self._index.widen(value)

    def settled(self) -> bool:
        """Return True."""
        return True

    def make_room(self, rows: int) -> None:
        """Do nothing."""

    def reserve(self, rows: int) -> None:
        """Do nothing."""

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """Append `vectors` as `rows`, masked."""
        check_dense(rows, self.size)
        if not len(rows):
            return
        vectors = np.ascontiguousarray(vectors, np.float32)
        self._host.write(self.size, vectors)
        self._index.add(vectors)
        self._mask.append(len(rows))

    def reveal(self, rows: Rows) -> None:
        """Let `rows` be found."""
        self._mask.reveal(rows)

    def revealed(self, rows: Rows) -> NDArray[np.bool_]:
        """Say which of `rows` can be found."""
        return self._mask.contains(rows)

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
        queries = np.ascontiguousarray(queries, np.float32)
        short = np.arange(len(queries))
        for wanted, fetch in self._fetches(found, self.size - left):
            raw_scores, raw_rows = self._index.search(queries[short], fetch)
            near_rows, near_scores, enough = first_kept(raw_scores, raw_rows, bits, wanted, found)
            if self._refine_factor:
                near_rows, near_scores = self._refined(queries[short], found, near_rows)
            done = short[enough]
            rows[done, :found], scores[done, :found] = near_rows[enough, :found], near_scores[enough, :found]
            short = short[~enough]
            if not len(short):
                return rows, scores
        rows[short, :found], scores[short, :found] = self._scan(queries[short], found, bits)
        return rows, scores

    def vectors(self, rows: Rows) -> Vectors:
        """Return the vectors of `rows`."""
        return self._host.take(rows)

    def save(self) -> bytes | None:
        """Return what training found."""
        return self._saved

    def close(self) -> None:
        """Free the device memory."""
        self._index.close()

    def _fetches(self, found: int, masked: int) -> list[tuple[int, int]]:
        """Return how many rows are wanted and how many are fetched for them, one pair for each attempt."""
        if found > self._reach:
            return []
        wanted = found
        if self._refine_factor:
            wanted = min(self._reach, math.ceil(found * self._refine_factor * self._breadth))
        most = min(self.size, self._reach, wanted + masked)
        first = min(most, wanted + min(masked, _SPARE + wanted // 4))
        return [(wanted, fetch) for fetch in sorted({first, most})]

    def _refined(self, queries: Vectors, k: int, candidates: Rows) -> tuple[Rows, NDArray[np.float32]]:
        return rescored(queries, k, candidates, metric=self._request.metric, read=self._host.take)

    def _scan(self, queries: Vectors, k: int, bits: Bits | None) -> tuple[Rows, NDArray[np.float32]]:
        """Return the k nearest selected rows of each query and their scores by scanning the host's copy."""
        set_threads(self._request.threads)
        metric, size = self._request.metric, self.size
        return exact_top(
            queries, k, metric=metric, size=size, read=self._host.take, kept=lambda rows: selected(bits, rows)
        )


def first_kept(
    scores: NDArray[np.float32], rows: Rows, bits: Bits | None, count: int, least: int
) -> tuple[Rows, NDArray[np.float32], NDArray[np.bool_]]:
    """Return the first `count` of each query's rows (q, fetched) whose bit is set, −1 where there are fewer.

    With their scores, and for each query whether it has `least` of them.
    """
    kept = selected(bits, rows)
    order = np.argsort(~kept, axis=1, kind="stable")[:, :count]
    near = np.where(np.take_along_axis(kept, order, 1), np.take_along_axis(rows, order, 1), -1)
    return near, np.take_along_axis(scores, order, 1), kept.sum(axis=1) >= least
