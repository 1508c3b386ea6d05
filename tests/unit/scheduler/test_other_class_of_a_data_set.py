"""A data set of many classes can be asked "is it X?"."""

from typing import Any

import pytest

from scheduler.oracles.dataset import DatasetOracle
from scheduler.oracles.port import OracleJob
from sealpool.errors import FailedPrecondition
from sealpool.types import ItemId, Payload
from sealpool.v1 import common_pb2, scheduler_pb2
from tests.unit.scheduler.fakes import FakeIndex
from tests.unit.scheduler.world import make_spec

X = ItemId("x")


def label(value: object, **changes: Any) -> tuple[int, ...]:
    index = FakeIndex()
    index.pools["pool"] = {X: Payload(metadata={} if value is None else {"labels": value})}
    oracle = scheduler_pb2.OracleSpec(name="dataset", other_class="other")
    spec = make_spec(**{"oracle": oracle, "classes": ["other", "seal"], **changes})
    [answers] = DatasetOracle(index).label(OracleJob(campaign="c", spec=spec, snapshot=0, item_ids=[X]))
    return answers[0].classes


@pytest.mark.parametrize(
    ("value", "expected"),
    [("seal", 1), ("walrus", 0), ("other", 0), ([], 0), (["walrus", "whale"], 0), (["walrus", "seal"], 1)],
)
def test_an_item_is_of_the_class_if_it_has_it_and_else_of_the_other(value: object, expected: int) -> None:
    assert label(value) == (expected,)


def test_the_class_counts_beside_the_other_and_when_it_is_said_twice() -> None:
    assert label(["other", "seal"]) == (1,)
    assert label(["seal", "seal"]) == (1,)


def test_several_labels_are_kept_as_far_as_they_are_the_campaigns() -> None:
    several = {"task": common_pb2.TASK_KIND_MULTILABEL, "classes": ["seal", "whale", "other"]}
    assert label(["whale", "walrus", "seal"], **several) == (0, 1)
    assert label(["walrus"], **several) == (2,)


def test_two_classes_of_a_campaign_that_takes_one_are_still_an_error() -> None:
    kind = {"task": common_pb2.TASK_KIND_MULTICLASS, "classes": ["seal", "whale", "other"]}
    with pytest.raises(FailedPrecondition, match="exactly one"):
        label(["seal", "whale"], **kind)


def test_an_item_without_the_field_is_still_an_error() -> None:
    with pytest.raises(FailedPrecondition, match="is missing"):
        label(None)
