"""Trainings that wait are told their place, and who leaves makes way."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from sealpool.batches import to_labelled_batches
from sealpool.client import LearnerClient
from sealpool.errors import ResourceExhausted
from sealpool.v1 import common_pb2, learner_pb2, learner_pb2_grpc
from tests.support.fake_index import FakeIndex
from tests.support.learner_requests import labelled, train, train_header
from tests.support.small_models import small_model

Serve = Callable[..., LearnerClient]
LONG_S = 60
ENDLESS = common_pb2.NeuralSpec(epochs=100_000, patience=100_000)


@pytest.fixture
def stub(serve: Serve, index: FakeIndex) -> Iterator[tuple[LearnerClient, learner_pb2_grpc.LearnerServiceStub]]:
    client = serve(index)
    with grpc.insecure_channel(client.target) as channel:
        yield client, learner_pb2_grpc.LearnerServiceStub(channel)


def begin(stub: learner_pb2_grpc.LearnerServiceStub, campaign: str) -> Iterator[learner_pb2.TrainResponse]:
    """Begin a training that would take hours; it is one when its first epoch has been told."""
    (batch,) = to_labelled_batches(labelled(range(30)), chunk_rows=100)
    header = train_header(campaign=campaign, model=small_model("mlp", neural=ENDLESS))
    call = stub.Train(iter([learner_pb2.TrainRequest(header=header, examples=batch)]), timeout=LONG_S)
    for answer in call:
        if answer.progress.iteration:
            return call
    raise AssertionError("it ended")


def test_a_training_that_waits_is_told_its_place_and_one_that_is_cancelled_makes_way(
    stub: tuple[LearnerClient, learner_pb2_grpc.LearnerServiceStub], tmp_path: Path
) -> None:
    client, by_hand = stub
    endless = begin(by_hand, "endless")
    places: dict[str, list[int]] = {"second": [], "third": []}
    heard = {name: threading.Event() for name in places}
    results: dict[str, learner_pb2.TrainResult] = {}

    def wait_in_line(name: str) -> None:
        def told(progress: learner_pb2.TrainProgress) -> None:
            if not progress.iteration:
                places[name].append(progress.queue_place)
            heard[name].set()

        results[name] = client.train(train_header(campaign=name), labelled(range(9)), on_progress=told)

    threads = {name: threading.Thread(target=wait_in_line, args=(name,)) for name in places}
    for name, thread in threads.items():
        thread.start()
        assert heard[name].wait(LONG_S)
    assert places == {"second": [1], "third": [2]}
    endless.cancel()  # type: ignore[attr-defined]
    for thread in threads.values():
        thread.join(LONG_S)
    assert results.keys() == places.keys()
    assert places["second"] == [1, 0]
    assert places["third"] in ([2, 1, 0], [2, 0])
    assert not (tmp_path / "data/campaigns/endless").exists()


def test_a_cancelled_training_leaves_its_campaign_free(
    stub: tuple[LearnerClient, learner_pb2_grpc.LearnerServiceStub],
) -> None:
    client, by_hand = stub
    endless = begin(by_hand, "c")
    endless.cancel()  # type: ignore[attr-defined]
    with pytest.raises(grpc.RpcError) as ended:
        next(endless)
    assert ended.value.code() is grpc.StatusCode.CANCELLED
    assert train(client, model=small_model("mlp")).examples


def test_who_leaves_the_queue_is_not_trained(
    stub: tuple[LearnerClient, learner_pb2_grpc.LearnerServiceStub], tmp_path: Path
) -> None:
    client, by_hand = stub
    endless = begin(by_hand, "endless")
    (batch,) = to_labelled_batches(labelled(range(9)), chunk_rows=100)
    request = learner_pb2.TrainRequest(header=train_header(campaign="left"), examples=batch)
    waiting = by_hand.Train(iter([request]), timeout=LONG_S)
    assert next(waiting).progress.queue_place == 1
    waiting.cancel()
    endless.cancel()  # type: ignore[attr-defined]
    train(client, campaign="next")
    assert [path.name for path in (tmp_path / "data/campaigns").iterdir()] == ["next"]


def test_two_may_train_at_once_where_settings_allow(serve: Serve, index: FakeIndex) -> None:
    client = serve(index, max_trainings=2)
    with grpc.insecure_channel(client.target) as channel:
        endless = begin(learner_pb2_grpc.LearnerServiceStub(channel), "endless")
        assert train(client, campaign="beside").examples == 9
        endless.cancel()  # type: ignore[attr-defined]


def test_a_training_past_the_queue_is_refused_and_names_the_setting(serve: Serve, index: FakeIndex) -> None:
    client = serve(index, max_waiting_trainings=0)
    with grpc.insecure_channel(client.target) as channel:
        endless = begin(learner_pb2_grpc.LearnerServiceStub(channel), "endless")
        with pytest.raises(ResourceExhausted, match="max_waiting_trainings"):
            train(client, campaign="other")
        endless.cancel()  # type: ignore[attr-defined]


def test_memory_holds_back_what_the_settings_would_allow(serve: Serve, index: FakeIndex) -> None:
    client = serve(index, max_trainings=2, training_memory_bytes=1)
    with grpc.insecure_channel(client.target) as channel:
        endless = begin(learner_pb2_grpc.LearnerServiceStub(channel), "endless")
        told: list[int] = []

        def leave(progress: learner_pb2.TrainProgress) -> None:
            told.append(progress.queue_place)
            endless.cancel()  # type: ignore[attr-defined]

        client.train(train_header(campaign="beside"), labelled(range(9)), on_progress=leave)
        assert told[:2] == [1, 0]
