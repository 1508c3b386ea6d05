"""Whatever becomes of what was handed out, a campaign goes on to its end, or waits for something that can come."""

from typing import Any

import pytest

from scheduler.domain.states import LabelPurpose
from scheduler.storage import campaigns, tasks
from sealpool.client import ClientOptions, StreamClient, stream_item
from sealpool.errors import FailedPrecondition
from sealpool.types import ItemId
from sealpool.v1 import learner_pb2, stream_pb2
from sealpool.v1 import scheduler_pb2 as pb
from tests.unit.scheduler.world import DATASET, World, make_spec

EVALUATION = pb.LABEL_PURPOSE_EVALUATION
GIVE_UP_AT_ONCE = pb.AnnotationSpec(give_up_after=1)
STREAM = pb.StreamSpec(
    threshold=pb.STREAM_THRESHOLD_FIXED, uncertainty=1e-6, budget_share=1, encoder=learner_pb2.EmbedHeader(encoder="e")
)


def give_up(world: World, items: list[str], annotator: str = "ann") -> None:
    world.client.submit_annotations(
        "c", [pb.NewLabel(item_id=i, outcome=pb.ANNOTATION_OUTCOME_CANNOT_TELL) for i in items], annotator=annotator
    )


def leased(world: World, purpose: int = pb.LABEL_PURPOSE_TRAINING) -> list[str]:
    tasks = world.client.lease_tasks("c", annotator="ann", max_tasks=100, lease_s=1).tasks
    world.clock.advance(2)
    return [task.item_id for task in tasks if task.purpose == purpose]


def submit(world: World, items: list[str]) -> None:
    world.client.submit_labels("c", {item: [world.truth(item)] for item in items}, annotator="ann")


def small_pool(world: World, count: int) -> None:
    for item in list(world.index.pools["pool"])[count:]:
        del world.index.pools["pool"][item]


def settle(world: World) -> None:
    """Let rules do what they ask for now."""
    for _ in range(100):
        world.scheduler._house.keep()
        running = world.scheduler.pool._running.get("c")
        before = rounds(world)
        if running is not None:
            running.exception(timeout=20)
        if rounds(world) == before and not world.scheduler.pool._running:
            return
    raise AssertionError("rules ask for round after round")


def rounds(world: World) -> int:
    return len(world.client.list_rounds("c"))


def test_a_batch_of_which_a_part_is_given_up_is_enough_for_the_label_rule(world: World) -> None:
    world.client.create_campaign(make_spec(rule=pb.RoundRule(after_labels=5), annotation=GIVE_UP_AT_ONCE))
    world.client.run_round("c")
    submit(world, leased(world))
    settle(world)
    batch = leased(world)
    assert len(batch) == 5
    submit(world, batch[:4])
    settle(world)
    assert rounds(world) == 2
    give_up(world, batch[4:])
    settle(world)
    assert rounds(world) == 3


def test_a_last_batch_that_the_pool_cuts_short_is_trained_on_and_ends_the_campaign(world: World) -> None:
    small_pool(world, 13)
    world.client.create_campaign(make_spec(rule=pb.RoundRule(after_labels=5), oracle=DATASET, budget=40))
    world.client.run_round("c")
    settle(world)
    campaign = world.client.get_campaign("c")
    assert (campaign.state, campaign.labels) == (pb.CAMPAIGN_STATE_COMPLETED, 13)


def test_a_budget_that_is_free_again_as_held_out_items_were_given_up_is_used(world: World) -> None:
    evaluation = pb.EvaluationSpec(items=4)
    world.client.create_campaign(
        make_spec(budget=10, annotation=GIVE_UP_AT_ONCE, evaluation=evaluation, rule=pb.RoundRule(after_labels=5))
    )
    world.client.run_round("c")
    held_out = leased(world, EVALUATION)
    submit(world, leased(world))
    settle(world)
    assert [r.picks for r in world.client.list_rounds("c")] == [6, 0]
    submit(world, held_out[1:])
    give_up(world, held_out[:1])
    settle(world)
    assert [r.picks for r in world.client.list_rounds("c")] == [6, 0, 1]


@pytest.mark.parametrize("fill", [pb.FILL_RANDOM, pb.FILL_NONE])
def test_a_campaign_that_had_learnt_enough_goes_on_with_a_larger_budget(world: World, fill: Any) -> None:
    stop = pb.StoppingSpec(stop_set=20, overall_uncertainty=1, patience=1, complete=True)
    spec = make_spec(stopping=stop, fill=fill)
    world.client.create_campaign(spec)
    world.client.run_round("c")
    submit(world, leased(world))
    world.client.run_round("c")
    assert world.client.get_campaign("c").state == pb.CAMPAIGN_STATE_COMPLETED
    world.client.draw_audit("c", items=2)
    submit(world, [t.item_id for t in world.client.lease_tasks("c", annotator="x", max_tasks=9).tasks])
    spec.budget, spec.stopping.complete = 30, False
    world.client.update_campaign(spec)
    assert world.client.run_round("c").round.picks == 5


def test_a_round_begun_without_new_labels_that_failed_may_be_begun_again(world: World) -> None:
    world.client.create_campaign(make_spec(budget=6))
    world.client.run_round("c")
    submit(world, leased(world))
    world.client.run_round("c")
    assert world.client.get_campaign("c").state == pb.CAMPAIGN_STATE_COMPLETED
    world.client.update_campaign(make_spec(budget=20))
    world.learner.troubles.once("select", FailedPrecondition("broken"))
    with pytest.raises(FailedPrecondition, match="broken"):
        world.client.run_round("c")
    assert world.client.run_round("c").round.picks == 5


def test_a_stream_campaign_whose_pool_is_exhausted_waits_for_items_without_training_again(world: World) -> None:
    small_pool(world, 12)
    spec = make_spec(rule=pb.RoundRule(after_labels=5), oracle=DATASET, budget=40, stream=STREAM)
    world.client.create_campaign(spec)
    world.client.run_round("c")
    settle(world)
    before = rounds(world)
    settle(world)
    assert rounds(world) == before
    assert world.client.get_campaign("c").state == pb.CAMPAIGN_STATE_ACTIVE


def test_items_of_a_stream_that_wait_for_the_campaigns_own_oracle_are_labelled_soon(world: World) -> None:
    spec = make_spec(rule=pb.RoundRule(after_labels=50), oracle=DATASET, budget=40, stream=STREAM)
    world.client.create_campaign(spec)
    world.client.run_round("c")
    world.client.run_round("c")
    with StreamClient(world.server.address, options=ClientOptions(retry_for_s=0, timeout_s=20)) as client:
        item = stream_item("new", text="new", metadata={"labels": "a"})
        assert client.consider_batch("c", [item])[0].asked
    settle(world)
    assert "new" in {label.item_id for label in world.labels()}


def test_a_pool_whose_every_item_was_labelled_before_the_first_round_is_trained_on(world: World) -> None:
    small_pool(world, 10)
    world.client.create_campaign(make_spec())
    submit(world, list(world.index.pools["pool"]))
    assert world.client.run_round("c").round.picks == 0
    answer = world.client.run_round("c")
    assert (answer.round.labels, answer.campaign_state) == (10, pb.CAMPAIGN_STATE_COMPLETED)


def test_a_data_set_that_can_never_train_a_model_ends_its_campaign(world: World) -> None:
    world.index.add_pool("pool", 13, classes=("a",))
    world.client.create_campaign(make_spec(oracle=DATASET, rule=pb.RoundRule(after_labels=1), budget=40))
    world.client.run_round("c")
    settle(world)
    campaign = world.client.get_campaign("c")
    assert campaign.state == pb.CAMPAIGN_STATE_COMPLETED
    assert campaign.state_reason == (
        "its pool has nothing left to label, and the labels cannot train a model: all 13 labelled items are of class "
        "'a': label one that differs"
    )


def test_a_stale_batch_leaves_a_campaign_that_goes_on_beside_an_open_audit(world: World) -> None:
    rule = pb.RoundRule(after_labels=5, open_rounds=1)
    world.client.create_campaign(make_spec(rule=rule, annotation=GIVE_UP_AT_ONCE))
    world.client.run_round("c")
    submit(world, leased(world))
    settle(world)
    world.client.draw_audit("c", items=2)
    with world.scheduler.store.writing() as session:  # as a kill between a commit and its rule leaves it
        campaign = campaigns.lock(session, "c")
        tasks.withdraw_items(session, campaign.id, tasks.outstanding(session, campaign.id))
    settle(world)
    assert rounds(world) == 3


def test_a_campaign_that_fills_nothing_ends_when_its_pool_has_nothing_left(world: World) -> None:
    small_pool(world, 13)
    world.client.create_campaign(make_spec(oracle=DATASET, budget=40, fill=pb.FILL_NONE))
    for _ in range(4):
        answer = world.client.run_round("c")
    assert (answer.round.labels, answer.campaign_state) == (13, pb.CAMPAIGN_STATE_COMPLETED)


def test_made_items_alone_do_not_begin_a_round_that_could_not_be_trained(world: World) -> None:
    spec = make_spec(seed_size=0, exclude_synthetic=True)
    world.index.pools["pool"][ItemId("synthetic:1")] = world.index.pools["pool"][ItemId("i001")]
    world.client.create_campaign(spec)
    world.client.submit_labels("c", {"i000": ["a"], "synthetic:1": ["b"]}, annotator="ann")
    with pytest.raises(FailedPrecondition, match="cannot train a model: all 1 labelled items are of class 'a'"):
        world.client.run_round("c")


def test_an_item_that_an_audit_asks_about_while_a_round_chooses_is_not_trained_on(world: World) -> None:
    world.client.create_campaign(make_spec(oracle=DATASET))
    select = world.learner.select

    def choose(*args: Any, **options: Any) -> Any:
        answer = select(*args, **options)
        while answer.ids[0] not in audited(world):
            world.client.draw_audit("c", items=len(audited(world)) + 10)
        return answer

    world.learner.select = choose  # type: ignore[method-assign]
    world.client.run_round("c")
    picked = world.client.run_round("c").round.picks
    assert picked < 5
    assert not audited(world) & {label.item_id for label in world.labels()}


def audited(world: World) -> set[str]:
    with world.scheduler.store.reading() as session:
        return set(tasks.items_of(session, campaigns.get(session, "c").id, purpose=LabelPurpose.AUDIT))


def test_a_first_batch_leaves_out_what_synthesis_asked_about_before(world: World) -> None:
    world.client.create_campaign(make_spec(seed_size=58, budget=60))
    submit(world, ["i000", "i001"])
    with StreamClient(world.server.address, options=ClientOptions(retry_for_s=0, timeout_s=20)) as client:
        client.synthesize("c", stream_pb2.SYNTHESIS_METHOD_INTERPOLATE, 1)
    assert world.client.run_round("c").round.picks == 57


def test_a_round_that_failed_after_its_survey_is_no_round_in_a_row(world: World) -> None:
    stop = pb.StoppingSpec(stop_set=20, overall_uncertainty=1, patience=2)
    world.client.create_campaign(make_spec(oracle=DATASET, stopping=stop, budget=40))
    world.client.run_round("c")
    world.learner.troubles.once("select", FailedPrecondition("broken"))
    with pytest.raises(FailedPrecondition, match="broken"):
        world.client.run_round("c")
    (verdict,) = world.client.run_round("c").round.survey.verdicts
    assert verdict.rounds_met == 1
