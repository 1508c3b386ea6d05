"""A caller who leaves stops the training; the next call finds the way free."""

import threading
from collections.abc import Callable

import grpc
import pytest
from prometheus_client import CollectorRegistry

from learner.app import build_rooms
from learner.settings import LearnerSettings
from sealpool.batches import to_labelled_batches
from sealpool.client import LearnerClient
from sealpool.runtime.logs import make_logger
from sealpool.v1 import learner_pb2, learner_pb2_grpc
from tests.support.fake_index import FakeIndex
from tests.support.learner_requests import labelled, train, train_header


def test_a_training_whose_caller_left_stops_and_writes_nothing(
    serve: Callable[..., LearnerClient], index: FakeIndex, tmp_path
) -> None:
    reading, go_on = threading.Event(), threading.Event()
    get_items = index.get_items

    def slow(*arguments: object, **options: object) -> object:
        reading.set()
        go_on.wait(30)
        return get_items(*arguments, **options)  # type: ignore[arg-type]

    index.get_items = slow  # type: ignore[method-assign, assignment]
    client = serve(index)
    (batch,) = to_labelled_batches(labelled(range(9)), chunk_rows=100)
    with grpc.insecure_channel(client.target) as channel:
        stub = learner_pb2_grpc.LearnerServiceStub(channel)
        call = stub.Train(iter([learner_pb2.TrainRequest(header=train_header(), examples=batch)]))
        assert reading.wait(30)
        call.cancel()
        with pytest.raises(grpc.RpcError):
            next(call)
    go_on.set()
    # One trains at a time, so this one begins when the cancelled one has ended.
    assert not train(client).from_checkpoint


def test_sizes_are_read_when_they_are_scraped(index: FakeIndex, tmp_path, serve: Callable[..., LearnerClient]) -> None:
    registry = CollectorRegistry()
    settings = LearnerSettings(data_dir=tmp_path, device="cpu")
    build_rooms(settings, index, registry=registry, log=make_logger(settings, "learner"))
    names = {family.name for family in registry.collect()}
    assert names == {
        "sealpool_learner_phase_seconds",
        "sealpool_learner_cached_candidates",
        "sealpool_learner_cache_bytes",
        "sealpool_learner_gpu_memory_bytes",
        "sealpool_learner_gpu_memory_total_bytes",
        "sealpool_learner_waiting_trainings",
        "sealpool_learner_running_trainings",
    }
