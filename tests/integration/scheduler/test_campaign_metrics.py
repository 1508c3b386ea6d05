"""What a scheduler exports of campaigns: states, rounds that run, labels that wait, leases that ran out."""

from collections.abc import Mapping

from sealpool.v1 import common_pb2
from sealpool.v1 import scheduler_pb2 as pb
from tests.unit.scheduler.world import DATASET, World, make_spec


def value(world: World, name: str, labels: Mapping[str, str] = {}, *, campaign: str = "c") -> float | None:
    return world.registry.get_sample_value(f"sealpool_scheduler_{name}", {"campaign": campaign, **labels})


def test_a_campaign_tells_what_it_is_and_in_which_state(world: World) -> None:
    policy = common_pb2.PolicySpec(max_candidates=40)
    world.client.create_campaign(
        make_spec(policy=policy, strategy=common_pb2.StrategySpec(name="margin"), rule=pb.RoundRule(after_labels=7))
    )
    is_what = {"pool": "pool", "policy": "seals", "strategy": "margin"}
    assert value(world, "campaign_info", is_what) == 1
    assert value(world, "budget_labels") == 20
    assert value(world, "candidate_pool_cap_items") == 40
    assert value(world, "rule_labels") == 7
    assert value(world, "campaign_state", {"state": "active"}) == 1
    world.client.pause_campaign("c")
    assert value(world, "campaign_state", {"state": "active"}) is None
    assert value(world, "campaign_state", {"state": "paused"}) == 1


def test_labels_wait_for_the_round_that_takes_them_up(world: World) -> None:
    world.client.create_campaign(make_spec())
    world.client.run_round("c")
    world.label(count=4)
    assert value(world, "waiting_labels") == 4
    world.client.run_round("c")
    assert value(world, "waiting_labels") == 0


def test_a_round_tells_when_it_began_and_that_it_runs_no_more(world: World) -> None:
    world.client.create_campaign(make_spec(oracle=DATASET))
    world.client.run_round("c")
    world.clock.advance(90)
    world.client.run_round("c")
    assert value(world, "latest_round_timestamp_seconds") == world.clock.now().timestamp()
    assert value(world, "running_round_started_timestamp_seconds") is None
    assert value(world, "latest_round_failed") == 0


def test_open_tasks_tell_since_when_and_leases_that_ran_out_are_counted(world: World) -> None:
    world.client.create_campaign(make_spec())
    world.client.run_round("c")
    assert value(world, "oldest_open_task_timestamp_seconds") == world.clock.now().timestamp()
    world.client.lease_tasks("c", annotator="ann", max_tasks=2, lease_s=60)
    world.clock.advance(61)
    assert value(world, "expired_leases") == 2
    assert value(world, "leases_expired_total") is None
    world.client.lease_tasks("c", annotator="bob", max_tasks=6)
    assert value(world, "expired_leases") == 0
    assert value(world, "leases_expired_total") == 2


def test_annotators_who_agree_have_an_alpha_of_one(world: World) -> None:
    world.client.create_campaign(make_spec(annotation=pb.AnnotationSpec(annotations=2)))
    world.client.run_round("c")
    assert value(world, "annotator_agreement_ratio") is None
    for annotator in ("ann", "bob"):
        items = [task.item_id for task in world.client.lease_tasks("c", annotator=annotator, max_tasks=6).tasks]
        said = {item: ["a" if place % 2 else "b"] for place, item in enumerate(sorted(items))}
        world.client.submit_labels("c", said, annotator=annotator)
    assert value(world, "annotator_agreement_ratio") == 1.0
