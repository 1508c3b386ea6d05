"""What of a campaign may change while it runs, what is only checked, and why it ended."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sealpool.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from sealpool.types import ItemId, Payload
from sealpool.v1 import common_pb2
from sealpool.v1 import scheduler_pb2 as pb
from tests.unit.scheduler.world import DATASET, World, make_spec


def update(world: World, request_id: str = "", *, validate_only: bool = False, **changes: Any) -> Any:
    request = pb.UpdateCampaignRequest(spec=make_spec(**changes), request_id=request_id, validate_only=validate_only)
    return world.scheduler.servicer._campaigns.update(request)


def run_to_the_end(world: World) -> pb.Campaign:
    while world.client.get_campaign("c").state == pb.CAMPAIGN_STATE_ACTIVE:
        world.client.run_round("c")
    return world.client.get_campaign("c")


def test_a_larger_budget_makes_a_completed_campaign_go_on(world: World) -> None:
    world.client.create_campaign(make_spec(oracle=DATASET))
    ended = run_to_the_end(world)
    assert (ended.labels, ended.state_reason) == (20, "its budget is spent: 20 labels")
    answer = update(world, oracle=DATASET, budget=29)
    assert list(answer.changed) == ["budget"]
    assert (answer.campaign.state, answer.campaign.state_reason) == (pb.CAMPAIGN_STATE_ACTIVE, "")
    ended = run_to_the_end(world)
    assert (ended.labels, ended.state_reason) == (29, "its budget is spent: 29 labels")
    assert [r.picks for r in world.client.list_rounds("c")] == [6, 5, 5, 4, 0, 5, 4, 0]


def test_a_rule_goes_on_by_itself_once_the_budget_is_raised(world: World) -> None:
    rule = pb.RoundRule(after_labels=5)
    world.client.create_campaign(make_spec(oracle=DATASET, rule=rule))
    world.client.run_round("c")
    ends = (
        e for e in world.client.watch_campaign("c") if e.campaign_state_changed.state == pb.CAMPAIGN_STATE_COMPLETED
    )
    next(ends)
    update(world, oracle=DATASET, rule=rule, budget=23)
    next(ends)
    assert world.client.get_campaign("c").labels == 23


def test_a_campaign_whose_pool_is_exhausted_completes_again(world: World) -> None:
    world.index.add_pool("pool", 13)
    world.client.create_campaign(make_spec(oracle=DATASET))
    assert run_to_the_end(world).state_reason == "its pool has nothing left to label"
    update(world, oracle=DATASET, budget=40)
    again = run_to_the_end(world)
    assert (again.labels, again.state_reason) == (13, "its pool has nothing left to label")


def test_the_same_spec_again_changes_nothing(world: World) -> None:
    world.client.create_campaign(make_spec(strategy=common_pb2.StrategySpec(name="uncertainty")))
    answer = update(world, strategy=common_pb2.StrategySpec(name="uncertainty"))
    assert list(answer.changed) == []
    events = world.client.watch_campaign("c")
    assert next(events).sequence == 1
    update(world, strategy=common_pb2.StrategySpec(name="uncertainty"), exploration=0.5)
    assert next(events).campaign_state_changed.state == pb.CAMPAIGN_STATE_ACTIVE


def test_a_repeated_update_is_answered_as_the_first_was(world: World) -> None:
    world.client.create_campaign(make_spec())
    first = update(world, "r", budget=30)
    update(world, budget=40)
    assert update(world, "r", budget=30) == first
    assert world.client.get_campaign("c").spec.budget == 40
    with pytest.raises(InvalidArgument, match="other content"):
        update(world, "r", budget=31)


@pytest.mark.parametrize(
    ("changes", "error", "field"),
    [
        ({"pool": "held-out"}, InvalidArgument, "spec.pool"),
        ({"classes": ["a", "b", "c"], "task": common_pb2.TASK_KIND_MULTICLASS}, InvalidArgument, "spec.task"),
        ({"seed": 1}, InvalidArgument, "spec.seed"),
        ({"budget": 5}, InvalidArgument, "spec.budget"),
        ({"batch_size": 0}, InvalidArgument, "spec.batch_size"),
        ({"rule": pb.RoundRule(cron="x")}, InvalidArgument, "spec.rule.cron"),
        ({"name": "nobody"}, NotFound, "campaign"),
    ],
)
def test_what_cannot_change_is_named(world: World, changes: dict[str, Any], error: type[Exception], field: str) -> None:
    world.client.create_campaign(make_spec())
    with pytest.raises(error) as caught:
        update(world, **changes)
    assert caught.value.field == field  # type: ignore[attr-defined]
    assert world.client.get_campaign("c").spec == make_spec()


def test_a_budget_below_what_is_labelled_is_refused_and_an_archived_campaign_changes_no_more(world: World) -> None:
    world.client.create_campaign(make_spec())
    world.client.run_round("c")
    world.label()
    world.client.run_round("c")
    world.label()
    with pytest.raises(InvalidArgument, match=r"spec.budget: 10 is less than the 11 labels"):
        update(world, budget=10)
    update(world, budget=11)
    assert world.client.run_round("c").campaign_state == pb.CAMPAIGN_STATE_COMPLETED
    world.client.archive_campaign("c")
    with pytest.raises(FailedPrecondition, match="archived"):
        update(world, budget=40)


def test_a_rule_that_changes_sets_its_timers_anew(world: World) -> None:
    def timers() -> dict[str, str]:
        jobs = world.scheduler._timers._scheduler.get_jobs("default")
        return {job.id: str(job.trigger) for job in jobs}

    world.client.create_campaign(make_spec(rule=pb.RoundRule(interval_seconds=60, cron="0 9 * * 1")))
    before = timers()
    update(world, rule=pb.RoundRule(interval_seconds=3600, cron="0 10 * * 1"))
    assert timers().keys() == before.keys()
    assert "1:00:00" in timers()["interval:c"]
    assert timers()["cron:c"] != before["cron:c"]
    update(world)
    assert timers() == {}


def test_the_running_round_ends_as_it_began(world: World) -> None:
    world.client.create_campaign(make_spec())
    world.client.run_round("c")
    world.label()
    release = world.learner.troubles.hold("train")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(world.client.run_round, "c")
        assert world.learner.troubles.reached["train"].wait(10)
        update(world, exploration=0.5, batch_size=3)
        update(world, exploration=0.7, batch_size=3)
        release()
        assert running.result().round.picks == 5
    world.label()
    assert world.client.run_round("c").round.picks == 3
    assert [header.exploration for header, *_ in world.learner.selected] == [0, 0.7]


def test_a_campaign_can_be_checked_without_beginning_it(world: World) -> None:
    def create(**changes: Any) -> pb.CreateCampaignResponse:
        request = pb.CreateCampaignRequest(spec=make_spec(**changes), request_id="r", validate_only=True)
        return world.scheduler.servicer._campaigns.create(request)

    answer = create(rule=pb.RoundRule(interval_seconds=60))
    assert (answer.campaign.spec.name, answer.pool_version) == ("c", 7)
    with pytest.raises(NotFound):
        world.client.get_campaign("c")
    with pytest.raises(NotFound, match=r"spec.pool"):
        create(pool="nowhere")
    with pytest.raises(InvalidArgument, match=r"spec.budget"):
        create(budget=0)
    world.client.create_campaign(make_spec())
    with pytest.raises(AlreadyExists):
        create()


def test_an_update_can_be_checked_without_making_it(world: World) -> None:
    world.client.create_campaign(make_spec())
    answer = update(world, "r", validate_only=True, budget=30, rule=pb.RoundRule(after_labels=3))
    assert list(answer.changed) == ["budget", "rule.after_labels"]
    assert world.client.get_campaign("c").spec == make_spec()
    with pytest.raises(InvalidArgument, match=r"spec.seed: cannot change"):
        update(world, validate_only=True, seed=1)


def test_a_budget_spent_on_labels_of_one_class_completes_the_campaign_and_says_why(world: World) -> None:
    pool = world.index.pools["pool"]
    pool.update({ItemId(item): Payload(metadata={"labels": "a"}) for item in pool})
    world.client.create_campaign(make_spec(oracle=DATASET))
    ended = run_to_the_end(world)
    assert (ended.state, ended.labels, ended.rounds) == (pb.CAMPAIGN_STATE_COMPLETED, 20, 5)
    assert "cannot train a model: all 20 labelled items are of class 'a'" in ended.state_reason
    assert world.learner.trained == []
    with pytest.raises(FailedPrecondition, match="of class 'a'"):
        world.client.run_round("c")


def test_a_round_says_how_many_labelled_items_each_class_has(world: World) -> None:
    world.client.create_campaign(make_spec(oracle=DATASET))
    run_to_the_end(world)
    rounds = world.client.list_rounds("c")
    assert list(rounds[0].class_counts) == [0, 0]
    assert [sum(r.class_counts) for r in rounds] == [0, 6, 11, 16, 20]
    truth = [world.truth(item) for item in world.picks()[0]]
    assert list(rounds[1].class_counts) == [truth.count("a"), truth.count("b")]


def test_tasks_of_older_rounds_are_taken_back_when_a_batch_is_handed_out(make_world: Callable[..., World]) -> None:
    world = make_world(resume_every_s=0.1)
    world.client.create_campaign(make_spec(budget=60, rule=pb.RoundRule(open_rounds=1)))
    world.client.run_round("c")
    seeds = world.picks()[0]
    world.label(count=4)
    (held,) = (task.item_id for task in world.client.lease_tasks("c", annotator="slow", max_tasks=1).tasks)
    (stale,) = set(seeds) - {label.item_id for label in world.labels()} - {held}
    world.client.run_round("c")
    campaign = world.client.get_campaign("c")
    assert (campaign.open_tasks, campaign.leased_tasks) == (5, 1)
    tasks = world.client.lease_tasks("c", annotator="x", max_tasks=10).tasks
    assert {task.item_id for task in tasks} == set(world.picks()[1])

    world.clock.advance(4000)  # all leases run out; housekeeping takes back what the slow one held
    while world.client.get_campaign("c").open_tasks != 5:
        pass
    answer = world.client.submit_labels("c", {held: [world.truth(held)]}, annotator="slow")
    assert (answer.accepted, answer.labels) == (1, 5)
    world.label()
    world.client.run_round("c")
    _, labelled, _, excluded = world.learner.selected[-1]
    assert held in labelled
    assert stale not in {*labelled, *excluded}  # it may be picked again


def test_a_withdrawn_item_that_is_picked_again_is_handed_out_again(world: World) -> None:
    world.index.add_pool("pool", 12)
    world.client.create_campaign(make_spec(budget=60, seed=1, rule=pb.RoundRule(open_rounds=1)))
    world.client.run_round("c")
    world.label(count=5)
    (stale,) = set(world.picks()[0]) - {label.item_id for label in world.labels()}
    world.client.run_round("c")
    world.label(count=5)
    world.client.run_round("c")
    assert stale in world.picks()[2]
    left = {task.item_id for task in world.client.lease_tasks("c", annotator="y", max_tasks=20).tasks}
    assert left == set(world.index.pools["pool"]) - {label.item_id for label in world.labels()}


def test_stale_tasks_are_not_taken_back_while_a_round_chooses(world: World) -> None:
    world.client.create_campaign(make_spec(budget=60, rule=pb.RoundRule(open_rounds=1)))
    world.client.run_round("c")
    world.label(count=4)
    held = {task.item_id for task in world.client.lease_tasks("c", annotator="slow", max_tasks=2).tasks}
    world.client.run_round("c")
    world.label()
    release = world.learner.troubles.hold("select")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(world.client.run_round, "c")
        assert world.learner.troubles.reached["select"].wait(10)
        world.clock.advance(4000)
        world.scheduler._house.keep()
        assert world.client.get_campaign("c").open_tasks == 2
        release()
        running.result()
    assert held <= set(world.learner.selected[-1][3])
    assert world.client.get_campaign("c").open_tasks == 5
