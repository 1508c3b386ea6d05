"""What a client does when a server stops in the middle: it goes on where that is safe."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

from sealpool.client import ClientOptions, IndexClient, LearnerClient, SchedulerClient, StreamClient
from sealpool.client.connection import Connection
from sealpool.client.stream import stream_item
from sealpool.errors import Cancelled, Unavailable
from sealpool.matrix import to_matrix
from sealpool.v1 import (
    common_pb2,
    index_pb2,
    index_pb2_grpc,
    learner_pb2,
    learner_pb2_grpc,
    scheduler_pb2,
    scheduler_pb2_grpc,
    stream_pb2,
    stream_pb2_grpc,
)

ROWS = 2
"""Of a message."""


class Breaking(
    index_pb2_grpc.IndexServiceServicer,
    learner_pb2_grpc.LearnerServiceServicer,
    scheduler_pb2_grpc.SchedulerServiceServicer,
    stream_pb2_grpc.StreamServiceServicer,
):
    """Streams ten rows, and breaks off after so many messages as `breaks` says of each call in turn."""

    def __init__(self, *breaks: int) -> None:
        self._breaks = list(breaks)
        self.version = 1
        self.rows = ROWS
        self.items = 10
        self.vectors = 1.0
        self.calls = 0
        self.received: list[list[str]] = []

    def _send(self, messages: Iterator[Message], context: grpc.ServicerContext) -> Iterator[Message]:
        self.calls += 1
        left = self._breaks.pop(0) if self._breaks else None
        for number, message in enumerate(messages):
            if number == left:
                context.abort(grpc.StatusCode.UNAVAILABLE, "Cancelling all calls")
            yield message

    def _ids(self) -> Iterator[list[str]]:
        for start in range(0, self.items, self.rows):
            yield [str(number) for number in range(start, min(self.items, start + self.rows))]

    def ScanItems(self, request: index_pb2.ScanItemsRequest, context: grpc.ServicerContext) -> Iterator[Message]:
        answers = (
            index_pb2.ScanItemsResponse(
                pool_version=self.version,
                items=common_pb2.ItemBatch(
                    ids=ids, vectors=to_matrix(np.full((len(ids), 2), self.vectors, np.float32))
                ),
            )
            for ids in self._ids()
        )
        return self._send(answers, context)

    def Predict(self, request: learner_pb2.PredictRequest, context: grpc.ServicerContext) -> Iterator[Message]:
        answers = (
            learner_pb2.PredictResponse(
                ids=ids, probabilities=to_matrix(np.ones((len(ids), 2), np.float32)), round=self.version
            )
            for ids in self._ids()
        )
        return self._send(answers, context)

    def Embed(self, requests: Iterator[learner_pb2.EmbedRequest], context: grpc.ServicerContext) -> Iterator[Message]:
        def answers() -> Iterator[Message]:
            for request in requests:
                if request.texts:
                    self.received[-1].extend(request.texts)
                    numbers = np.array([[float(text)] for text in request.texts], np.float32)
                    yield learner_pb2.EmbedResponse(vectors=to_matrix(numbers))

        self.received.append([])
        return self._send(answers(), context)

    def Consider(
        self, requests: Iterator[stream_pb2.ConsiderRequest], context: grpc.ServicerContext
    ) -> Iterator[Message]:
        def answers() -> Iterator[Message]:
            for request in requests:
                self.received[-1].append(request.campaign)
                decision = stream_pb2.StreamDecision(item_id=request.item.id)
                yield stream_pb2.ConsiderResponse(decision=decision)

        self.received.append([])
        return self._send(answers(), context)

    def ListLabels(self, request: scheduler_pb2.ListLabelsRequest, context: grpc.ServicerContext) -> Iterator[Message]:
        answers = (
            scheduler_pb2.ListLabelsResponse(
                labels=[scheduler_pb2.Label(item_id=item, sequence=int(item) + 1) for item in ids]
            )
            for ids in self._ids()
            if int(ids[0]) >= request.after_sequence
        )
        return self._send(answers, context)

    def WatchCampaign(
        self, request: scheduler_pb2.WatchCampaignRequest, context: grpc.ServicerContext
    ) -> Iterator[Message]:
        answers = (
            scheduler_pb2.WatchCampaignResponse(sequence=number) for number in range(request.after_sequence + 1, 11)
        )
        return self._send(answers, context)

    def GetPool(self, request: index_pb2.GetPoolRequest, context: grpc.ServicerContext) -> index_pb2.GetPoolResponse:
        self._stop_or_answer(context)
        return index_pb2.GetPoolResponse()

    def CreatePool(
        self, request: index_pb2.CreatePoolRequest, context: grpc.ServicerContext
    ) -> index_pb2.CreatePoolResponse:
        self._stop_or_answer(context)
        return index_pb2.CreatePoolResponse()

    def _stop_or_answer(self, context: grpc.ServicerContext) -> None:
        self.calls += 1
        if self._breaks and self._breaks.pop(0) == REFUSED:
            context.set_trailing_metadata((("sealpool-error", "Unavailable"),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "the service is stopping")
        elif self.calls == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")


REFUSED = -1


class Served:
    """A server with that servicer."""

    def __init__(self, *breaks: int) -> None:
        self.servicer = Breaking(*breaks)
        self.server = grpc.server(ThreadPoolExecutor(8))
        for add in (
            index_pb2_grpc.add_IndexServiceServicer_to_server,
            learner_pb2_grpc.add_LearnerServiceServicer_to_server,
            scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server,
            stream_pb2_grpc.add_StreamServiceServicer_to_server,
        ):
            add(self.servicer, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop(0).wait()


OPTIONS = ClientOptions(retry_for_s=5)


def test_a_scan_goes_on_after_what_it_had_yielded() -> None:
    with Served(3, 1, 4) as served, IndexClient(served.address, options=OPTIONS) as client:
        ids = [item for items in client.scan_items("pool") for item in items.ids]
        assert ids == [str(number) for number in range(10)]
        assert served.servicer.calls == 4


def test_a_scan_of_a_pool_that_has_changed_meanwhile_does_not_go_on() -> None:
    with Served(2) as served, IndexClient(served.address, options=OPTIONS) as client:
        scan = client.scan_items("pool")
        assert [next(scan).ids, next(scan).ids] == [["0", "1"], ["2", "3"]]
        served.servicer.version += 1
        with pytest.raises(Unavailable, match="has changed since it broke off"):
            next(scan)


def test_a_scan_whose_chunks_are_cut_otherwise_meanwhile_does_not_go_on() -> None:
    with Served(2) as served, IndexClient(served.address, options=OPTIONS) as client:
        scan = client.scan_items("pool")
        next(scan)
        next(scan)
        served.servicer.rows = 3
        with pytest.raises(Unavailable, match="has changed since it broke off"):
            next(scan)


def test_a_scan_of_a_pool_that_is_empty_meanwhile_does_not_end_as_if_it_were_whole() -> None:
    with Served(2) as served, IndexClient(served.address, options=OPTIONS) as client:
        scan = client.scan_items("pool")
        next(scan)
        next(scan)
        served.servicer.items = 0
        with pytest.raises(Unavailable, match="has changed since it broke off"):
            next(scan)


def test_a_scan_of_another_pool_by_now_with_the_same_ids_at_the_same_version_does_not_go_on() -> None:
    with Served(2) as served, IndexClient(served.address, options=OPTIONS) as client:
        scan = client.scan_items("alias")
        next(scan)
        next(scan)
        served.servicer.vectors += 1
        with pytest.raises(Unavailable, match="has changed since it broke off"):
            next(scan)


def test_a_client_that_does_not_try_again_is_told_of_a_break_at_once() -> None:
    with (
        Served(2) as served,
        IndexClient(served.address, options=ClientOptions(retry_for_s=0)) as client,
        pytest.raises(Unavailable, match="Cancelling"),
    ):
        list(client.scan_items("pool"))


def test_predictions_go_on_after_a_break_and_not_with_another_rounds_model() -> None:
    with Served(3) as served, LearnerClient(served.address, options=OPTIONS) as client:
        parts = list(client.predict("campaign"))
        assert [item for part in parts for item in part.ids] == [str(number) for number in range(10)]
    with Served(3) as served, LearnerClient(served.address, options=OPTIONS) as client:
        predictions = client.predict("campaign")
        for _ in range(3):
            next(predictions)
        served.servicer.version += 1
        with pytest.raises(Unavailable, match="has changed"):
            next(predictions)


def test_texts_that_were_not_answered_are_embedded_by_the_learner_that_comes_after() -> None:
    texts = (str(number) for number in range(100))
    with Served(3, 0, 2) as served, LearnerClient(served.address, options=OPTIONS) as client:
        vectors = np.concatenate(list(client.embed(texts, encoder="e", chunk_texts=7)))
        assert vectors.ravel().tolist() == list(range(100))
        assert [received[0] for received in served.servicer.received] == ["0", "21", "21", "35"]


def test_an_item_that_comes_after_the_break_is_sent_to_the_scheduler_that_comes_after() -> None:
    decided = threading.Event()

    def items() -> Iterator[stream_pb2.StreamItem]:
        yield stream_item("first", text="x")
        assert decided.wait(10)  # in the thread of the call that breaks
        yield stream_item("second", text="x")
        yield stream_item("third", text="x")

    with Served(1, 1) as served, StreamClient(served.address, options=OPTIONS) as client:
        decisions = client.consider("campaign", items())
        assert next(decisions).item_id == "first"
        decided.set()
        assert [decision.item_id for decision in decisions] == ["second", "third"]
        assert [names[0] for names in served.servicer.received] == ["campaign"] * 3


def test_labels_and_events_go_on_after_the_last_one_seen() -> None:
    with Served(2, 1) as served, SchedulerClient(served.address, options=OPTIONS) as client:
        assert [label.sequence for label in client.list_labels("campaign")] == list(range(1, 11))
        assert served.servicer.calls == 3
    with Served(4, 0, 2) as served, SchedulerClient(served.address, options=OPTIONS) as client:
        assert [event.sequence for event in client.watch_campaign("campaign")] == list(range(1, 11))
        assert served.servicer.calls == 4


def test_a_call_that_is_not_idempotent_is_tried_again_only_where_it_was_not_begun() -> None:
    spec = index_pb2.PoolSpec(name="pool")
    with Served(REFUSED, REFUSED) as served, IndexClient(served.address, options=OPTIONS) as client:
        client.create_pool(spec)
        assert served.servicer.calls == 3
    with Served() as served, IndexClient(served.address, options=OPTIONS) as client:
        with pytest.raises(Unavailable, match="Socket closed"):
            client.create_pool(spec)
        client.get_pool("pool")
        assert served.servicer.calls == 2


@pytest.mark.parametrize("scheme", ["", "ipv4:", "dns:///"])
def test_a_call_that_is_not_idempotent_waits_for_a_server_that_is_not_there_yet(scheme: str) -> None:
    with Served(REFUSED) as served:
        address = served.address
    with IndexClient(scheme + address, options=OPTIONS) as client, ThreadPoolExecutor(1) as threads:
        with pytest.raises(Unavailable):
            IndexClient(scheme + address, options=ClientOptions(retry_for_s=0)).create_pool(index_pb2.PoolSpec())
        creating = threads.submit(client.create_pool, index_pb2.PoolSpec())
        servicer = Breaking(REFUSED)
        server = grpc.server(ThreadPoolExecutor(8))
        index_pb2_grpc.add_IndexServiceServicer_to_server(servicer, server)
        assert server.add_insecure_port(address)
        server.start()
        creating.result(20)
        assert servicer.calls == 2
        server.stop(0).wait()


class Stub(grpc.RpcError):
    """How a call ended."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[()]:
        return ()


def test_a_call_that_a_stopping_server_has_cancelled_is_tried_again_and_one_that_we_cancelled_is_not() -> None:
    ends = [Stub(grpc.StatusCode.CANCELLED, "CANCELLED")]

    def attempt(_: float) -> str:
        if ends:
            raise ends.pop()
        return "answer"

    with Connection("127.0.0.1:1", options=OPTIONS) as connection:
        assert connection.call(attempt, idempotent=False) == "answer"
        ends.append(Stub(grpc.StatusCode.CANCELLED, "Locally cancelled by application!"))
        with pytest.raises(Cancelled):
            connection.call(attempt)
