"""What is exported of all campaigns, over SQLite and PostgreSQL."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from scheduler.agreeing import LATEST, RecentAgreement
from scheduler.domain.answers import Answer
from scheduler.domain.states import RoundKind, RoundState
from scheduler.labelling import commit_answers
from scheduler.storage import campaigns, leases, llm_answers, standing, tasks
from scheduler.storage.llm_answers import NewAnswer
from scheduler.storage.models import Round
from scheduler.storage.store import Store
from sealpool.types import ItemId
from sealpool.v1 import common_pb2
from sealpool.v1 import scheduler_pb2 as pb
from tests.unit.scheduler.fakes import FakeClock
from tests.unit.scheduler.world import make_spec

SEVERAL = pb.AnnotationSpec(annotations=2)


def add_campaign(store: Store, name: str = "c", **changes: Any) -> int:
    with store.writing() as session:
        spec = make_spec(name=name, budget=1000, **changes)
        return campaigns.add(session, spec, now=store.clock.now()).id


def add_round(
    store: Store,
    campaign_id: int,
    number: int,
    *,
    snapshot: int = 0,
    kind: RoundKind = RoundKind.MODEL,
    state: RoundState = RoundState.FINISHED,
) -> None:
    with store.writing() as session:
        session.add(
            Round(
                campaign_id=campaign_id,
                number=number,
                kind=kind,
                state=state,
                snapshot=snapshot,
                batch=5,
                labels=0,
                started_at=store.clock.now(),
            )
        )


def hand_out(store: Store, campaign_id: int, items: Sequence[str], *, number: int = 0) -> None:
    picks = [tasks.Pick(item_id=ItemId(item), score=1.0, origin=common_pb2.PICK_ORIGIN_CANDIDATE) for item in items]
    with store.writing() as session:
        tasks.add(session, campaign_id, number, picks, labelled=())


def say(store: Store, annotator: str, name: str = "c", **classes: int) -> int:
    """Commit labels; return the sequence of the campaign's last."""
    with store.writing() as session:
        campaign = campaigns.lock(session, name)
        answers = [Answer(item_id=ItemId(item), classes=(index,)) for item, index in classes.items()]
        commit_answers(session, campaign, answers, annotator=annotator, purpose=None, now=store.clock.now())
        return campaign.last_sequence


def waiting(store: Store, *campaign_ids: int) -> dict[int, int]:
    with store.reading() as session:
        return standing.waiting_labels(session, campaign_ids)


def test_labels_wait_until_a_round_that_trains_begins(store: Store) -> None:
    ours, theirs = add_campaign(store), add_campaign(store, "d")
    add_round(store, ours, 0, kind=RoundKind.SEED)
    hand_out(store, ours, "xyz")
    snapshot = say(store, "ann", x=0, y=1)
    assert waiting(store, ours, theirs) == {ours: 2, theirs: 0}
    add_round(store, ours, 1, snapshot=snapshot, state=RoundState.TRAINING)
    assert waiting(store, ours) == {ours: 0}
    say(store, "ann", z=0)
    say(store, "bob", x=1)
    assert waiting(store, ours) == {ours: 2}


@pytest.mark.parametrize(
    ("kind", "state"),
    [(RoundKind.MODEL, RoundState.FAILED), (RoundKind.WITHOUT_MODEL, RoundState.FINISHED)],
)
def test_labels_still_wait_after_a_round_that_trained_nothing(store: Store, kind: RoundKind, state: RoundState) -> None:
    ours = add_campaign(store)
    hand_out(store, ours, "xy")
    snapshot = say(store, "ann", x=0, y=1)
    add_round(store, ours, 1, snapshot=snapshot, kind=kind, state=state)
    assert waiting(store, ours) == {ours: 2}


def test_the_oldest_open_task_is_as_old_as_its_round(store: Store, clock: FakeClock) -> None:
    ours, theirs = add_campaign(store), add_campaign(store, "d")
    begun = []
    for number, items in enumerate(("ab", "cd")):
        begun.append(clock.now())
        add_round(store, ours, number)
        hand_out(store, ours, items, number=number)
        clock.advance(60)
    with store.reading() as session:
        assert standing.oldest_open_since(session, [ours, theirs]) == {ours: begun[0]}
    say(store, "ann", a=0, b=0)
    with store.reading() as session:
        assert standing.oldest_open_since(session, [ours, theirs]) == {ours: begun[1]}
    say(store, "ann", c=0, d=0)
    with store.reading() as session:
        assert standing.oldest_open_since(session, [ours, theirs]) == {}


def test_a_lease_that_ran_out_counts_until_somebody_takes_the_task(store: Store, clock: FakeClock) -> None:
    ours = add_campaign(store)
    hand_out(store, ours, "abc")

    def lease(annotator: str, count: int) -> list[bool]:
        with store.writing() as session:
            taken = leases.lease(session, ours, annotator=annotator, count=count, now=clock.now(), lease_s=60)
        return [task.had_run_out for task in taken]

    def expired() -> int:
        with store.reading() as session:
            return standing.expired_leases(session, [ours], now=clock.now())[ours]

    assert lease("ann", 2) == [False, False]
    assert expired() == 0
    clock.advance(61)
    assert expired() == 2
    assert sorted(lease("bob", 3)) == [False, True, True]
    assert expired() == 0


def test_a_task_that_was_given_back_had_not_run_out(store: Store, clock: FakeClock) -> None:
    ours = add_campaign(store)
    hand_out(store, ours, "a")
    with store.writing() as session:
        leases.lease(session, ours, annotator="ann", count=1, now=clock.now(), lease_s=60)
        leases.release(session, ours, annotator="ann", task_ids=[])
        (taken,) = leases.lease(session, ours, annotator="bob", count=1, now=clock.now(), lease_s=60)
    assert not taken.had_run_out


def test_ledgers_are_added_up_by_campaign(store: Store) -> None:
    ours, theirs, nobodys = add_campaign(store), add_campaign(store, "d"), add_campaign(store, "e")
    with store.writing() as session:
        for campaign_id, prompt in ((ours, "a"), (ours, "b"), (theirs, "a")):
            one = NewAnswer(
                item_id=ItemId("x"),
                prompt_hash=prompt,
                sample=0,
                endpoint="default",
                model="m",
                answer="yes",
                problem="",
                tokens_in=100,
                tokens_out=5,
                cost=0.25,
            )
            llm_answers.add(session, campaign_id, one, now=store.clock.now())
    with store.reading() as session:
        assert standing.ledgers(session, [ours, theirs, nobodys]) == {
            ours: standing.Ledger(tokens=210, cost=0.5),
            theirs: standing.Ledger(tokens=105, cost=0.25),
        }


def agreement(store: Store, recent: RecentAgreement) -> dict[str, float]:
    with store.reading() as session:
        rows = campaigns.all_by_name(session, include_archived=False)
        found = recent.of_each(session, rows)
        return {row.name: found[row.id] for row in rows if row.id in found}


def test_agreement_is_told_of_campaigns_that_ask_several_and_follows_what_they_say(store: Store) -> None:
    ours = add_campaign(store, annotation=SEVERAL)
    add_campaign(store, "alone")
    recent = RecentAgreement()
    assert math.isnan(agreement(store, recent)["c"])
    hand_out(store, ours, "wxyz")
    say(store, "ann", w=0, x=0, y=1, z=1)
    say(store, "bob", w=0, x=0, y=1, z=1)
    assert agreement(store, recent) == {"c": 1.0}
    say(store, "bob", w=1, z=0)
    assert agreement(store, recent)["c"] < 0.5


def test_agreement_looks_at_the_latest_annotations_alone(store: Store) -> None:
    ours = add_campaign(store, annotation=SEVERAL)
    quarrel, peace = [f"q{n}" for n in range(20)], [f"p{n}" for n in range(LATEST // 2)]
    for items, differ in ((quarrel, 1), (peace, 0)):
        hand_out(store, ours, items, number=differ)
        for annotator, turn in (("ann", 0), ("bob", differ)):
            say(store, annotator, **{item: (place + turn) % 2 for place, item in enumerate(items)})
    assert agreement(store, RecentAgreement()) == {"c": 1.0}
