"""States of a round, what the next round is, its seeds, and which labels can train."""

from itertools import product
from typing import Any

import pytest

from scheduler.domain.labels import ClassIndex, why_untrainable
from scheduler.domain.planning import Facts, Plan, plan_round, rule_fires
from scheduler.domain.seeds import Purpose, derive_seed
from scheduler.domain.states import ENDED, FIRST_STATE, NEXT_STATES, RoundKind, RoundState, check_transition
from sealpool.errors import FailedPrecondition, InvalidArgument
from sealpool.v1 import common_pb2, scheduler_pb2
from tests.unit.scheduler.world import make_spec

K_CENTER = make_spec(strategy=common_pb2.StrategySpec(name="k_center"))
MULTILABEL = {"task": common_pb2.TASK_KIND_MULTILABEL, "classes": ["a", "b"]}


@pytest.mark.parametrize(("before", "after"), [*product(RoundState, RoundState)])
def test_only_transitions_of_the_table_are_possible(before: RoundState, after: RoundState) -> None:
    if after in NEXT_STATES[before]:
        check_transition(before, after)
    else:
        with pytest.raises(AssertionError, match="a round goes from"):
            check_transition(before, after)


def test_every_round_can_end_and_every_state_that_has_not_ended_can_fail() -> None:
    assert {RoundState.FINISHED, RoundState.FAILED} == ENDED
    assert all(RoundState.FAILED in NEXT_STATES[state] for state in RoundState if state not in ENDED)
    reached = set(FIRST_STATE.values())
    for _ in RoundState:
        reached |= {after for state in reached for after in NEXT_STATES[state]}
    assert reached == set(RoundState)


def facts(**changes: Any) -> Facts:
    fields: dict[str, Any] = {
        "spec": make_spec(),
        "batch": 5,
        "labelled": 6,
        "outstanding": 0,
        "arrived": 6,
        "seeded": True,
        "why_untrainable": "",
        "oracle_is_automatic": False,
    }
    merged = {**fields, **changes}
    return Facts(**{**merged, "why_untrainable": lambda: merged["why_untrainable"]})


@pytest.mark.parametrize(
    ("changes", "kind", "batch"),
    [
        ({"labelled": 0, "arrived": 0, "seeded": False}, RoundKind.SEED, 6),
        ({"labelled": 17, "arrived": 17, "seeded": False}, RoundKind.SEED, 3),
        ({"labelled": 20, "arrived": 20, "seeded": False}, RoundKind.FINAL, 0),
        ({}, RoundKind.MODEL, 5),
        ({"labelled": 17}, RoundKind.MODEL, 3),
        ({"labelled": 12, "outstanding": 6}, RoundKind.MODEL, 2),
        ({"labelled": 12, "outstanding": 9}, RoundKind.MODEL, 0),
        ({"labelled": 20}, RoundKind.FINAL, 0),
        ({"why_untrainable": "one class", "oracle_is_automatic": True}, RoundKind.WITHOUT_MODEL, 5),
        ({"why_untrainable": "one class", "oracle_is_automatic": True, "labelled": 19}, RoundKind.WITHOUT_MODEL, 1),
        ({"why_untrainable": "one class", "spec": K_CENTER}, RoundKind.WITHOUT_MODEL, 5),
        ({"why_untrainable": "one class", "spec": K_CENTER, "labelled": 17}, RoundKind.WITHOUT_MODEL, 3),
        ({"spec": K_CENTER}, RoundKind.MODEL, 5),
        ({"batch": 2}, RoundKind.MODEL, 2),
        ({"why_untrainable": "one class", "labelled": 20, "oracle_is_automatic": True}, RoundKind.WITHOUT_MODEL, 0),
        ({"evaluation_labelled": 14}, RoundKind.FINAL, 0),
        ({"arrived": 0, "labelled": 12, "evaluation_labelled": 8}, RoundKind.FINAL, 0),
        ({"evaluation_labelled": 4, "reserved": 7}, RoundKind.MODEL, 3),
        ({"reserved": 14}, RoundKind.MODEL, 0),
        ({"labelled": 0, "arrived": 0, "seeded": False, "reserved": 16}, RoundKind.SEED, 4),
        ({"arrived": 0, "idle": True}, RoundKind.MODEL, 5),
        ({"batch": 2, "oracle_is_automatic": True, "why_untrainable": "one class"}, RoundKind.WITHOUT_MODEL, 2),
        (
            {"arrived": 0, "outstanding": 6, "for_oracle": 6, "oracle_is_automatic": True, "why_untrainable": "none"},
            RoundKind.WITHOUT_MODEL,
            5,
        ),
    ],
)
def test_the_next_round_follows_from_the_facts(changes: dict[str, Any], kind: RoundKind, batch: int) -> None:
    assert plan_round(facts(**changes)) == Plan(kind=kind, batch=batch)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arrived": 0}, "no label has arrived"),
        ({"arrived": 0, "outstanding": 5}, "no label has arrived since the last round$"),
        (
            {"arrived": 0, "outstanding": 14},
            "no label has arrived since the last round; 14 tasks are handed out and not labelled: "
            "with the 6 labels they take up the budget of 20; label them",
        ),
        ({"arrived": 0, "outstanding": 11}, "they take all but 3 of the budget of 20"),
        (
            {"arrived": 0, "outstanding": 4, "reserved": 10, "idle": True},
            "4 tasks are handed out and not labelled, and 10 labels are kept for evaluation: with the 6 labels they "
            "take up the budget of 20; label them",
        ),
        ({"arrived": 0, "oracle_is_automatic": True}, "no label has arrived"),
        ({"why_untrainable": "one class"}, "cannot train a model: one class"),
        ({"why_untrainable": "one class", "spec": K_CENTER, "labelled": 18, "outstanding": 2}, "cannot train a model"),
        ({"why_untrainable": "one class", "labelled": 20}, "cannot train a model"),
    ],
)
def test_where_there_is_nothing_to_do_the_message_says_why(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FailedPrecondition, match=message):
        plan_round(facts(**changes))


@pytest.mark.parametrize(
    ("after_labels", "arrived", "spent", "idle", "fires"),
    [
        (0, 9, 20, True, False),
        (5, 4, 9, False, False),
        (5, 5, 9, False, True),
        (5, 2, 20, False, True),
        (5, 0, 20, False, True),
        (5, 0, 9, True, True),
        (5, 4, 9, True, True),
        (8, 5, 9, True, False),
    ],
)
def test_the_label_rule_fires_when_enough_arrived_or_no_more_will(
    after_labels: int, arrived: int, spent: int, idle: bool, fires: bool
) -> None:
    spec = make_spec(rule=scheduler_pb2.RoundRule(after_labels=after_labels))
    assert rule_fires(spec, arrived=arrived, spent=spent, idle=idle, whole_batch=5) is fires


def test_seeds_are_the_same_for_ever_and_differ_by_round_and_purpose() -> None:
    assert derive_seed(42, 3, Purpose.TRAIN) == GOLDEN_SEED
    seeds = {derive_seed(s, r, p) for s in (0, 42, 2**64 - 1) for r in range(20) for p in Purpose}
    assert len(seeds) == 3 * 20 * len(Purpose)
    assert all(0 <= seed < 2**64 for seed in seeds)


GOLDEN_SEED = 16072172883915923394


@pytest.mark.parametrize(
    ("changes", "labels", "problem"),
    [
        ({}, [], "no item is labelled"),
        ({}, [(1,), (1,)], "all 2 labelled items are of class 'b': label one that differs"),
        ({}, [(0,), (1,)], ""),
        (MULTILABEL, [(), ()], "the same classes"),
        (MULTILABEL, [(0, 1), (0, 1)], "the same classes"),
        (MULTILABEL, [(0,), ()], ""),
        (MULTILABEL, [(0,), (0, 1)], ""),
    ],
)
def test_labels_train_once_they_differ(changes: dict[str, Any], labels: list[tuple[int, ...]], problem: str) -> None:
    found = why_untrainable(make_spec(**changes), labels)
    assert problem in found
    assert bool(found) == bool(problem)


@pytest.mark.parametrize(
    ("changes", "names"),
    [({}, []), ({}, ["a", "b"]), ({}, ["z"]), (MULTILABEL, ["a", "a"]), (MULTILABEL, ["a", "z"])],
)
def test_classes_that_the_task_does_not_allow_are_refused(changes: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        ClassIndex(make_spec(**changes)).indices("labels[0].classes", names)
    assert caught.value.field == "labels[0].classes"


def test_classes_become_indices_in_ascending_order() -> None:
    assert ClassIndex(make_spec()).indices("f", ["b"]) == (1,)
    multilabel = ClassIndex(make_spec(**MULTILABEL))
    assert multilabel.indices("f", ["b", "a"]) == (0, 1)
    assert multilabel.indices("f", []) == ()
