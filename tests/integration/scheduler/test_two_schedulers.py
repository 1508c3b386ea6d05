"""Two schedulers on one database: one runs rounds, both serve, and either goes on when the other is gone."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from sqlalchemy import create_engine, text

from scheduler.storage import leadership
from sealpool.errors import FailedPrecondition, NotFound, Unavailable
from sealpool.v1 import scheduler_pb2 as pb
from tests.contract.scheduler.postgres import emptied
from tests.unit.scheduler.world import DATASET, World, make_spec

MakePair = Callable[..., tuple[World, World]]


@pytest.fixture(params=["sqlite", "postgresql"])
def make_pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakePair]:
    worlds: list[World] = []

    def make(**settings: Any) -> tuple[World, World]:
        if request.param == "postgresql":
            settings["database_url"] = emptied(request.getfixturevalue("postgres_url"))
        first = World(tmp_path, **settings)
        worlds.append(first)
        worlds.append(World(tmp_path, beside=first, **settings))
        return first, worlds[1]

    yield make
    for world in worlds:
        world.learner.troubles.release()
        world.index.troubles.release()
        world.close()


def wait_until(happened: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def run_to_the_end(world: World) -> None:
    while world.client.run_round("c").campaign_state == pb.CAMPAIGN_STATE_ACTIVE:
        pass


def test_one_leads_and_a_round_begun_at_the_other_is_run_once(make_pair: MakePair) -> None:
    leader, follower = make_pair()
    assert (leader.scheduler.leads(), follower.scheduler.leads()) == (True, False)
    assert "sealpool_scheduler_is_leader 1.0" in generate_latest(leader.registry).decode()
    assert "sealpool_scheduler_is_leader 0.0" in generate_latest(follower.registry).decode()
    follower.client.create_campaign(make_spec(oracle=DATASET))
    run_to_the_end(follower)
    rounds = leader.client.list_rounds("c")
    assert [r.labels for r in rounds] == [0, 6, 11, 16, 20]
    assert [header.round for header, _ in leader.learner.trained] == [1, 2, 3, 4]
    assert '"event": "phase ended"' not in follower.log.getvalue()
    with pytest.raises(FailedPrecondition, match="budget is spent: 20 labels"):
        follower.client.run_round("c")


def test_labels_and_rules_given_to_a_follower_reach_the_leader(make_pair: MakePair) -> None:
    leader, follower = make_pair()
    follower.client.create_campaign(make_spec(rule=pb.RoundRule(after_labels=6)))
    follower.client.run_round("c")
    follower.label()
    wait_until(lambda: leader.client.get_campaign("c").last_round.number == 1)
    follower.client.create_campaign(make_spec(name="timed", rule=pb.RoundRule(interval_seconds=1)))
    wait_until(lambda: follower.client.get_campaign("timed").rounds == 1)
    follower.client.archive_campaign("timed")
    wait_until(lambda: ("pool", "timed") in leader.index.dropped)
    timers = leader.scheduler._timers._scheduler
    wait_until(lambda: timers.get_jobs("default") == [])


def test_a_follower_tells_what_a_round_waits_for_and_can_ask_again(make_pair: MakePair) -> None:
    leader, follower = make_pair()
    follower.client.create_campaign(make_spec(oracle=DATASET))
    follower.client.run_round("c")
    leader.learner.troubles.always("train", Unavailable("learner is restarting"))
    for _ in range(2):
        with pytest.raises(Unavailable, match="learner is restarting"):
            follower.client.run_round("c")
    leader.learner.troubles.always("train", None)
    assert follower.client.run_round("c").round.number == 1
    leader.learner.troubles.once("train", NotFound("pool", "pool"))
    with pytest.raises(FailedPrecondition, match="no such pool"):
        follower.client.run_round("c")


def test_a_leader_that_stops_makes_way_at_once(make_pair: MakePair) -> None:
    leader, follower = make_pair()
    leader.client.create_campaign(make_spec(oracle=DATASET))
    leader.client.run_round("c")
    release = leader.learner.troubles.hold("train")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(follower.client.run_round, "c")
        assert leader.learner.troubles.reached["train"].wait(10)
        leader.scheduler.drain()
        wait_until(follower.scheduler.leads)
        release()
        assert running.result(20).round.number == 1
    leader.scheduler.pool.close()
    assert [r.number for r in follower.client.list_rounds("c")] == [0, 1]
    assert len(follower.picks()[1]) == 5


def test_what_was_done_in_an_epoch_that_has_passed_is_not_committed(make_pair: MakePair) -> None:
    leader, follower = make_pair()
    leader.client.create_campaign(make_spec(oracle=DATASET))
    leader.client.run_round("c")
    release = leader.learner.troubles.hold("train")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(leader.client.run_round, "c")
        assert leader.learner.troubles.reached["train"].wait(10)
        # As another scheduler would that has the lock while this one's session is dead and it has not noticed.
        with leader.scheduler.store.writing() as session:
            epoch = leadership.begin_epoch(session, holder="other", now=leader.clock.now())
        release()
        assert running.result(20).round.number == 1
    wait_until(lambda: leader.scheduler.leads() or follower.scheduler.leads())
    assert max(world.scheduler.leader.epoch() or 0 for world in (leader, follower)) > epoch
    assert leader.log.getvalue().count("round left to another scheduler") == 1
    assert [header.round for header, _ in leader.learner.trained] == [1, 1]
    assert [label.item_id for label in leader.labels()] == [i for items in leader.picks().values() for i in items]


def test_a_session_that_the_database_ends_is_noticed_and_the_round_goes_on(postgres_url: str, tmp_path: Path) -> None:
    database = emptied(postgres_url)
    leader = World(tmp_path / "a", database_url=database)
    follower = World(tmp_path / "b", beside=leader, database_url=database)
    try:
        leader.client.create_campaign(make_spec(oracle=DATASET))
        leader.client.run_round("c")
        release = leader.learner.troubles.hold("select")
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(follower.client.run_round, "c")
            assert leader.learner.troubles.reached["select"].wait(10)
            before = leader.scheduler.leader.epoch()
            end_sessions_with_locks(database)
            wait_until(lambda: leader.scheduler.leader.epoch() != before)
            release()
            assert running.result(20).round.number == 1
        run_to_the_end(follower)
        assert "leadership lost" in leader.log.getvalue()
        assert [r.labels for r in follower.client.list_rounds("c")] == [0, 6, 11, 16, 20]
        assert len(follower.labels()) == 20
    finally:
        leader.learner.troubles.release()
        follower.close()
        leader.close()


def end_sessions_with_locks(database: str) -> None:
    engine = create_engine(database)
    with engine.connect() as connection:
        ended = connection.execute(
            text("SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND granted")
        ).scalar_one()
    engine.dispose()
    assert ended == 1
