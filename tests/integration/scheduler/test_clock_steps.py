"""What a clock that steps does to leases, timers and rounds."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from scheduler.jobs import Every
from sealpool.v1 import scheduler_pb2 as pb
from tests.unit.scheduler.world import World, make_spec


@pytest.mark.parametrize("step_s", [-7_200, 7_200])
def test_a_lease_that_a_step_shortened_or_lengthened_loses_no_answer(world: World, step_s: float) -> None:
    world.client.create_campaign(make_spec())
    world.client.run_round("c")
    first = {task.item_id for task in world.client.lease_tasks("c", annotator="a", max_tasks=6).tasks}
    world.clock.advance(step_s)
    again = {task.item_id for task in world.client.lease_tasks("c", annotator="b", max_tasks=6).tasks}
    assert again == (first if step_s > 0 else set())
    for annotator in ("b", "a") if again else ("a",):
        world.client.submit_labels("c", {item: [world.truth(item)] for item in first}, annotator=annotator)
    assert world.client.get_campaign("c").labels == 6
    assert world.client.run_round("c").round.labels == 6


@pytest.mark.parametrize("step_s", [-86_400, 86_400])
def test_a_round_that_a_step_met_ends_and_its_time_is_not_negative(world: World, step_s: float) -> None:
    world.client.create_campaign(make_spec())
    world.client.run_round("c")
    world.label()
    release = world.learner.troubles.hold("train")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(world.client.run_round, "c")
        assert world.learner.troubles.reached["train"].wait(10)
        world.clock.advance(step_s)
        release()
        assert running.result().round.seconds.total == max(step_s, 0)


def test_labels_fire_their_rule_whatever_the_clock_did(world: World) -> None:
    world.client.create_campaign(make_spec(rule=pb.RoundRule(after_labels=6)))
    world.client.run_round("c")
    world.clock.advance(-86_400)
    world.label()
    finished = (e for e in world.client.watch_campaign("c") if e.round_changed.round.number == 1)
    assert any(e.round_changed.round.state == pb.ROUND_STATE_FINISHED for e in finished)


def test_a_timer_that_fired_ahead_of_a_clock_set_back_does_not_wait_for_its_old_time(
    make_world: Callable[..., World],
) -> None:
    world = make_world(resume_every_s=0.1)
    world.client.create_campaign(make_spec(rule=pb.RoundRule(interval_seconds=50)))
    scheduler = world.scheduler._timers._scheduler
    ahead = datetime.now(UTC) + timedelta(days=1)
    (job,) = scheduler.get_jobs("default")
    planned = Every(seconds=50, timezone=UTC).get_next_fire_time(ahead, datetime.now(UTC))
    assert planned == ahead + timedelta(seconds=50)  # what APScheduler wrote down before the clock was set back
    scheduler.modify_job(job.id, "default", next_run_time=planned)
    give_up = time.monotonic() + 10
    while scheduler.get_jobs("default")[0].next_run_time > datetime.now(UTC) + timedelta(seconds=51):
        assert time.monotonic() < give_up
        time.sleep(0.02)
