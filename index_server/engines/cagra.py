"""`cagra`: a graph of neighbours built on a GPU (Ootomo et al., ICDE 2024, arXiv 2308.15136). Approximate."""

from collections.abc import Callable
from typing import Any, Final

import faiss
import numpy as np

from index_server.engines.build import BuildRequest, EngineKind, GpuLayout
from index_server.engines.faiss_cpu import faiss_metric, search_parameters
from index_server.engines.faiss_gpu import FaissDeviceIndex, FaissGpuEngine, flat_on_gpu
from index_server.engines.gpu_layout import DeviceIndex, Found, merged
from index_server.ports import Engine
from index_server.spec import Metric
from sealpool.types import Vectors

DEFAULT_DEGREE: Final = 64
_ITEMS: Final = 1024
"""Fewer are compared one by one sooner than a graph is walked."""
_BREADTH: Final = 256
"""cuVS's own itopk_size, 64, is below k = 100."""
_STEP: Final = 32
_REACH: Final = 1024
_SAVED: Final = b"cagra"


class GraphAndTail:
    """A graph over the first `items` vectors, built once they are there, and an exact index over those that follow.

    A second `add` to FAISS's own index is ignored in silence. Until the graph is there, everything is in the tail.
    """

    def __init__(
        self,
        items: int,
        metric: Metric,
        *,
        make_graph: Callable[[Vectors], DeviceIndex],
        make_tail: Callable[[], DeviceIndex],
    ) -> None:
        self._items = items
        self._metric = metric
        self._make_graph = make_graph
        self._make_tail = make_tail
        self._waiting: list[Vectors] = []
        self._graph: DeviceIndex | None = None
        self._graph_size = 0
        self._tail: DeviceIndex | None = None
        self._tail_size = 0
        self._breadth = 1.0

    def add(self, vectors: Vectors) -> None:
        """Append `vectors`, building the graph where they complete what it is to be built of."""
        if self._graph is None:
            self._waiting.append(vectors.copy())
            if self._tail_size + len(vectors) >= self._items:
                self._build()
                return
        if self._tail is None:
            self._tail = self._make_tail()
        self._tail.add(vectors)
        self._tail_size += len(vectors)

    def search(self, queries: Vectors, k: int) -> Found:
        """Return the k nearest rows of each query."""
        answers = []
        if self._graph is not None:
            answers.append(self._graph.search(queries, k))
        if self._tail is not None:
            scores, rows = self._tail.search(queries, k)
            answers.append((scores, np.where(rows < 0, -1, rows + self._graph_size)))
        return merged(self._metric, answers, k)

    def widen(self, breadth: float) -> None:
        """Walk `breadth` times as wide in the graph."""
        self._breadth = breadth
        if self._graph is not None:
            self._graph.widen(breadth)

    def _build(self) -> None:
        self._tail, self._tail_size = None, 0  # its device memory is wanted for the graph
        vectors = np.concatenate(self._waiting)
        self._waiting = []
        self._graph, self._graph_size = self._make_graph(vectors), len(vectors)
        self._graph.widen(self._breadth)


class CagraIndex(FaissDeviceIndex):
    """GpuIndexCagra, built. Memory and cost: see `KIND`."""

    def search(self, queries: Vectors, k: int) -> Found:
        """Return the k nearest rows of each query."""
        parameters = search_parameters("SearchParametersCagra")
        wide = max(k, round(_BREADTH * self._breadth))
        parameters.itopk_size = -(-wide // _STEP) * _STEP
        scores, rows = self._index.search(np.ascontiguousarray(queries), k, params=parameters)
        return scores, rows

    def add(self, vectors: Vectors) -> None:
        """Refuse: FAISS would ignore them."""
        raise NotImplementedError(f"{len(vectors)} vectors cannot be added to a graph that is built")

    def widen(self, breadth: float) -> None:
        """Keep `breadth` times as many rows on the way."""
        self._breadth = breadth


def _graph_on_gpu(gpu: int, request: BuildRequest, vectors: Vectors) -> CagraIndex:
    gpu_faiss: Any = faiss  # the stubs of faiss-cpu know no cuVS
    config = gpu_faiss.GpuIndexCagraConfig()
    config.device = gpu
    config.graph_degree = request.options.cagra_degree or DEFAULT_DEGREE
    config.intermediate_graph_degree = 2 * config.graph_degree
    resources = gpu_faiss.StandardGpuResources()
    index = gpu_faiss.GpuIndexCagra(resources, request.dimension, faiss_metric(request.metric), config)
    index.train(np.ascontiguousarray(vectors))
    return CagraIndex(resources, index)


def _on_gpu(gpu: int, request: BuildRequest) -> DeviceIndex:
    shared = request.gpus if request.gpu_layout is GpuLayout.SHARDS else 1
    return GraphAndTail(
        max(_ITEMS, request.items // shared),
        request.metric,
        make_graph=lambda vectors: _graph_on_gpu(gpu, request, vectors),
        make_tail=lambda: flat_on_gpu(gpu, request),
    )


def _build(request: BuildRequest) -> Engine:
    degree = request.options.cagra_degree or DEFAULT_DEGREE
    device_bytes = 4 * (request.dimension + degree)
    return FaissGpuEngine("cagra", request, _on_gpu, saved=_SAVED, device_bytes=device_bytes, reach=_REACH)


KIND = EngineKind(
    name="cagra",
    exact=False,
    cuda=True,
    cpu=False,
    cuvs=True,
    items_to_train=lambda _items, _options: _ITEMS,
    build=_build,
)
"""For pools that no longer change: what comes later is searched exactly beside the graph, until one is built anew.

Memory: 4·d bytes an item of vectors and 4·degree of links on the GPU, and 4·d of the vectors' copy in the host; twice
the vectors in the host while it is built. Cost: of a query some hundreds of comparisons, whatever the pool's size.
"""
