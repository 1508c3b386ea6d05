"""CrossPredict: what models say of labelled items whose labels they had not seen."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.folds import assign_folds
from learner.problem import Problem, Task
from sealpool.client import LearnerClient
from sealpool.errors import FailedPrecondition, InvalidArgument, NotFound
from sealpool.types import ItemId, LabelledItems
from sealpool.v1 import common_pb2, learner_pb2
from tests.support.fake_index import FakeIndex
from tests.support.learner_requests import CLASSES, item_ids, labelled, train_header


def cross_predict(
    client: LearnerClient, examples: LabelledItems, *, folds: int = 0, **changes: object
) -> dict[str, list[float]]:
    chunks = list(client.cross_predict(train_header(**changes), examples, folds=folds))
    return {
        item_id: row.tolist() for chunk in chunks for item_id, row in zip(chunk.ids, chunk.probabilities, strict=True)
    }


def test_a_wrong_label_is_doubted_by_the_model_that_did_not_see_it(client: LearnerClient) -> None:
    examples = labelled(range(45))
    wrong = LabelledItems(ids=examples.ids, labels=[[1], *examples.labels[1:]])
    found = cross_predict(client, wrong)
    assert list(found) == list(examples.ids)
    assert found["item-000"][1] < 0.5
    right = [np.argmax(found[item_id]) == number % 3 for number, item_id in enumerate(examples.ids)]
    assert np.mean(right) > 0.85
    np.testing.assert_allclose([sum(row) for row in found.values()], 1, atol=1e-5)


def test_the_prediction_of_an_item_is_that_of_a_model_trained_on_the_other_folds(client: LearnerClient) -> None:
    examples = labelled(range(30))
    found = cross_predict(client, examples, folds=3, seed=4)
    targets = np.array([one[0] for one in examples.labels])
    problem = Problem(task=Task.MULTICLASS, classes=tuple(CLASSES))
    fold = assign_folds(problem, examples.ids, targets, folds=3, seed=4)
    others = [number for number in range(30) if fold[number] != fold[7]]
    client.train(train_header(campaign="by-hand", seed=4), labelled(others))
    (chunk,) = client.predict("by-hand", ids=["item-007"])
    np.testing.assert_allclose(found["item-007"], chunk.probabilities[0], atol=1e-6)


def test_the_order_of_the_examples_changes_nothing_and_no_checkpoint_is_kept(
    client: LearnerClient, tmp_path: Path
) -> None:
    examples = labelled(range(20))
    backwards = labelled(range(19, -1, -1))
    assert cross_predict(client, examples) == cross_predict(client, backwards)
    assert cross_predict(client, examples) != cross_predict(client, examples, seed=2)
    with pytest.raises(NotFound, match="checkpoint"):
        list(client.predict("c", ids=["item-001"]))


def test_items_that_the_pool_no_longer_has_are_left_out(client: LearnerClient, index: FakeIndex) -> None:
    index.delete("item-004")
    found = cross_predict(client, labelled(range(12)))
    assert list(found) == [item_id for item_id in item_ids(range(12)) if item_id != "item-004"]


def test_multilabel_items_are_cross_predicted_too(client: LearnerClient) -> None:
    examples = LabelledItems(ids=item_ids(range(30)), labels=[[n % 3] if n % 4 else [] for n in range(30)])
    found = cross_predict(client, examples, task=common_pb2.TASK_KIND_MULTILABEL)
    assert {len(row) for row in found.values()} == {3}


@pytest.mark.parametrize("folds", [1, 21])
def test_a_number_of_folds_out_of_range_is_refused(client: LearnerClient, folds: int) -> None:
    with pytest.raises(InvalidArgument, match="folds"):
        cross_predict(client, labelled(range(12)), folds=folds)


def test_what_cannot_train_is_said_with_the_fold(client: LearnerClient) -> None:
    with pytest.raises(FailedPrecondition, match="without fold 1"):
        cross_predict(client, labelled([0, 1]))
    with pytest.raises(FailedPrecondition, match="two are needed"):
        cross_predict(client, labelled([0]))
    with pytest.raises(InvalidArgument, match=r"examples\.labels"):
        cross_predict(client, LabelledItems(ids=item_ids([1, 2]), labels=[[7], [0]]))
    with pytest.raises(NotFound, match="pool"):
        cross_predict(client, labelled(range(9)), pool="nowhere")
    with pytest.raises(InvalidArgument, match="header"):
        list(client.cross_predict(learner_pb2.TrainHeader(campaign="c"), labelled(range(9))))


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.sets(st.integers(0, 3), max_size=3), min_size=2, max_size=60),
    folds=st.integers(2, 6),
    seed=st.integers(0, 2**64 - 1),
    multilabel=st.booleans(),
)
def test_folds_are_of_equal_size_and_have_each_class_in_equal_parts(labels, folds, seed, multilabel) -> None:
    ids = [ItemId(f"i{number}") for number in range(len(labels))]
    task = Task.MULTILABEL if multilabel else Task.MULTICLASS
    problem = Problem(task=task, classes=("a", "b", "c", "d"))
    single = np.array([min(some, default=0) for some in labels])
    targets = np.array([[one in some for one in range(4)] for some in labels]) if multilabel else single
    fold = assign_folds(problem, ids, targets, folds=folds, seed=seed)
    sizes = np.bincount(fold, minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    if not multilabel:
        for one in range(4):
            inside = np.bincount(fold[single == one], minlength=folds)
            assert inside.max() - inside.min() <= 1
    turned = assign_folds(problem, ids[::-1], targets[::-1], folds=folds, seed=seed)
    assert (turned[::-1] == fold).all()
