"""Epochs, and tasks that newer rounds replace, on both databases."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from scheduler.domain.states import LabelPurpose, RoundKind, RoundState
from scheduler.storage import campaigns, leadership, stale_tasks, tasks
from scheduler.storage.engine import open_engine
from scheduler.storage.leadership import lock_for
from scheduler.storage.migrate import migrate
from scheduler.storage.models import Campaign, Round, Task
from scheduler.storage.store import Store
from scheduler.storage.tasks import Pick
from sealpool.errors import Unavailable
from sealpool.types import ItemId
from sealpool.v1 import common_pb2
from tests.contract.scheduler.postgres import emptied
from tests.unit.scheduler.fakes import FakeClock
from tests.unit.scheduler.world import make_spec


def test_epochs_count_up_and_only_the_last_one_stands(store: Store, clock: FakeClock) -> None:
    for epoch in (1, 2, 3):
        with store.writing() as session:
            assert not leadership.is_epoch(session, epoch)
            assert leadership.begin_epoch(session, holder=f"h{epoch}", now=clock.now()) == epoch
        with store.reading() as session:
            assert [leadership.is_epoch(session, n) for n in (1, 2, 3)] == [n == epoch for n in (1, 2, 3)]


def test_an_epoch_stands_until_whoever_relied_on_it_has_committed(store: Store, clock: FakeClock) -> None:
    with store.writing() as session:
        leadership.begin_epoch(session, holder="a", now=clock.now())
    about_to_begin = threading.Event()

    def take_over() -> int:
        about_to_begin.set()
        with store.writing() as session:
            return leadership.begin_epoch(session, holder="b", now=clock.now())

    with ThreadPoolExecutor(1) as pool:
        with store.writing() as session:
            assert leadership.is_epoch(session, 1)
            taking = pool.submit(take_over)
            assert about_to_begin.wait(10)
            threading.Event().wait(0.1)  # it may only wait now; that it does shows in what this transaction reads
            session.expire_all()
            assert leadership.is_epoch(session, 1)
            assert not taking.done()
        assert taking.result(10) == 2


def test_nobody_begins_an_epoch_in_a_database_that_takes_no_writes(postgres: str, clock: FakeClock) -> None:
    store = Store(open_engine(emptied(postgres), connections=2), clock=clock)
    migrate(store)
    try:
        with store.reading() as session:
            session.execute(text("SET TRANSACTION READ ONLY"))
            with pytest.raises(Unavailable, match="read-only"):
                leadership.begin_epoch(session, holder="a", now=clock.now())
            session.rollback()
    finally:
        store.close()


def test_a_frozen_commit_of_an_earlier_leader_gives_way(
    postgres: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "_FROZEN_S", 0.05)
    store = Store(open_engine(emptied(postgres), connections=4), clock=clock)
    migrate(store)
    try:
        with store.writing() as session:
            leadership.begin_epoch(session, holder="a", now=clock.now())
        frozen = store.writing_engine.connect()
        assert frozen.execute(text("SELECT epoch FROM leadership FOR SHARE")).scalar() == 1
        threading.Event().wait(0.1)  # which is what is looked at
        with store.writing() as session:
            assert leadership.begin_epoch(session, holder="b", now=clock.now()) == 2
        with pytest.raises(DBAPIError):
            frozen.execute(text("SELECT 1"))
        frozen.close()
    finally:
        store.close()


def test_a_lock_is_held_by_one_and_what_is_told_reaches_it(store: Store) -> None:
    holder, other = lock_for(store), lock_for(store)
    try:
        assert holder.take()
        assert not other.take()
        holder.check()
        other.tell("c")
        heard: list[str] = []
        while not heard:
            heard.extend(holder.hear(0.05))
        assert heard == ["c"]
        holder.release()
        with pytest.raises(Unavailable):
            holder.check()
        assert other.take()
    finally:
        holder.release()
        other.release()


ROUND = {"kind": RoundKind.MODEL, "state": RoundState.FINISHED, "snapshot": 0, "batch": 2, "labels": 0}


@pytest.fixture
def campaign(store: Store, clock: FakeClock) -> Campaign:
    """Four rounds of two tasks each but for the third, which made none."""
    with store.writing() as session:
        row = campaigns.add(session, make_spec(), now=clock.now())
        for number, picks in enumerate((2, 2, 0, 2)):
            session.add(Round(campaign_id=row.id, number=number, picks=picks, started_at=clock.now(), **ROUND))
            session.flush()
            made = [
                Pick(item_id=ItemId(f"{number}{i}"), score=0, origin=common_pb2.PICK_ORIGIN_FILL) for i in range(picks)
            ]
            tasks.add(session, row.id, number, made, labelled=())
    return row


def waiting(store: Store, campaign: Campaign) -> list[str]:
    with store.reading() as session:
        return list(tasks.outstanding(session, campaign.id))


@pytest.mark.parametrize(
    ("open_rounds", "left"),
    [
        (0, ["00", "01", "10", "11", "30", "31"]),
        (1, ["30", "31"]),
        (2, ["10", "11", "30", "31"]),
        (3, ["00", "01", "10", "11", "30", "31"]),
        (9, ["00", "01", "10", "11", "30", "31"]),
    ],
)
def test_tasks_of_all_but_the_last_rounds_that_made_some_are_stale(
    store: Store, clock: FakeClock, campaign: Campaign, open_rounds: int, left: list[str]
) -> None:
    with store.writing() as session:
        is_left = stale_tasks.are_left(session, campaign.id, open_rounds=open_rounds, now=clock.now())
        stale_tasks.withdraw(session, campaign.id, open_rounds=open_rounds, now=clock.now())
        assert not stale_tasks.are_left(session, campaign.id, open_rounds=open_rounds, now=clock.now())
    assert waiting(store, campaign) == left
    assert is_left == (len(left) < 6)


def test_leased_tasks_are_stale_once_their_lease_has_run_out_whatever_the_clock_did(
    store: Store, clock: FakeClock, campaign: Campaign
) -> None:
    with store.writing() as session:
        leased = session.query(Task).filter_by(item_id="00").one()
        leased.annotator, leased.lease_expires_at = "a", clock.now() + timedelta(seconds=60)

    def withdraw() -> list[str]:
        with store.writing() as session:
            stale_tasks.withdraw(session, campaign.id, open_rounds=1, now=clock.now())
        return waiting(store, campaign)

    assert withdraw() == ["00", "30", "31"]
    clock.advance(-86_400)  # set back: the lease lasts the longer
    assert withdraw() == ["00", "30", "31"]
    clock.advance(86_460)
    assert withdraw() == ["30", "31"]


def test_only_tasks_for_training_are_stale(store: Store, clock: FakeClock, campaign: Campaign) -> None:
    held_out = [Pick(item_id=ItemId("e"), score=0, origin=common_pb2.PICK_ORIGIN_FILL)]
    with store.writing() as session:
        tasks.add(session, campaign.id, 0, held_out, labelled=(), purpose=LabelPurpose.EVALUATION)
        stale_tasks.withdraw(session, campaign.id, open_rounds=1, now=clock.now())
        row = session.query(Task).filter_by(item_id="e").one()
        assert row.state == "open"
