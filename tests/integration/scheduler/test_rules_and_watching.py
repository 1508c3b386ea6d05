"""Rounds that run by themselves, and those who watch."""

import io
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.job import Job
from prometheus_client import generate_latest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.exc import OperationalError

from scheduler.jobs import Every, RoundExecutor, run_campaign
from scheduler.settings import SchedulerSettings
from sealpool.client import SchedulerClient
from sealpool.errors import NotFound, ResourceExhausted, Unavailable
from sealpool.runtime.logs import library_log, make_logger
from sealpool.v1 import scheduler_pb2 as pb
from tests.support.metrics_pages import documented, named, sampled
from tests.unit.scheduler.world import DATASET, World, make_spec


def wait_for_round(world: World, number: int, *, state: int = pb.ROUND_STATE_FINISHED, name: str = "c") -> pb.Round:
    for event in world.client.watch_campaign(name):
        changed = event.round_changed.round
        if event.HasField("round_changed") and changed.number == number and changed.state == state:
            return changed
    raise AssertionError("the campaign was archived")


def wait_until_completed(world: World, name: str = "c") -> None:
    for event in world.client.watch_campaign(name):
        if event.campaign_state_changed.state == pb.CAMPAIGN_STATE_COMPLETED:
            return


def test_a_round_runs_when_enough_labels_have_arrived(world: World) -> None:
    world.client.create_campaign(make_spec(rule=pb.RoundRule(after_labels=4)))
    world.client.run_round("c")
    items = {item: [world.truth(item)] for item in world.picks()[0]}
    names = list(items)
    world.client.submit_labels("c", {name: items[name] for name in names[:3]}, annotator="x")
    world.client.submit_labels("c", {names[0]: items[names[0]]}, annotator="x")
    assert len(world.client.list_rounds("c")) == 1
    world.client.submit_labels("c", {name: items[name] for name in names[3:]}, annotator="x")
    assert wait_for_round(world, 1).labels == 6


def test_labels_committed_while_stopping_are_acknowledged(world: World) -> None:
    world.client.create_campaign(make_spec(rule=pb.RoundRule(after_labels=1)))
    world.client.run_round("c")
    world.scheduler.pool.stop()
    assert len(world.label()) == 6
    world.restart()
    assert wait_for_round(world, 1).labels == 6


def test_a_data_set_campaign_with_a_label_rule_runs_to_its_end_by_itself(world: World) -> None:
    world.client.create_campaign(make_spec(oracle=DATASET, rule=pb.RoundRule(after_labels=5)))
    world.client.run_round("c")
    wait_until_completed(world)
    assert [r.labels for r in world.client.list_rounds("c")] == [0, 6, 11, 16, 20]


def test_an_interval_runs_rounds_and_pausing_stops_it(world: World) -> None:
    world.client.create_campaign(make_spec(rule=pb.RoundRule(interval_seconds=1)))
    assert wait_for_round(world, 0).picks == 6
    assert [job.id for job in world.scheduler._timers._scheduler.get_jobs("default")] == ["interval:c"]
    world.client.pause_campaign("c")
    assert world.scheduler._timers._scheduler.get_jobs("default") == []
    world.client.resume_campaign("c")
    world.label()
    assert wait_for_round(world, 1).labels == 6


def test_timers_survive_a_restart_with_their_next_time(world: World) -> None:
    world.client.create_campaign(make_spec(rule=pb.RoundRule(interval_seconds=5000, cron="0 9 * * 1")))
    world.client.create_campaign(make_spec(name="idle"))

    def timers() -> dict[str, object]:
        return {job.id: job.next_run_time for job in world.scheduler._timers._scheduler.get_jobs("default")}

    before = timers()
    assert set(before) == {"interval:c", "cron:c"}
    world.restart()
    assert timers() == before
    world.client.archive_campaign("c")
    assert timers() == {}


def job_ids(world: World) -> set[str]:
    return {job.id for job in world.scheduler._timers._scheduler.get_jobs("default")}


def test_timers_outlive_a_database_that_is_away(world: World) -> None:
    world.client.create_campaign(make_spec())
    failed = threading.Event()
    scheduler = world.scheduler._timers._scheduler
    scheduler.jobstore_retry_interval = 0.1
    job_store = scheduler._jobstores["default"]
    update = job_store.update_job

    def away_once(job: Job) -> None:
        job_store.update_job = update
        failed.set()
        raise OperationalError("UPDATE", {}, Exception("server closed the connection"))

    job_store.update_job = away_once
    world.client.create_campaign(make_spec(name="timed", rule=pb.RoundRule(interval_seconds=1)))
    assert failed.wait(10)
    assert wait_for_round(world, 0, name="timed").picks == 6
    world.label("timed")
    assert wait_for_round(world, 1, name="timed").labels == 6


def test_an_interval_begins_after_its_last_firing_however_many_were_missed() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    every = Every(seconds=10, timezone=UTC)
    assert every.get_next_fire_time(now - timedelta(seconds=4), now) == now + timedelta(seconds=6)
    assert every.get_next_fire_time(now - timedelta(days=365), now) == now + timedelta(seconds=10)


def test_timers_that_a_kill_or_a_clock_set_back_left_wrong_are_mended(make_world: Callable[..., World]) -> None:
    world = make_world(resume_every_s=0.1)
    rule = pb.RoundRule(interval_seconds=2000, cron="0 * * * *")
    for name in ("c", "late"):
        world.client.create_campaign(make_spec(name=name, rule=rule))
    scheduler = world.scheduler._timers._scheduler
    wanted = job_ids(world)
    far = datetime.now(UTC) + timedelta(days=30)
    for job_id in ("interval:late", "cron:late"):
        scheduler.modify_job(job_id, "default", next_run_time=far)
    scheduler.remove_job("interval:c", "default")
    scheduler.add_job(run_campaign, "date", run_date=far, args=("nobody",), id="cron:nobody")

    def mended() -> bool:
        times = [job.next_run_time for job in scheduler.get_jobs("default")]
        return job_ids(world) == wanted and max(times) < datetime.now(UTC) + timedelta(hours=1, seconds=1)

    assert not mended()
    give_up = time.monotonic() + 10
    while not mended():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_apscheduler_complains_in_our_log_and_nowhere_else(capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = io.StringIO(), logging.getLogger("apscheduler.executors.default")
    settings = SchedulerSettings(log_level="info")
    before = (list(theirs.parent.handlers), theirs.parent.level, theirs.parent.propagate) if theirs.parent else ()
    with library_log("apscheduler", make_logger(settings, "scheduler", stream=ours)):
        theirs.info("Job submitted")
        try:
            raise ValueError("boom")
        except ValueError:
            theirs.exception("Job %s failed", "interval:c")
    (line,) = ours.getvalue().splitlines()
    told = json.loads(line)
    assert (told["level"], told["event"], told["detail"]) == ("error", "apscheduler", "Job interval:c failed")
    assert "boom" in told["exception"]
    assert capsys.readouterr() == ("", "")
    assert theirs.parent
    assert (list(theirs.parent.handlers), theirs.parent.level, theirs.parent.propagate) == before


def test_campaigns_are_listed_and_measured_in_a_constant_number_of_queries(world: World) -> None:
    def queries() -> tuple[int, int]:
        statements: list[str] = []

        def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
            if statement.startswith("SELECT"):
                statements.append(statement)

        sqlalchemy_event.listen(world.scheduler.store.engine, "before_cursor_execute", note)
        world.client.list_campaigns()
        listed = len(statements)
        generate_latest(world.registry)
        sqlalchemy_event.remove(world.scheduler.store.engine, "before_cursor_execute", note)
        return listed, len(statements) - listed

    world.client.create_campaign(make_spec())
    world.client.run_round("c")
    before = queries()
    for name in "defgh":
        world.client.create_campaign(make_spec(name=name))
        world.client.run_round(name)
    assert queries() == before == (4, 9)


def test_a_timer_does_not_repeat_a_failed_round_without_new_labels(world: World) -> None:
    world.client.create_campaign(make_spec())
    world.client.run_round("c")
    world.label()
    world.learner.troubles.once("train", NotFound("pool", "pool"))
    world.scheduler.pool.fire("c")
    wait_for_round(world, 1, state=pb.ROUND_STATE_FAILED)
    world.scheduler.pool.fire("c")
    assert len(world.client.list_rounds("c")) == 2
    free = next(item for item in world.index.pools["pool"] if item not in world.picks()[0])
    world.client.submit_labels("c", {free: ["a"]}, annotator="x")
    world.scheduler.pool.fire("c")
    assert wait_for_round(world, 2).labels == 7


def test_a_timer_with_nothing_to_do_does_nothing(world: World) -> None:
    world.client.create_campaign(make_spec(seed_size=0))
    world.scheduler.pool.fire("c")
    world.scheduler.pool.fire("nobody")
    assert world.client.list_rounds("c") == []


def test_rounds_that_wait_are_resumed_regularly(make_world: Callable[..., World]) -> None:
    world = make_world(resume_every_s=0.2)
    world.client.create_campaign(make_spec(oracle=DATASET))
    world.index.troubles.once("sample_items", Unavailable("away"))
    with pytest.raises(Unavailable):
        world.client.run_round("c")
    assert wait_for_round(world, 0).picks == 6


def test_a_job_outside_our_executor_is_a_fault() -> None:
    with pytest.raises(AssertionError, match=RoundExecutor.__name__):
        run_campaign("c")


def test_a_watcher_sees_the_past_then_the_present_then_the_end(world: World) -> None:
    world.client.create_campaign(make_spec())
    events: Iterator[pb.WatchCampaignResponse] = world.client.watch_campaign("c")
    first = next(events)
    assert first.campaign_state_changed.state == pb.CAMPAIGN_STATE_ACTIVE
    world.client.run_round("c")
    states = [next(events).round_changed.round.state for _ in range(3)]
    assert states == [pb.ROUND_STATE_SELECTING, pb.ROUND_STATE_LABELLING, pb.ROUND_STATE_FINISHED]
    world.label()
    arrived = next(events)
    assert (arrived.labels_arrived.accepted, arrived.labels_arrived.labels) == (6, 6)
    assert arrived.at.ToSeconds() == world.clock.now().timestamp()
    world.client.archive_campaign("c")
    assert next(events).campaign_state_changed.state == pb.CAMPAIGN_STATE_ARCHIVED
    assert list(events) == []
    again = list(world.client.watch_campaign("c", after_sequence=arrived.sequence))
    assert [event.campaign_state_changed.state for event in again] == [pb.CAMPAIGN_STATE_ARCHIVED]


def test_watchers_over_the_limit_are_refused_and_places_come_back(make_world: Callable[..., World]) -> None:
    world = make_world(max_watchers=2)
    world.client.create_campaign(make_spec())
    with SchedulerClient(world.server.address) as other:
        held = [other.watch_campaign("c") for _ in range(2)]
        for events in held:
            next(events)
        with pytest.raises(ResourceExhausted, match="max_watchers"):
            next(world.client.watch_campaign("c"))
    place_back = threading.Event()
    while not place_back.wait(0.01):
        try:
            next(world.client.watch_campaign("c"))
            place_back.set()
        except ResourceExhausted:
            continue


def test_stopping_ends_watches_with_unavailable(world: World) -> None:
    world.client.create_campaign(make_spec())
    events = world.client.watch_campaign("c")
    next(events)
    world.scheduler.drain()
    with pytest.raises(Unavailable, match="stopping"):
        next(events)


def test_every_documented_metric_is_on_the_page_of_a_scheduler_with_rounds(make_world: Callable[..., World]) -> None:
    world = make_world(metrics_listen="127.0.0.1:0")
    world.client.create_campaign(make_spec(oracle=DATASET, evaluation_pool="held-out"))
    world.client.run_round("c")
    world.client.run_round("c")
    assert documented("scheduler") - named(world.server.metrics_address) == set()
    without_samples = documented("scheduler") - sampled(world.server.metrics_address)
    not_asked = ("llm", "stream", "survey", "active_test", "annotator", "candidate_pool_cap", "rule")
    not_now = ("running_round", "oldest_open", "leases_expired")
    not_done = tuple(f"sealpool_scheduler_{what}_" for what in (*not_asked, *not_now))
    assert {name for name in without_samples if not name.startswith(not_done)} == set()


def test_metrics_tell_of_every_campaign_that_is_not_archived(world: World) -> None:
    for name in ("c", "gone"):
        world.client.create_campaign(make_spec(name=name, oracle=DATASET, evaluation_pool="held-out"))
    world.client.run_round("c")
    world.client.run_round("c")
    world.client.create_campaign(make_spec(name="open"))
    world.client.run_round("open")
    world.client.lease_tasks("open", annotator="x", max_tasks=2)
    world.client.archive_campaign("gone")
    exported = set(generate_latest(world.registry).decode().splitlines())
    assert exported >= {
        'sealpool_scheduler_labels{campaign="c"} 11.0',
        'sealpool_scheduler_round_number{campaign="c"} 1.0',
        'sealpool_scheduler_tasks{campaign="open",state="open"} 4.0',
        'sealpool_scheduler_tasks{campaign="open",state="leased"} 2.0',
        'sealpool_scheduler_phase_seconds{campaign="c",phase="expand"} 0.5',
        'sealpool_scheduler_model_quality_ratio{campaign="c",measure="accuracy"} 0.5',
        'sealpool_scheduler_candidate_pool_items{campaign="c"} 54.0',
        'sealpool_scheduler_candidate_pool_share_ratio{campaign="c"} 0.5',
        'sealpool_scheduler_candidates_added{campaign="c"} 4.0',
    }
    assert not any('"gone"' in line or "NaN" in line for line in exported)
