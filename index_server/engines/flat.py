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
from index_server.spec import Device, VectorType
from sealpool.types import Vectors


class FlatEngine(FaissCpuEngine):
    """IndexFlat, or of float16 vectors IndexScalarQuantizer, which reads them as they are.

    Memory: 4·d bytes an item, 2·d as float16. Cost: every query is compared with every item, as float16 about as fast
    (100 queries of 100,000 × 256 on 2 cores: 0.31 s for 0.37 s).
    """

    name = "flat"

    def __init__(self, request: BuildRequest) -> None:
        metric = faiss_metric(request.metric)
        index: Any
        if request.vector_type is VectorType.FLOAT16:
            index = faiss.IndexScalarQuantizer(request.dimension, faiss.ScalarQuantizer.QT_fp16, metric)
        else:
            index = faiss.IndexFlat(request.dimension, metric)
        super().__init__(index, threads=request.threads, vector_type=request.vector_type)

    def reserve(self, rows: int) -> None:
        """Take memory for `rows` more: FAISS keeps it when what took it shrinks again.

        Without it 200,000 × 256 float32 took 0.33 s to come in, most of it for moving what was there; so 0.1 s.
        """
        codes, size = self._index.codes, self.size * int(self._index.code_size)
        codes.resize(size + rows * int(self._index.code_size))
        codes.resize(size)

    def _efforts(self) -> Sequence[int]:
        return (EXHAUSTIVE,)

    def _search(
        self,
        queries: Vectors,
        k: int,
        selector: Any | None,
        effort: float,  # noqa: ARG002 - there is but one
    ) -> tuple[NDArray[float32], Rows]:
        parameters = None if selector is None else search_parameters("SearchParameters", sel=selector)
        scores, rows = self._index.search(queries, k, params=parameters)
        return scores, rows


def _build(request: BuildRequest) -> Engine:
    if request.device is Device.CUDA:  # 4·d bytes an item in the host and on each GPU that has it, 2·d as float16
        return FaissGpuEngine("flat", request, flat_on_gpu)
    return FlatEngine(request)


KIND = EngineKind(name="flat", exact=True, cuda=True, items_to_train=lambda _items, _options: 0, build=_build)
