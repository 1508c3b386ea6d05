"""The data-set oracle reads the truth from metadata, or says where it is missing."""

from typing import Any

import pytest

from scheduler.oracles.dataset import DatasetOracle
from scheduler.oracles.port import OracleJob
from sealpool.errors import FailedPrecondition, Unavailable
from sealpool.types import ItemId, Payload
from sealpool.v1 import common_pb2, scheduler_pb2
from tests.unit.scheduler.fakes import FakeIndex
from tests.unit.scheduler.world import make_spec

X = ItemId("x")


def label(value: object, **changes: Any) -> tuple[int, ...]:
    index = FakeIndex()
    index.pools["pool"] = {X: Payload(metadata={} if value is None else {"truth": value})}
    spec = make_spec(oracle=scheduler_pb2.OracleSpec(name="dataset", metadata_field="truth"), **changes)
    [answers] = DatasetOracle(index).label(OracleJob(campaign="c", spec=spec, snapshot=0, item_ids=[X]))
    return answers[0].classes


def test_a_single_class_is_a_string_or_a_list_of_one() -> None:
    assert label("b") == label(["b"]) == (1,)


def test_a_multilabel_item_has_any_number_of_classes() -> None:
    kind = {"task": common_pb2.TASK_KIND_MULTILABEL}
    assert label([], **kind) == ()
    assert label("a", **kind) == (0,)
    assert label(["b", "a"], **kind) == (0, 1)


@pytest.mark.parametrize("value", [None, "z", ["a", "b"], [], 3, [3], {"a": 1}])
def test_what_is_no_label_is_refused_with_item_and_field(value: object) -> None:
    with pytest.raises(FailedPrecondition, match=r"'truth' of item 'x'"):
        label(value)


def test_held_out_labels_are_all_of_the_evaluation_pool() -> None:
    index = FakeIndex()
    index.add_pool("held-out", 25)
    labels = DatasetOracle(index).held_out(make_spec(evaluation_pool="held-out"))
    assert len(labels) == 25
    assert set(labels.values()) == {(0,), (1,)}


def test_a_wrong_field_shows_in_one_item_of_each_pool() -> None:
    index = FakeIndex()
    index.add_pool("pool", 4)
    index.add_pool("held-out", 4, field="other")
    oracle = DatasetOracle(index)
    oracle.check(make_spec())
    index.pools["empty"] = {}
    oracle.check(make_spec(evaluation_pool="empty"))
    with pytest.raises(
        FailedPrecondition, match=r"pool 'held-out'.*'labels' of item 'held-out-00\d' is missing"
    ) as caught:
        oracle.check(make_spec(evaluation_pool="held-out"))
    assert caught.value.field == "spec.oracle.metadata_field"
    assert index.troubles.calls.count("get_items") == 4


def test_an_index_server_that_is_away_is_no_wrong_label() -> None:
    index = FakeIndex()
    index.add_pool("pool", 1)
    index.troubles.always("get_items", Unavailable("away"))
    with pytest.raises(Unavailable):
        list(
            DatasetOracle(index).label(OracleJob(campaign="c", spec=make_spec(), snapshot=0, item_ids=[ItemId("i000")]))
        )
