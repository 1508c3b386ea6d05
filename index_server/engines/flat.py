"""`flat`: compares each query with every item. Exact."""

from collections.abc import Sequence
from typing import Any

import faiss
from numpy import float32
from numpy.typing import NDArray

from index_server.engines.build import BuildRequest, EngineKind
from index_server.engines.faiss_cpu import EXHAUSTIVE, FaissCpuEngine, faiss_metric, search_parameters
from index_server.engines.faiss_gpu import FaissGpuEngine, flat_on_gpu
from index_server.ports import Engine, Rows
from index_server.spec import Device
from sealpool.types import Vectors


class FlatEngine(FaissCpuEngine):
    """IndexFlat. Memory: the vectors, 4 bytes a number."""

    name = "flat"

    def _efforts(self) -> Sequence[int]:
        return (EXHAUSTIVE,)

    def _search(
        self,
        queries: Vectors,
        k: int,
        selector: Any | None,
        effort: int,  # noqa: ARG002 - there is but one
    ) -> tuple[NDArray[float32], Rows]:
        parameters = None if selector is None else search_parameters("SearchParameters", sel=selector)
        scores, rows = self._index.search(queries, k, params=parameters)
        return scores, rows


def _build(request: BuildRequest) -> Engine:
    if request.device is Device.CUDA:
        return FaissGpuEngine("flat", request, flat_on_gpu)
    index = faiss.IndexFlat(request.dimension, faiss_metric(request.metric))
    return FlatEngine(index, threads=request.threads)


KIND = EngineKind(name="flat", exact=True, cuda=True, items_to_train=lambda _items, _options: 0, build=_build)
