"""The fakes of the index server and the learner, served over real gRPC for a scheduler in another process."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from sealpool.batches import to_batch
from sealpool.types import ItemId, LabelledItems
from sealpool.v1 import index_pb2, index_pb2_grpc, learner_pb2, learner_pb2_grpc
from tests.unit.scheduler.fakes import FakeIndex, FakeLearner


class IndexServicer(index_pb2_grpc.IndexServiceServicer):
    """The calls of the index server that the scheduler makes."""

    def __init__(self, index: FakeIndex) -> None:
        self._index = index

    def GetPool(self, request: index_pb2.GetPoolRequest, context: grpc.ServicerContext) -> index_pb2.GetPoolResponse:
        return index_pb2.GetPoolResponse(pool=self._index.get_pool(request.name))

    def GetItems(
        self, request: index_pb2.GetItemsRequest, context: grpc.ServicerContext
    ) -> Iterator[index_pb2.GetItemsResponse]:
        items = self._index.get_items(
            request.pool,
            [ItemId(item) for item in request.ids],
            payloads=request.include_payloads,
            allow_missing=request.allow_missing,
        )
        yield index_pb2.GetItemsResponse(pool_version=7, items=to_batch(items))

    def ScanItems(
        self, request: index_pb2.ScanItemsRequest, context: grpc.ServicerContext
    ) -> Iterator[index_pb2.ScanItemsResponse]:
        for items in self._index.scan_items(request.pool, payloads=request.include_payloads):
            yield index_pb2.ScanItemsResponse(pool_version=7, items=to_batch(items))

    def SampleItems(
        self, request: index_pb2.SampleItemsRequest, context: grpc.ServicerContext
    ) -> index_pb2.SampleItemsResponse:
        exclude = [ItemId(item) for item in request.exclude]
        ids = self._index.sample_items(request.pool, request.count, seed=request.seed, exclude=exclude)
        return index_pb2.SampleItemsResponse(pool_version=7, ids=ids)


class LearnerServicer(learner_pb2_grpc.LearnerServiceServicer):
    """The calls of the learner that the scheduler makes."""

    def __init__(self, learner: FakeLearner) -> None:
        self._learner = learner

    def Train(
        self, request_iterator: Iterator[learner_pb2.TrainRequest], context: grpc.ServicerContext
    ) -> Iterator[learner_pb2.TrainResponse]:
        requests = list(request_iterator)
        result = self._learner.train(requests[0].header, _examples(requests))
        yield learner_pb2.TrainResponse(progress=learner_pb2.TrainProgress(iteration=1, loss=0.5))
        yield learner_pb2.TrainResponse(result=result)

    def Evaluate(
        self, request_iterator: Iterator[learner_pb2.EvaluateRequest], context: grpc.ServicerContext
    ) -> learner_pb2.EvaluateResponse:
        requests = list(request_iterator)
        return self._learner.evaluate(requests[0].header, _examples(requests))

    def Select(
        self, request_iterator: Iterator[learner_pb2.SelectRequest], context: grpc.ServicerContext
    ) -> learner_pb2.SelectResponse:
        requests = list(request_iterator)
        return self._learner.select(
            requests[0].header,
            [ItemId(item) for request in requests for item in request.labelled_ids],
            [flag for request in requests for flag in request.expand_from],
            [ItemId(item) for request in requests for item in request.excluded_ids],
        )


def _examples(requests: list[learner_pb2.TrainRequest] | list[learner_pb2.EvaluateRequest]) -> LabelledItems:
    ids: list[ItemId] = []
    labels: list[list[int]] = []
    for request in requests:
        flat = iter(request.examples.labels)
        ids += [ItemId(item) for item in request.examples.ids]
        labels += [[next(flat) for _ in range(count)] for count in request.examples.label_counts]
    return LabelledItems(ids=ids, labels=labels)


@contextmanager
def services_behind() -> Iterator[tuple[FakeIndex, str]]:
    """Serve both on one address; yield the fake index and the address."""
    index = FakeIndex()
    index.add_pool("pool", 60)
    index.add_pool("held-out", 12)
    server = grpc.server(ThreadPoolExecutor(8))
    index_pb2_grpc.add_IndexServiceServicer_to_server(IndexServicer(index), server)
    learner_pb2_grpc.add_LearnerServiceServicer_to_server(LearnerServicer(FakeLearner(index)), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield index, f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
