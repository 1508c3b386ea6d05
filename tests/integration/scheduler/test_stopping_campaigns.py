"""Surveys after each model, what they recommend, and a campaign that ends by them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from scheduler.domain.states import DrawKind
from scheduler.storage import campaigns, drawn_items
from sealpool.errors import Unavailable
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, scheduler_pb2
from tests.integration.scheduler.test_evaluation_in_the_pool import ACTIVE
from tests.unit.scheduler.world import DATASET, World, make_spec

EVER_MET = {"overall_uncertainty": 1.0}


def run(world: World, rounds: int, **changes: Any) -> list[scheduler_pb2.Round]:
    world.client.create_campaign(make_spec(**{"oracle": DATASET, "budget": 60, **changes}))
    for _ in range(rounds):
        if world.client.get_campaign("c").state == scheduler_pb2.CAMPAIGN_STATE_ACTIVE:
            world.client.run_round("c")
    return world.client.list_rounds("c")


def stopping(**fields: Any) -> scheduler_pb2.StoppingSpec:
    return scheduler_pb2.StoppingSpec(**{"stop_set": 30, **fields})


def stop_set(world: World) -> list[ItemId]:
    with world.scheduler.store.reading() as session:
        return drawn_items.of_kind(session, campaigns.get(session, "c").id, DrawKind.STOP_SET)


def said(world: World, number: int, items: list[ItemId]) -> NDArray[np.float32]:
    return np.concatenate([p.probabilities for p in world.learner.predict("c", round=number, ids=items)])


def test_each_model_is_asked_about_the_same_items_and_compared_with_the_one_before(world: World) -> None:
    rounds = run(world, 4, stopping=stopping())
    items = stop_set(world)
    assert len(set(items)) == 30
    assert not rounds[0].HasField("survey")
    for number in (1, 2, 3):
        survey, now = rounds[number].survey, said(world, number, items)
        entropy = -(now * np.log2(now)).sum(axis=1)
        assert survey.items == 30
        assert survey.mean_uncertainty == pytest.approx(entropy.mean(), rel=1e-5)
        assert len(survey.uncertainty_counts) == 20
        assert sum(survey.uncertainty_counts) == 30
        assert list(survey.predicted_counts) == np.bincount(now.argmax(axis=1), minlength=2).tolist()
        assert not survey.recommends_stop
        assert survey.reason == ""
    assert math.isnan(rounds[1].survey.kappa)
    before, now = (said(world, number, items).argmax(axis=1) for number in (2, 3))
    assert rounds[3].survey.classification_change == pytest.approx((before != now).mean())
    agreed = (before == now).mean()
    chance = sum((before == c).mean() * (now == c).mean() for c in (0, 1))
    assert rounds[3].survey.kappa == pytest.approx((agreed - chance) / (1 - chance))


def test_items_that_left_the_pool_are_left_out_of_a_survey(world: World) -> None:
    run(world, 2, stopping=stopping())
    gone = stop_set(world)[3:7]
    for item in gone:
        del world.index.pools["pool"][item]
    survey = world.client.run_round("c").round.survey
    assert survey.items == 26
    left = [item for item in stop_set(world) if item not in gone]
    before, now = (said(world, number, left).argmax(axis=1) for number in (1, 2))
    assert survey.classification_change == pytest.approx((before != now).mean())


def test_a_recommendation_is_shown_and_the_campaign_goes_on(world: World) -> None:
    rounds = run(world, 4, stopping=stopping(**EVER_MET, patience=2))
    assert [r.survey.recommends_stop for r in rounds] == [False, False, True, True]
    assert [v.rounds_met for v in rounds[3].survey.verdicts] == [3]
    assert "mean uncertainty" in rounds[2].survey.reason
    assert world.client.get_campaign("c").state == scheduler_pb2.CAMPAIGN_STATE_ACTIVE
    assert rounds[3].picks == 5


def test_a_campaign_that_is_told_to_stop_ends_without_another_batch(world: World) -> None:
    rounds = run(world, 9, stopping=stopping(**EVER_MET, patience=2, complete=True), evaluation=ACTIVE)
    campaign = world.client.get_campaign("c")
    assert campaign.state == scheduler_pb2.CAMPAIGN_STATE_COMPLETED
    assert "mean uncertainty on the stop set of at most 1 for 2 rounds in a row" in campaign.state_reason
    assert [r.picks for r in rounds] == [6, 5, 0]
    assert rounds[-1].state == scheduler_pb2.ROUND_STATE_FINISHED
    assert (campaign.open_tasks, campaign.labels, campaign.evaluation_labels) == (0, 11, 3)


def test_a_target_is_met_on_held_out_items(world: World) -> None:
    spec = stopping(target_score=0.5, patience=1)
    rounds = run(world, 2, evaluation_pool="held-out", stopping=spec)
    [verdict] = rounds[1].survey.verdicts
    assert (verdict.criterion, verdict.value, verdict.rounds_met) == ("target_score", 0.5, 1)
    assert rounds[1].survey.reason == "accuracy of at least 0.5 for this round (now 0.5)"


def test_a_survey_that_was_cut_off_comes_out_the_same(make_world: Callable[..., World]) -> None:
    found = []
    for is_cut in (False, True):
        world = make_world()
        if is_cut:
            run(world, 1, stopping=stopping())
            world.index.troubles.once("get_items", Unavailable("away"))
            with pytest.raises(Unavailable):
                world.client.run_round("c")
            world.restart()
            while world.client.get_campaign("c").rounds < 4:  # the round that was cut off may end by itself
                world.client.run_round("c")
        else:
            run(world, 4, stopping=stopping())
        found.append((stop_set(world), [r.survey.SerializeToString() for r in world.client.list_rounds("c")]))
    assert found[0] == found[1]


def test_a_multilabel_campaign_is_surveyed_label_by_label(world: World) -> None:
    changes: dict[str, Any] = {"task": common_pb2.TASK_KIND_MULTILABEL, "classes": ["a", "b"], "stopping": stopping()}
    rounds = run(world, 3, **changes)
    items = stop_set(world)
    before, now = (said(world, number, items) > 0.5 for number in (1, 2))
    assert rounds[2].survey.classification_change == pytest.approx((before != now).any(axis=1).mean())
    assert list(rounds[2].survey.predicted_counts) == now.sum(axis=0).tolist()


def test_surveys_and_test_points_are_exported(world: World) -> None:
    run(world, 3, stopping=stopping(**EVER_MET, patience=1), evaluation=ACTIVE)
    last = world.client.list_rounds("c")[-1]
    read = world.registry.get_sample_value
    labels = {"campaign": "c"}
    assert read("sealpool_scheduler_survey_uncertainty_ratio", labels) == last.survey.mean_uncertainty
    assert read("sealpool_scheduler_survey_kappa_ratio", labels) == last.survey.kappa
    assert read("sealpool_scheduler_survey_recommends_stop", labels) == 1
    assert read("sealpool_scheduler_active_test_accuracy_ratio", labels) == last.active_test.accuracy
    assert read("sealpool_scheduler_evaluation_labels", labels) == 6
    counts = [read("sealpool_scheduler_class_items", {**labels, "class": name}) for name in ("a", "b")]
    assert counts == list(last.class_counts)
