"""The scheduler, killed between pool and database, decides of a stream and makes items as if it had not been."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import grpc
import numpy as np
import pytest

from sealpool.batches import from_batch
from sealpool.client import ClientOptions, SchedulerClient, StreamClient, stream_item
from sealpool.errors import Unavailable
from sealpool.matrix import from_matrix, to_matrix
from sealpool.v1 import index_pb2, index_pb2_grpc, learner_pb2, learner_pb2_grpc, stream_pb2
from sealpool.v1 import scheduler_pb2 as pb
from tests.crash.scheduler.services_behind import IndexServicer, LearnerServicer
from tests.support.processes import ServiceProcess
from tests.unit.scheduler.fakes import FakeIndex, FakeLearner
from tests.unit.scheduler.world import World, make_spec

SPEC = make_spec(
    budget=60,
    stream=pb.StreamSpec(uncertainty=0.1, budget_share=0.8, encoder=learner_pb2.EmbedHeader(encoder="e")),
)
KILLS = ["scheduler.stream.before_commit:2", "scheduler.stream.after_commit", "scheduler.synthesis.before_commit"]

T = TypeVar("T")


class StreamIndex(IndexServicer):
    """What streams and synthesis ask of the index server besides."""

    def __init__(self, index: FakeIndex) -> None:
        super().__init__(index)
        self._held = index

    def Upsert(
        self, request_iterator: Iterator[index_pb2.UpsertRequest], context: grpc.ServicerContext
    ) -> index_pb2.UpsertResponse:
        requests = list(request_iterator)
        for request in requests:
            if request.items.ids:
                self._held.upsert(requests[0].pool, from_batch(request.items))
        return index_pb2.UpsertResponse(pool_version=8)

    def Search(self, request: index_pb2.SearchRequest, context: grpc.ServicerContext) -> index_pb2.SearchResponse:
        vectors = from_matrix(request.vectors)
        found = self._held.search(
            request.pool, k=request.k, vectors=vectors, exclude=list(request.exclude), include_vectors=True
        )
        assert found.vectors is not None
        return index_pb2.SearchResponse(
            counts=found.counts.tolist(),
            ids=found.ids,
            scores=to_matrix(found.scores[None]),
            vectors=to_matrix(found.vectors),
        )


class StreamLearner(LearnerServicer):
    """What streams and synthesis ask of the learner besides."""

    def __init__(self, learner: FakeLearner) -> None:
        super().__init__(learner)
        self._model = learner

    def Predict(
        self, request: learner_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> Iterator[learner_pb2.PredictResponse]:
        for told in self._model.predict(request.campaign, vectors=from_matrix(request.vectors)):
            yield learner_pb2.PredictResponse(
                probabilities=to_matrix(told.probabilities), classes=told.classes, round=told.round
            )

    def Embed(
        self, request_iterator: Iterator[learner_pb2.EmbedRequest], context: grpc.ServicerContext
    ) -> Iterator[learner_pb2.EmbedResponse]:
        texts = [text for request in request_iterator for text in request.texts]
        made = self._model.embed(texts, encoder="e", pooling="mean", normalize=True, max_tokens=0)
        yield learner_pb2.EmbedResponse(vectors=to_matrix(np.concatenate(list(made))))


@pytest.fixture
def behind() -> Iterator[tuple[FakeIndex, str]]:
    index = FakeIndex()
    index.add_pool("pool", 60)
    server = grpc.server(ThreadPoolExecutor(8))
    index_pb2_grpc.add_IndexServiceServicer_to_server(StreamIndex(index), server)
    learner_pb2_grpc.add_LearnerServiceServicer_to_server(StreamLearner(FakeLearner(index)), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield index, f"127.0.0.1:{port}"
    server.stop(None).wait()


class Killed:
    """A scheduler that is killed at its named points; a call that broke is made again with the next process."""

    def __init__(self, process: ServiceProcess) -> None:
        self._process = process
        self._kills = list(KILLS)
        process.start(failpoint=self._kills[0])

    def patiently(self, call: Callable[[], T]) -> T:
        while True:
            try:
                return call()
            except Unavailable:
                self._process.wait_until_killed()
                self._kills.pop(0)
                self._process.start(failpoint=self._kills[0] if self._kills else "")

    @property
    def was_killed_everywhere(self) -> bool:
        return not self._kills


def drive(address: Callable[[], str], index: FakeIndex, patiently: Callable[[Callable[[], T]], T]) -> list[object]:
    """Run two rounds, three batches of a stream and one synthesis; return what they were answered."""
    options = ClientOptions(retry_for_s=0, timeout_s=30)
    told: list[object] = []
    with SchedulerClient(address(), options=options) as client:
        client.create_campaign(SPEC)
        for _ in range(2):
            client.run_round("c")
            tasks = client.lease_tasks("c", annotator="x", max_tasks=100).tasks
            labels = {task.item_id: [str(index.pools["pool"][task.item_id].metadata["labels"])] for task in tasks}
            client.submit_labels("c", labels, annotator="x")

    def with_client(call: Callable[[StreamClient], object]) -> object:
        with StreamClient(address(), options=options) as client:
            return call(client)

    for number in range(3):
        items = [stream_item(f"s{number}-{k}", text=f"new {number} {k}") for k in range(8)]
        told.append(
            patiently(lambda n=number, i=items: with_client(lambda c: c.consider_batch("c", i, request_id=f"r{n}")))
        )
    method = stream_pb2.SYNTHESIS_METHOD_BOUNDARY
    told.append(patiently(lambda: with_client(lambda c: c.synthesize("c", method, 5, request_id="s"))))
    told.append(with_client(lambda c: c.get_stream("c")))
    with SchedulerClient(address(), options=options) as client:
        told.append(sorted(task.item_id for task in client.lease_tasks("c", annotator="y", max_tasks=100).tasks))
    told.append(sorted(index.pools["pool"]))
    return told


def test_killed_between_pool_and_database_a_stream_ends_as_if_it_had_not(
    tmp_path: Path, behind: tuple[FakeIndex, str]
) -> None:
    index, address = behind
    process = ServiceProcess("scheduler", tmp_path / "killed", "--index-server", address, "--learner", address)
    (tmp_path / "killed").mkdir()
    killed = Killed(process)
    try:
        found = drive(lambda: process.address, index, killed.patiently)
        assert killed.was_killed_everywhere
    finally:
        process.kill()
    world = World(tmp_path / "undisturbed")
    try:
        assert found == drive(lambda: world.server.address, world.index, lambda call: call())
    finally:
        world.close()
