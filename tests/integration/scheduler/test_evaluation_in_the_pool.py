"""Held-out items of the pool itself are drawn once, labelled for evaluation, and kept out of everything else."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from scheduler.domain.active_testing import lure_weights
from scheduler.domain.states import DrawKind
from scheduler.storage import campaigns, drawn_items, test_points
from scheduler.storage.test_points import TestPoint
from sealpool.errors import FailedPrecondition, InvalidArgument, Unavailable
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, scheduler_pb2
from tests.unit.scheduler.world import DATASET, World, make_spec

EVALUATION = scheduler_pb2.LABEL_PURPOSE_EVALUATION
HELD_OUT = scheduler_pb2.EvaluationSpec(items=8)
MIXED = 3
"""A seed of campaigns whose first six items are of both classes, eight being held out."""
ACTIVE = scheduler_pb2.EvaluationSpec(test_pool=20, test_points=3)


def drawn(world: World, kind: DrawKind) -> list[ItemId]:
    with world.scheduler.store.reading() as session:
        return drawn_items.of_kind(session, campaigns.get(session, "c").id, kind)


def points(world: World) -> list[TestPoint]:
    with world.scheduler.store.reading() as session:
        return test_points.every(session, campaigns.get(session, "c").id)


def run(world: World, **changes: Any) -> list[scheduler_pb2.Round]:
    """Run a campaign to its end with the data-set oracle."""
    world.client.create_campaign(make_spec(**{"oracle": DATASET, "budget": 40, **changes}))
    for _ in range(30):
        if world.client.get_campaign("c").state != scheduler_pb2.CAMPAIGN_STATE_ACTIVE:
            break
        world.client.run_round("c")
    return world.client.list_rounds("c")


def trained_on(world: World) -> set[str]:
    return {item for _, examples in world.learner.trained for item in examples.ids}


def test_held_out_items_are_labelled_by_the_oracle_and_measured_and_never_picked(world: World) -> None:
    rounds = run(world, evaluation=HELD_OUT, seed=MIXED)
    held_out = drawn(world, DrawKind.EVALUATION)
    assert len(set(held_out)) == 8
    labelled = [label.item_id for label in world.labels(purpose=EVALUATION)]
    assert sorted(labelled) == sorted(held_out)
    assert not trained_on(world) & set(held_out)
    assert all(set(examples.ids) == set(held_out) for examples in world.learner.evaluated)
    assert [r.quality.items for r in rounds if r.number] == [8] * (len(rounds) - 1)
    campaign = world.client.get_campaign("c")
    assert campaign.state == scheduler_pb2.CAMPAIGN_STATE_COMPLETED
    assert (campaign.evaluation_labels, campaign.labels) == (8, 32)
    for _, _, _, excluded in world.learner.selected:
        assert set(held_out) <= set(excluded)


def test_people_get_held_out_items_as_tasks_for_evaluation(world: World) -> None:
    world.client.create_campaign(make_spec(evaluation=HELD_OUT, budget=40, seed=MIXED))
    world.client.run_round("c")
    tasks = world.client.lease_tasks("c", annotator="ann", max_tasks=50).tasks
    held_out = [task for task in tasks if task.purpose == EVALUATION]
    assert {task.item_id for task in held_out} == set(drawn(world, DrawKind.EVALUATION))
    assert {task.origin for task in held_out} == {common_pb2.PICK_ORIGIN_EVALUATION}
    assert len(tasks) == 6 + 8
    world.client.submit_labels("c", {task.item_id: [world.truth(task.item_id)] for task in tasks}, annotator="ann")
    campaign = world.client.get_campaign("c")
    assert (campaign.labels, campaign.evaluation_labels) == (6, 8)
    assert world.client.run_round("c").round.quality.items == 8


def test_where_the_caller_brings_the_first_labels_the_first_round_holds_out_others(world: World) -> None:
    world.client.create_campaign(make_spec(seed_size=0, evaluation=HELD_OUT, budget=40))
    brought = {f"i{n:03d}": [world.truth(f"i{n:03d}")] for n in range(10)}
    world.client.submit_labels("c", brought, annotator="ann")
    world.client.run_round("c")
    held_out = drawn(world, DrawKind.EVALUATION)
    assert len(held_out) == 8
    assert not set(held_out) & set(brought)
    assert set(held_out) <= set(world.learner.selected[0][3])


def test_a_pool_that_holding_out_would_empty_is_told_before_anything_is_drawn(world: World) -> None:
    world.index.add_pool("pool", 12)
    with pytest.raises(FailedPrecondition, match="hold out 8 of the 12 items"):
        run(world, evaluation=HELD_OUT)


def test_test_points_are_labelled_and_estimate_the_model_with_their_weights(world: World) -> None:
    rounds = run(world, evaluation=ACTIVE)
    pool, chosen = drawn(world, DrawKind.TEST_POOL), points(world)
    assert len(set(pool)) == 20
    assert len({point.item_id for point in chosen}) == len(chosen) > 3
    assert {point.item_id for point in chosen} <= set(pool)
    assert not trained_on(world) & set(pool)
    assert world.learner.evaluated == []
    assert not rounds[1].HasField("active_test")
    last = rounds[-1]
    said = np.concatenate(
        [p.probabilities for p in world.learner.predict("c", round=last.number, ids=[p.item_id for p in chosen])]
    )
    truth = np.array(["ab".index(world.truth(point.item_id)) for point in chosen])
    weights = lure_weights([point.probability for point in chosen], pool=20)
    accuracy = 1 - float((weights * (said.argmax(axis=1) != truth)).mean())
    assert last.active_test.accuracy == pytest.approx(accuracy)
    assert (last.active_test.points, last.active_test.pool) == (len(chosen), 20)
    assert last.active_test.accuracy_low <= accuracy <= last.active_test.accuracy_high
    assert last.active_test.log_loss > 0
    campaign = world.client.get_campaign("c")
    assert campaign.labels + campaign.evaluation_labels <= 40


def test_quality_on_held_out_items_is_not_biased_by_test_points(world: World) -> None:
    both = scheduler_pb2.EvaluationSpec(items=8, test_pool=12, test_points=2)
    rounds = run(world, evaluation=both, seed=MIXED)
    held_out, pool = drawn(world, DrawKind.EVALUATION), drawn(world, DrawKind.TEST_POOL)
    assert not set(held_out) & set(pool)
    assert all(set(examples.ids) == set(held_out) for examples in world.learner.evaluated)
    assert rounds[-1].quality.items == 8
    assert rounds[-1].active_test.points > 0


def test_items_of_the_test_pool_are_neither_labelled_for_training_nor_picked(world: World) -> None:
    world.client.create_campaign(make_spec(evaluation=ACTIVE, budget=40))
    world.client.run_round("c")
    pool = drawn(world, DrawKind.TEST_POOL)
    for item in pool:
        with pytest.raises(InvalidArgument, match="is held out for evaluation"):
            world.client.submit_labels("c", {item: [world.truth(item)]}, annotator="ann")
    world.label()
    world.client.run_round("c")
    assert len(trained_on(world)) == 6
    assert set(pool) <= set(world.learner.selected[-1][3])


def test_points_behind_one_whose_label_is_missing_are_left_aside(world: World) -> None:
    world.client.create_campaign(make_spec(evaluation=ACTIVE, budget=40))
    for _ in range(2):
        world.client.run_round("c")
        leased = world.client.lease_tasks("c", annotator="ann", max_tasks=50).tasks
        ours = [task.item_id for task in leased if task.purpose != EVALUATION]
        world.client.submit_labels("c", {item: [world.truth(item)] for item in ours}, annotator="ann")
    first, second, third = (point.item_id for point in points(world))
    world.client.submit_labels("c", {item: [world.truth(item)] for item in (second, third)}, annotator="ann")
    assert not world.client.run_round("c").round.HasField("active_test")
    world.label()
    world.client.submit_labels("c", {first: [world.truth(first)]}, annotator="ann")
    assert world.client.run_round("c").round.active_test.points >= 3


@pytest.mark.parametrize("evaluation", [HELD_OUT, ACTIVE])
def test_a_round_that_was_cut_off_holds_out_and_tests_the_same(
    make_world: Callable[..., World], evaluation: scheduler_pb2.EvaluationSpec
) -> None:
    found = []
    for is_cut in (False, True):
        world = make_world()
        cuts = ("sample_items", "get_pool", "get_items", "sample_items", "get_items") if is_cut else ()
        world.client.create_campaign(
            make_spec(evaluation=evaluation, oracle=DATASET, budget=25, batch_size=15, seed=MIXED)
        )
        for method in cuts:
            world.index.troubles.once(method, Unavailable("away"))
        times = 0
        while world.client.get_campaign("c").state == scheduler_pb2.CAMPAIGN_STATE_ACTIVE:
            try:
                world.client.run_round("c")
            except Unavailable:
                times += 1
                world.restart()
        assert bool(times) == is_cut  # a restarted scheduler goes on by itself, so not each is met by a call
        held_out = (drawn(world, DrawKind.EVALUATION), drawn(world, DrawKind.TEST_POOL))
        found.append((held_out, points(world), world.picks(), world.client.list_rounds("c")[-1].active_test))
    assert found[0] == found[1]


def test_a_campaign_that_holds_nothing_out_asks_for_nothing_more(world: World) -> None:
    run(world, budget=20)
    assert world.learner.troubles.calls.count("predict") == 0
    assert world.index.troubles.calls.count("sample_items") == 2  # one to check the oracle
    assert world.index.troubles.calls.count("get_items") == 5  # one to check the oracle, one a batch that it labels
