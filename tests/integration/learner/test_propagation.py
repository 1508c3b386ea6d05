"""Propagate: a whole pool labelled from a few of its items, over the wire."""

import threading
from collections.abc import Callable

import grpc
import numpy as np
import pytest

from sealpool.batches import to_labelled_batches
from sealpool.client import LearnerClient
from sealpool.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from sealpool.types import LabelledItems
from sealpool.v1 import common_pb2, learner_pb2, learner_pb2_grpc
from tests.support.fake_index import FakeIndex
from tests.support.learner_requests import CLASSES, item_ids, labelled, train


def header(**changes: object) -> learner_pb2.PropagateHeader:
    fields = {"pool": "pool", "task": common_pb2.TASK_KIND_MULTICLASS, "classes": CLASSES}
    return learner_pb2.PropagateHeader(**(fields | changes))


def propagate(
    client: LearnerClient, examples: LabelledItems, **changes: object
) -> tuple[list[str], np.ndarray, np.ndarray]:
    chunks = list(client.propagate(header(**changes), examples))
    ids = [item_id for chunk, _ in chunks for item_id in chunk.ids]
    return ids, np.concatenate([c.probabilities for c, _ in chunks]), np.concatenate([mass for _, mass in chunks])


def test_a_few_labels_reach_their_clusters(client: LearnerClient, index: FakeIndex) -> None:
    ids, probabilities, mass = propagate(client, labelled(range(9)))
    assert ids == list(index.vectors)
    truth = np.arange(120) % 3
    assert np.mean(probabilities.argmax(axis=1) == truth) > 0.85
    assert (mass > 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    again = propagate(client, labelled(range(8, -1, -1)))
    np.testing.assert_array_equal(again[1], probabilities)


def test_items_that_no_label_reaches_have_equal_probabilities_and_no_mass(
    client: LearnerClient, index: FakeIndex
) -> None:
    for number in range(4):
        index.put(f"far-{number}", [-5 - number, -5, -5, 9])
    ids, probabilities, mass = propagate(client, labelled(range(9)), k=2)
    far = [row for row, item_id in enumerate(ids) if item_id.startswith("far")]
    assert (mass[far] == 0).all()
    np.testing.assert_allclose(probabilities[far], 1 / 3)
    _, probabilities, _ = propagate(
        client,
        LabelledItems(ids=item_ids(range(6)), labels=[[n % 3] if n else [] for n in range(6)]),
        k=2,
        task=common_pb2.TASK_KIND_MULTILABEL,
    )
    np.testing.assert_allclose(probabilities[far], 0.5)


def test_in_a_multilabel_pool_each_class_stands_against_its_absence(client: LearnerClient) -> None:
    examples = LabelledItems(
        ids=item_ids(range(30)), labels=[[n % 3, (n + 1) % 3] if n % 5 else [n % 3] for n in range(30)]
    )
    _, probabilities, mass = propagate(client, examples, task=common_pb2.TASK_KIND_MULTILABEL, alpha=0.5)
    assert ((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all()
    assert probabilities.sum(axis=1).max() > 1.5
    assert (mass > 0).all()


def test_labels_of_items_that_the_pool_lost_are_left_out(client: LearnerClient, index: FakeIndex) -> None:
    index.delete("item-000")
    ids, _, _ = propagate(client, labelled(range(9)))
    assert len(ids) == 119
    with pytest.raises(FailedPrecondition, match="none of the 1 examples"):
        propagate(client, labelled([0]))


def test_items_deleted_while_the_graph_is_read_have_no_neighbours(client: LearnerClient, index: FakeIndex) -> None:
    scan = index.scan_items

    def scan_and_delete(*arguments: object, **options: object) -> object:
        yield from scan(*arguments, **options)  # type: ignore[arg-type]
        index.delete("item-100")

    index.scan_items = scan_and_delete  # type: ignore[method-assign, assignment]
    ids, _, mass = propagate(client, labelled(range(9)))
    assert mass[ids.index("item-100")] == 0
    assert (np.delete(mass, ids.index("item-100")) > 0).all()


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("alpha", {"alpha": 1.0}),
        ("alpha", {"alpha": -0.5}),
        ("alpha", {"alpha": float("nan")}),
        ("pool", {"pool": ""}),
        ("classes", {"classes": ["one"]}),
        ("task", {"task": 0}),
    ],
)
def test_a_bad_header_is_refused_with_its_field(client: LearnerClient, field: str, changes: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match=field):
        propagate(client, labelled(range(3)), **changes)


def test_what_does_not_fit_is_refused(client: LearnerClient) -> None:
    with pytest.raises(NotFound, match="pool"):
        propagate(client, labelled(range(3)), pool="nowhere")
    with pytest.raises(InvalidArgument, match=r"examples\.labels"):
        propagate(client, LabelledItems(ids=item_ids([0]), labels=[[3]]))


def test_a_graph_beyond_the_memory_limit_is_refused_and_names_the_setting(
    serve: Callable[..., LearnerClient], index: FakeIndex
) -> None:
    client = serve(index, propagation_memory_bytes=120_000)
    with pytest.raises(ResourceExhausted, match="propagation_memory_bytes"):
        propagate(client, labelled(range(9)))
    assert len(propagate(client, labelled(range(9)), k=1)[0]) == 120


def test_a_caller_who_leaves_frees_the_turn(serve: Callable[..., LearnerClient], index: FakeIndex) -> None:
    searching, go_on = threading.Event(), threading.Event()
    search = index.search

    def slow(*arguments: object, **options: object) -> object:
        searching.set()
        go_on.wait(30)
        return search(*arguments, **options)  # type: ignore[arg-type]

    index.search = slow  # type: ignore[method-assign, assignment]
    client = serve(index)
    (batch,) = to_labelled_batches(labelled(range(9)), chunk_rows=100)
    with grpc.insecure_channel(client.target) as channel:
        stub = learner_pb2_grpc.LearnerServiceStub(channel)
        call = stub.Propagate(iter([learner_pb2.PropagateRequest(header=header(), examples=batch)]))
        assert searching.wait(30)
        call.cancel()
        with pytest.raises(grpc.RpcError):
            next(call)
    go_on.set()
    # One works at a time, so a training begins only when the cancelled one has given up its turn.
    assert not train(client).from_checkpoint
