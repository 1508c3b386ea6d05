"""Bad input gets the status that the proto promises, with the field named, and changes nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from sealpool.client import LearnerClient
from sealpool.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, SealpoolError
from sealpool.matrix import to_matrix
from sealpool.types import ItemId, LabelledItems
from sealpool.v1 import common_pb2, learner_pb2, learner_pb2_grpc
from tests.support.fake_index import FakeIndex
from tests.support.learner_requests import item_ids, labelled, select, select_header, train, train_header

Serve = Callable[..., LearnerClient]


@pytest.fixture
def stub(client: LearnerClient) -> Iterator[learner_pb2_grpc.LearnerServiceStub]:
    """What a caller has who writes the messages by hand."""
    with grpc.insecure_channel(client.target) as channel:
        yield learner_pb2_grpc.LearnerServiceStub(channel)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def status_and_field(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    metadata = {entry.key: entry.value for entry in caught.value.trailing_metadata() or ()}
    return caught.value.code(), str(metadata.get("sealpool-field", ""))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"campaign": ""}, "header.campaign"),
        ({"campaign": "../c"}, "header.campaign"),
        ({"pool": "no pool"}, "header.pool"),
        ({"task": common_pb2.TASK_KIND_UNSPECIFIED}, "header.task"),
        ({"task": 9}, "header.task"),
        ({"task": common_pb2.TASK_KIND_BINARY}, "header.classes"),
        ({"classes": ["red"]}, "header.classes"),
        ({"classes": ["red", "red", "blue"]}, "header.classes"),
        ({"classes": ["red", "", "blue"]}, "header.classes"),
        ({"classes": [str(number) for number in range(10_001)]}, "header.classes"),
        ({"classes": ["red", "green"]}, "examples.labels"),
        ({"model": common_pb2.ModelSpec(name="oracle")}, "header.model.name"),
        ({"model": common_pb2.ModelSpec(l2=-1)}, "header.model.l2"),
        ({"model": common_pb2.ModelSpec(l2=float("nan"))}, "header.model.l2"),
        ({"model": common_pb2.ModelSpec(max_iterations=10_001)}, "header.model.max_iterations"),
        ({"model": common_pb2.ModelSpec(class_weight=9)}, "header.model.class_weight"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_train_header_is_refused(
    client: LearnerClient, tmp_path: Path, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        train(client, **changes)
    assert caught.value.field == field
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    ("ids", "labels", "field"),
    [
        (["item-001", "item-001"], [[0], [1]], "examples.ids"),
        (["item-001", ""], [[0], [1]], "examples.ids"),
        (["item-001", "x" * 257], [[0], [1]], "examples.ids"),
        (["item-001", "item-002"], [[0], []], "examples.labels"),
        (["item-001", "item-002"], [[0], [1, 2]], "examples.labels"),
        (["item-001", "item-002"], [[0], [3]], "examples.labels"),
    ],
)
def test_wrong_examples_are_refused_by_train_and_evaluate(
    client: LearnerClient, tmp_path: Path, ids: list[str], labels: list[list[int]], field: str
) -> None:
    train(client)
    before = files(tmp_path)
    examples = LabelledItems(ids=[ItemId(i) for i in ids], labels=labels)
    with pytest.raises(InvalidArgument) as caught:
        client.train(train_header(), examples)
    assert caught.value.field == field
    with pytest.raises(InvalidArgument) as caught:
        client.evaluate(learner_pb2.EvaluateHeader(campaign="c", round=0, pool="pool"), examples)
    assert caught.value.field == field
    assert files(tmp_path) == before


def test_a_label_twice_on_a_multilabel_item_is_refused(client: LearnerClient) -> None:
    examples = LabelledItems(ids=item_ids([0, 1]), labels=[[0, 0], [1]])
    with pytest.raises(InvalidArgument, match=r"examples\.labels"):
        client.train(train_header(task=common_pb2.TASK_KIND_MULTILABEL), examples)


def test_a_stream_without_its_header_is_refused(stub: learner_pb2_grpc.LearnerServiceStub) -> None:
    refused = (grpc.StatusCode.INVALID_ARGUMENT, "header")
    assert status_and_field(lambda: list(stub.Train(iter([])))) == refused
    assert status_and_field(lambda: list(stub.Train(iter([learner_pb2.TrainRequest()])))) == refused
    assert status_and_field(lambda: stub.Select(iter([learner_pb2.SelectRequest(labelled_ids=["a"])]))) == refused
    assert status_and_field(lambda: stub.Evaluate(iter([learner_pb2.EvaluateRequest()]))) == refused
    assert status_and_field(lambda: list(stub.Embed(iter([learner_pb2.EmbedRequest(texts=["a"])])))) == refused


def test_a_second_header_is_refused(stub: learner_pb2_grpc.LearnerServiceStub, index: FakeIndex) -> None:
    refused = (grpc.StatusCode.INVALID_ARGUMENT, "header")
    trains = [learner_pb2.TrainRequest(header=train_header())] * 2
    assert status_and_field(lambda: list(stub.Train(iter(trains)))) == refused
    selects = [learner_pb2.SelectRequest(header=select_header())] * 2
    assert status_and_field(lambda: stub.Select(iter(selects))) == refused
    assert index.calls == []


def test_label_counts_that_do_not_add_up_are_refused(stub: learner_pb2_grpc.LearnerServiceStub) -> None:
    for counts, labels, field in (([1, 1], [0], "examples.labels"), ([1], [0, 1], "examples.label_counts")):
        batch = common_pb2.LabelledBatch(ids=["item-001", "item-002"], label_counts=counts, labels=labels)
        request = learner_pb2.TrainRequest(header=train_header(), examples=batch)
        answer = status_and_field(lambda request=request: list(stub.Train(iter([request]))))
        assert answer == (grpc.StatusCode.INVALID_ARGUMENT, field)


@pytest.mark.parametrize(
    ("counts", "labels", "field"),
    [([1], [0], "label_counts"), ([1, 1], [0], "labels"), ([], [0], "label_counts")],
)
def test_classes_that_do_not_fit_the_labelled_ids_are_refused(
    stub: learner_pb2_grpc.LearnerServiceStub, index: FakeIndex, counts: list[int], labels: list[int], field: str
) -> None:
    ids = learner_pb2.SelectRequest(
        labelled_ids=["item-001", "item-002"], expand_from=[True, True], label_counts=counts, labels=labels
    )
    requests = [learner_pb2.SelectRequest(header=select_header()), ids]
    assert status_and_field(lambda: stub.Select(iter(requests))) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert index.calls == []


def test_classes_of_some_labelled_ids_alone_are_refused(stub: learner_pb2_grpc.LearnerServiceStub) -> None:
    requests = [
        learner_pb2.SelectRequest(
            header=select_header(), labelled_ids=["item-001"], expand_from=[True], label_counts=[1], labels=[0]
        ),
        learner_pb2.SelectRequest(labelled_ids=["item-002"], expand_from=[True]),
    ]
    refused = (grpc.StatusCode.INVALID_ARGUMENT, "label_counts")
    assert status_and_field(lambda: stub.Select(iter(requests))) == refused


def test_labels_that_train_nothing_are_refused(client: LearnerClient, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="none of the 0 examples"):
        train(client, [])
    with pytest.raises(FailedPrecondition, match="none of the 1 examples"):
        client.train(train_header(), LabelledItems(ids=[ItemId("ghost")], labels=[[0]]))
    with pytest.raises(FailedPrecondition, match="1 of the classes"):
        train(client, [0, 3, 6])
    with pytest.raises(FailedPrecondition, match="both a positive and a negative"):
        client.train(
            train_header(task=common_pb2.TASK_KIND_MULTILABEL),
            LabelledItems(ids=item_ids([0, 3]), labels=[[0], [0]]),
        )
    assert files(tmp_path) == {}


def test_an_evaluation_of_nothing_is_refused(client: LearnerClient) -> None:
    train(client)
    header = learner_pb2.EvaluateHeader(campaign="c", round=0, pool="pool")
    with pytest.raises(FailedPrecondition):
        client.evaluate(header, labelled([]))
    with pytest.raises(FailedPrecondition):
        client.evaluate(header, LabelledItems(ids=[ItemId("ghost")], labels=[[0]]))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"batch_size": 0}, "header.batch_size"),
        ({"batch_size": 51}, "header.batch_size"),
        ({"exploration": -0.1}, "header.exploration"),
        ({"exploration": 1.1}, "header.exploration"),
        ({"exploration": float("nan")}, "header.exploration"),
        ({"strategy": common_pb2.StrategySpec(name="oracle")}, "header.strategy.name"),
        ({"strategy": common_pb2.StrategySpec(name="information_density", base="oracle")}, "header.strategy.base"),
        (
            {"strategy": common_pb2.StrategySpec(name="information_density", base="information_density")},
            "header.strategy.base",
        ),
        ({"strategy": common_pb2.StrategySpec(name="information_density", beta=-1)}, "header.strategy.beta"),
        ({"strategy": common_pb2.StrategySpec(name="information_density", beta=float("inf"))}, "header.strategy.beta"),
        ({"strategy": common_pb2.StrategySpec(density_over=9)}, "header.strategy.density_over"),  # type: ignore[arg-type]
        ({"strategy": common_pb2.StrategySpec(name="most_likely_positive")}, "header.strategy.positive_class"),
        (
            {"strategy": common_pb2.StrategySpec(name="most_likely_positive", positive_class="pink")},
            "header.strategy.positive_class",
        ),
    ],
)
def test_a_wrong_select_header_is_refused_before_anything_is_told(
    client: LearnerClient, index: FakeIndex, changes: dict[str, object], field: str
) -> None:
    train(client)
    index.calls.clear()
    with pytest.raises(InvalidArgument) as caught:
        select(client, **changes)
    assert caught.value.field == field
    assert index.calls == []


def test_wrong_ids_in_a_select_are_refused(client: LearnerClient, index: FakeIndex) -> None:
    train(client)
    index.calls.clear()
    twice = item_ids([1, 1])
    for ids, expand, excluded, field in (
        (twice, [True, True], [], "labelled_ids"),
        (item_ids([1]), [True], twice, "excluded_ids"),
        (item_ids([1, 2]), [True], [], "expand_from"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            client.select(select_header(), ids, expand, excluded)
        assert caught.value.field == field
    assert index.calls == []


def test_an_unknown_policy_is_refused_by_the_index_server(client: LearnerClient) -> None:
    train(client)
    with pytest.raises(InvalidArgument, match="policy"):
        select(client, policy=common_pb2.PolicySpec(name="oracle"))


def test_an_empty_pool_is_refused(client: LearnerClient, index: FakeIndex) -> None:
    train(client)
    index.vectors.clear()
    with pytest.raises(FailedPrecondition, match="empty"):
        select(client)


def test_a_pool_of_another_dimension_is_refused(client: LearnerClient, index: FakeIndex) -> None:
    train(client)
    index.dimension = 5
    header = learner_pb2.EvaluateHeader(campaign="c", round=0, pool="pool")
    for call, field in (
        (lambda: select(client), "header.pool"),
        (lambda: client.evaluate(header, labelled([1])), "header.pool"),
        (lambda: list(client.predict("c")), "pool"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            call()
        assert caught.value.field == field


def test_wrong_sources_of_predict_are_refused(client: LearnerClient, stub: learner_pb2_grpc.LearnerServiceStub) -> None:
    train(client)
    nan = to_matrix(np.array([[np.nan, 0, 0, 0]], np.float32))
    short = to_matrix(np.ones((1, 3), np.float32))
    cut = to_matrix(np.ones((2, 4), np.float32))
    cut.rows = 3
    for request, field in (
        (learner_pb2.PredictRequest(campaign="c"), "source"),
        (learner_pb2.PredictRequest(vectors=short), "campaign"),
        (learner_pb2.PredictRequest(campaign="c", vectors=nan), "vectors"),
        (learner_pb2.PredictRequest(campaign="c", vectors=short), "vectors"),
        (learner_pb2.PredictRequest(campaign="c", vectors=cut), "vectors.data"),
        (learner_pb2.PredictRequest(campaign="c", items=learner_pb2.ItemIds(ids=["a", "a"])), "items.ids"),
        (learner_pb2.PredictRequest(campaign="c", pool="no pool", whole_pool=learner_pb2.WholePool()), "pool"),
    ):
        answer = status_and_field(lambda request=request: list(stub.Predict(request)))
        assert answer == (grpc.StatusCode.INVALID_ARGUMENT, field)


def test_too_many_ids_are_refused_and_the_setting_named(serve: Serve, index: FakeIndex) -> None:
    client = serve(index, max_examples=9, max_predict_ids=3)
    train(client)
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: train(client, range(10)), "max_examples"),
        (lambda: select(client, range(10)), "max_examples"),
        (lambda: list(client.predict("c", ids=item_ids(range(4)))), "max_predict_ids"),
    ]
    for call, setting in calls:
        with pytest.raises(ResourceExhausted, match=setting):
            call()


@pytest.mark.parametrize("name", ["./nonexistent", "~/nonexistent", "/nonexistent", "models/some/nonexistent", "../x"])
def test_a_directory_that_is_not_there_is_named(client: LearnerClient, name: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        list(client.embed(["a"], encoder=name))
    assert caught.value.message == f"encoder: no such directory on the learner's machine: {name}"
    assert caught.value.field == "header.encoder"


@pytest.mark.parametrize("name", ["nonexistent", "no-such/encoder", "no encoder at all!"])
def test_an_encoder_that_is_not_in_the_cache_is_named_and_what_to_do(client: LearnerClient, name: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        list(client.embed(["a"], encoder=name))
    advice = "give a directory, or start the learner with --allow-download"
    assert caught.value.message == f"encoder {name!r} is not in the learner's cache; {advice}"
    assert caught.value.field == "header.encoder"


def test_a_directory_without_an_encoder_is_told_from_one_that_is_not_there(
    client: LearnerClient, tmp_path: Path
) -> None:
    with pytest.raises(FailedPrecondition, match="no readable model and tokenizer in the directory") as caught:
        list(client.embed(["a"], encoder=str(tmp_path)))
    assert "http" not in caught.value.message


def test_an_encoder_that_is_not_named_is_asked_for(client: LearnerClient) -> None:
    with pytest.raises(SealpoolError) as caught:
        list(client.embed(["a"], encoder=""))
    assert (type(caught.value), caught.value.field) == (InvalidArgument, "header.encoder")
