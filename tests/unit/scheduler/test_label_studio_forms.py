"""What Label Studio is told and what it says, without one."""

from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from scheduler.domain.answers import Answer
from scheduler.domain.states import Outcome
from scheduler.label_studio.answers import MAX_COMMENT_BYTES, Unreadable, answer_of
from scheduler.label_studio.api import TheirAnnotation, version_of
from scheduler.label_studio.labelling_config import labelling_config
from scheduler.label_studio.linking import sampling_of
from scheduler.label_studio.predictions import prediction
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, scheduler_pb2
from tests.support.label_studio_server import choice_result, comment_result
from tests.unit.scheduler.world import make_spec

MULTILABEL = common_pb2.TASK_KIND_MULTILABEL
# What XML can say at all; class names with control characters cannot be shown by any form.
NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="￾￿"), min_size=1)


def annotation(*result: dict[str, Any], was_skipped: bool = False) -> TheirAnnotation:
    return TheirAnnotation(id=1, version="v", user_id=1, was_skipped=was_skipped, result=result)


@given(st.lists(NAMES, min_size=2, unique=True))
def test_any_class_name_is_a_choice_of_the_form(classes: list[str]) -> None:
    form = ET.fromstring(labelling_config(make_spec(classes=classes), shown="text"))
    assert [choice.get("value") for choice in form.findall("Choices[@name='label']/Choice")] == classes


@pytest.mark.parametrize(
    ("task", "given_result", "expected"),
    [
        (None, [choice_result("label", "b")], Answer(item_id=ItemId("i"), classes=(1,))),
        (MULTILABEL, [choice_result("label", "b", "a")], Answer(item_id=ItemId("i"), classes=(0, 1))),
        (MULTILABEL, [], Answer(item_id=ItemId("i"))),
        (None, [], Answer(item_id=ItemId("i"), outcome=Outcome.CANNOT_TELL)),
        (
            MULTILABEL,
            [choice_result("label", "a"), choice_result("cannot_tell", "Cannot tell")],
            Answer(item_id=ItemId("i"), outcome=Outcome.CANNOT_TELL),
        ),
        (
            None,
            [comment_result("so"), choice_result("label", "a")],
            Answer(item_id=ItemId("i"), classes=(0,), comment="so"),
        ),
        (None, [choice_result("label", "a", "b")], Unreadable(problem="names several classes")),
        (None, [choice_result("label", "z")], Unreadable(problem="names a class that the campaign does not have")),
        (None, [{"from_name": "label", "value": 3}], Answer(item_id=ItemId("i"), outcome=Outcome.CANNOT_TELL)),
    ],
)
def test_an_annotation_is_read_as_the_form_means_it(
    task: common_pb2.TaskKind.ValueType | None, given_result: list[dict[str, Any]], expected: Answer | Unreadable
) -> None:
    spec = make_spec(**({} if task is None else {"task": task}))
    assert answer_of(spec, ItemId("i"), annotation(*given_result)) == expected


def test_a_skip_is_a_skip_whatever_was_ticked_before() -> None:
    skipped = annotation(choice_result("label", "a"), was_skipped=True)
    assert answer_of(make_spec(), ItemId("i"), skipped) == Answer(item_id=ItemId("i"), outcome=Outcome.SKIP)


def test_half_a_character_in_a_comment_can_be_kept() -> None:
    found = answer_of(make_spec(), ItemId("i"), annotation(comment_result("so \ud800"), choice_result("label", "a")))
    assert isinstance(found, Answer)
    assert found.comment == "so ?"


def test_a_long_comment_is_cut_between_characters() -> None:
    answer = answer_of(make_spec(), ItemId("i"), annotation(choice_result("label", "a"), comment_result("ü" * 9_000)))
    assert isinstance(answer, Answer)
    assert answer.comment == "ü" * (MAX_COMMENT_BYTES // 2)


@given(arrays.arrays(np.float32, st.integers(2, 6), elements=st.floats(0, 1, width=32)))
def test_a_prediction_of_one_class_is_the_likeliest_and_as_sure(probabilities: np.ndarray[Any, Any]) -> None:
    classes = [f"c{i}" for i in range(len(probabilities))]
    made = prediction(make_spec(classes=classes), 4, classes, probabilities)
    assert made["model_version"] == "c/4"
    assert made["score"] == max(probabilities)
    (chosen,) = made["result"][0]["value"]["choices"]
    assert probabilities[classes.index(chosen)] == max(probabilities)


@given(arrays.arrays(np.float32, 3, elements=st.floats(0, 1, width=32)))
def test_a_prediction_of_labels_is_as_sure_as_its_least_sure_one(probabilities: np.ndarray[Any, Any]) -> None:
    made = prediction(make_spec(task=MULTILABEL, classes=["x", "y", "z"]), 1, ["x", "y", "z"], probabilities)
    holding = [name for name, p in zip("xyz", probabilities, strict=True) if p > 0.5]
    assert [name for result in made["result"] for name in result["value"]["choices"]] == holding
    assert made["score"] == pytest.approx(0.5 + min(abs(float(p) - 0.5) for p in probabilities), abs=1e-6)


def test_where_sure_items_are_wanted_label_studio_keeps_our_order() -> None:
    searching = scheduler_pb2.CampaignSpec(strategy=common_pb2.StrategySpec(name="most_likely_positive"))
    assert sampling_of(searching) == "Sequential sampling"
    assert sampling_of(scheduler_pb2.CampaignSpec()) == "Uncertainty sampling"


def test_versions_order_as_texts_as_they_do_in_time() -> None:
    times = ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z", "2026-01-01T01:00:01+01:00", "2026-01-01T00:00:02Z"]
    assert [version_of(time) for time in times] == sorted(version_of(time) for time in times)
