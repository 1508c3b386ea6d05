"""Annotations, tasks for several people and leases, over SQLite and PostgreSQL."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from scheduler.domain.answers import Answer
from scheduler.domain.states import Audience, LabelPurpose, Outcome
from scheduler.labelling import Committed, commit_answers
from scheduler.resolving import resolve_all
from scheduler.storage import annotations, campaigns, events, labels, leases, tasks
from scheduler.storage.leases import LeasedTask
from scheduler.storage.models import Campaign
from scheduler.storage.store import Store
from sealpool.errors import FailedPrecondition, InvalidArgument
from sealpool.types import ItemId
from sealpool.v1 import common_pb2
from sealpool.v1 import scheduler_pb2 as pb
from tests.unit.scheduler.fakes import FakeClock
from tests.unit.scheduler.world import make_spec

THREE = pb.AnnotationSpec(annotations=3)


def add_campaign(store: Store, **changes: Any) -> Campaign:
    with store.writing() as session:
        return campaigns.add(session, make_spec(**{"budget": 1000, **changes}), now=store.clock.now())


def hand_out(store: Store, campaign: Campaign, items: Sequence[str], *, number: int = 0, **options: Any) -> None:
    picks = [tasks.Pick(item_id=ItemId(item), score=1.0, origin=common_pb2.PICK_ORIGIN_CANDIDATE) for item in items]
    with store.writing() as session:
        tasks.add(session, campaign.id, number, picks, labelled=(), **options)


def say(store: Store, annotator: str, *answers: Answer, purpose: LabelPurpose | None = None) -> Committed:
    with store.writing() as session:
        locked = campaigns.lock(session, "c")
        now = store.clock.now()
        return commit_answers(session, locked, answers, annotator=annotator, purpose=purpose, now=now)


def label(item: str, index: int = 0) -> Answer:
    return Answer(item_id=ItemId(item), classes=(index,))


def skip(item: str) -> Answer:
    return Answer(item_id=ItemId(item), outcome=Outcome.SKIP)


def cannot_tell(item: str) -> Answer:
    return Answer(item_id=ItemId(item), outcome=Outcome.CANNOT_TELL)


def lease(
    store: Store, campaign: Campaign, annotator: str, count: int = 9, slots: int = 1, **options: Any
) -> list[str]:
    return [task.item_id for task in lease_tasks(store, campaign, annotator, count, slots, **options)]


def lease_tasks(
    store: Store, campaign: Campaign, annotator: str, count: int = 9, slots: int = 1, **options: Any
) -> list[LeasedTask]:
    with store.writing() as session:
        return leases.lease(
            session,
            campaign.id,
            annotator=annotator,
            count=count,
            now=store.clock.now(),
            lease_s=60,
            slots=slots,
            **options,
        )


def effective(
    store: Store, campaign: Campaign, purpose: LabelPurpose = LabelPurpose.TRAINING
) -> dict[str, tuple[int, ...]]:
    with store.reading() as session:
        found = labels.effective(session, campaign.id, purpose=purpose, until=2**40)
    return {str(item): classes for item, classes in found.items()}


def counted(store: Store, campaign: Campaign) -> tasks.TaskCounts:
    with store.reading() as session:
        return tasks.counts(session, [campaign.id], now=store.clock.now())[campaign.id]


@pytest.mark.parametrize("statement", ["UPDATE annotations SET annotator = 'other'", "DELETE FROM annotations"])
def test_the_annotations_log_refuses_changes(store: Store, statement: str) -> None:
    add_campaign(store)
    say(store, "x", label("a"))
    with store.writing_engine.connect() as connection, pytest.raises(DBAPIError, match="append-only"):
        connection.execute(text(statement))


def test_everything_that_annotators_say_is_kept_as_they_said_it(store: Store, clock: FakeClock) -> None:
    campaign = add_campaign(store)
    hand_out(store, campaign, ["a", "b"], number=3)
    say(store, "x", Answer(item_id=ItemId("a"), classes=(1,), confidence=0.25, comment="hm ✓"), skip("b"))
    say(store, "y", cannot_tell("b"), label("c"))
    with store.reading() as session:
        assert annotations.last_sequence(session, campaign.id) > 0

        def page(**options: Any) -> list[tuple[Any, ...]]:
            asked = {"after": 0, "until": 2**40, "item_id": "", "annotator": "", "limit": 9, **options}
            return [
                (row.item_id, row.annotator, row.outcome, row.classes, row.confidence, row.comment, row.round)
                for row in annotations.page(session, campaign.id, **asked)
            ]

        assert page() == [
            ("a", "x", "label", [1], 0.25, "hm ✓", 3),
            ("b", "x", "skip", [], None, "", 3),
            ("b", "y", "cannot_tell", [], None, "", 3),
            ("c", "y", "label", [0], None, "", 0),
        ]
        assert [row[:2] for row in page(item_id="b")] == [("b", "x"), ("b", "y")]
        assert [row[0] for row in page(annotator="y")] == ["b", "c"]
        assert len(page(limit=3)) == 3
        assert page(after=2**64 - 1) == []
        assert all(
            row.committed_at == clock.now()
            for row in annotations.page(session, campaign.id, after=0, until=9, item_id="", annotator="", limit=9)
        )


def test_one_label_of_one_annotator_takes_six_statements_beside_the_lock(store: Store) -> None:
    campaign = add_campaign(store)
    hand_out(store, campaign, ["a"])
    seen: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        seen.append(statement.split()[0])

    event.listen(store.engine, "before_cursor_execute", note)
    say(store, "x", label("a"))
    event.remove(store.engine, "before_cursor_execute", note)
    expected = ["INSERT"] * 3 + ["SELECT"] * 2 + ["UPDATE"] * 2
    assert sorted(verb for verb in seen if verb != "BEGIN") == expected


def test_a_withdrawn_task_is_taken_up_again_and_an_open_one_is_not(store: Store) -> None:
    campaign = add_campaign(store)
    hand_out(store, campaign, ["a", "b"], annotations=2)
    assert lease(store, campaign, "x", slots=2) == ["a", "b"]
    with store.writing() as session:
        tasks.withdraw_items(session, campaign.id, [ItemId("a")])
        assert tasks.rounds_of(session, campaign.id, [ItemId("a"), ItemId("b")]) == {"b": 0}
        assert tasks.items_before(session, campaign.id, 4) == ["b"]
    hand_out(store, campaign, ["a", "c"], number=4, annotations=2)
    with store.reading() as session:
        assert tasks.rounds_of(session, campaign.id, [ItemId("a")]) == {"a": 4}
        assert tasks.outstanding(session, campaign.id) == ["b", "a", "c"]
    assert lease(store, campaign, "x", slots=2) == ["a", "c"]
    with pytest.raises(DBAPIError):
        hand_out(store, campaign, ["b"], number=5)


def test_an_item_that_some_answered_before_it_was_withdrawn_asks_for_the_others_alone(store: Store) -> None:
    campaign = add_campaign(store, annotation=THREE)
    hand_out(store, campaign, ["a"], annotations=3)
    say(store, "x", label("a", 0))
    say(store, "y", label("a", 1))
    with store.writing() as session:
        tasks.withdraw(session, campaign.id, purpose=LabelPurpose.AUDIT)
        tasks.withdraw(session, campaign.id, purpose=LabelPurpose.TRAINING)
        assert tasks.items_before(session, campaign.id, 9) == []
        assert tasks.rounds_of(session, campaign.id, [ItemId("a")]) == {}
    say(store, "y", cannot_tell("a"))  # too late to ask anybody else
    assert counted(store, campaign) == tasks.TaskCounts()
    hand_out(store, campaign, ["a"], number=2, annotations=3)
    assert lease(store, campaign, "x", slots=5) == []
    assert lease(store, campaign, "z", slots=5) == ["a"]
    assert say(store, "z", label("a", 0)).waiting == 1
    assert say(store, "y", label("a", 0)).waiting == 0
    assert effective(store, campaign) == {"a": (0,)}


def test_tasks_of_the_oracle_wait_for_it_until_they_are_handed_to_people(store: Store) -> None:
    campaign = add_campaign(store)
    hand_out(store, campaign, ["a", "b"], audience=Audience.ORACLE)
    hand_out(store, campaign, ["p"], number=1)
    assert lease(store, campaign, "x") == ["p"]
    with store.writing() as session:
        tasks.hand_to_people(session, campaign.id, [ItemId("b"), ItemId("unknown")])
    with store.reading() as session:
        assert tasks.outstanding(session, campaign.id, audience=Audience.ORACLE) == ["a"]
        assert tasks.outstanding(session, campaign.id, audience=Audience.PEOPLE) == ["b", "p"]
        assert tasks.outstanding(session, campaign.id) == ["a", "b", "p"]
    assert lease(store, campaign, "x") == ["b"]


def test_an_annotator_gets_no_item_that_he_answered_skipped_or_could_not_tell(store: Store) -> None:
    campaign = add_campaign(store)
    hand_out(store, campaign, ["a", "b", "c"])
    assert lease(store, campaign, "x") == ["a", "b", "c"]
    assert say(store, "x", skip("a"), cannot_tell("b")).waiting == 2
    assert lease(store, campaign, "x") == []
    assert lease(store, campaign, "y") == ["a", "b"]
    assert counted(store, campaign) == tasks.TaskCounts(open=0, leased=3)


def test_an_item_is_given_up_after_as_many_as_the_campaign_says_cannot_tell(store: Store) -> None:
    campaign = add_campaign(store)
    hand_out(store, campaign, ["a", "b"])
    assert say(store, "x", cannot_tell("a")).given_up == 0
    assert say(store, "x", cannot_tell("a")).given_up == 0  # the same annotator again
    assert say(store, "y", cannot_tell("a")) == Committed(accepted=1, unsolicited=0, corrections=0, given_up=1)
    assert counted(store, campaign) == tasks.TaskCounts(open=1, given_up=1)
    with store.reading() as session:
        assert tasks.outstanding(session, campaign.id) == ["b"]
    assert say(store, "z", label("a")).accepted == 1  # somebody could after all
    assert counted(store, campaign) == tasks.TaskCounts(open=1)
    assert effective(store, campaign) == {"a": (0,)}


def test_what_the_campaigns_own_oracle_cannot_tell_goes_to_as_many_people_as_ever(store: Store) -> None:
    campaign = add_campaign(store, oracle=pb.OracleSpec(name="llm", llm=pb.LlmSpec(model="m")))
    hand_out(store, campaign, ["a"], audience=Audience.ORACLE)
    assert say(store, "llm:m", cannot_tell("a")).given_up == 0
    with store.writing() as session:
        tasks.hand_to_people(session, campaign.id, [ItemId("a")])
    assert say(store, "x", cannot_tell("a")).given_up == 0
    assert say(store, "y", cannot_tell("a")).given_up == 1


def test_an_item_is_labelled_once_so_many_agree(store: Store) -> None:
    campaign = add_campaign(store, annotation=THREE)
    hand_out(store, campaign, ["a", "b"], annotations=3)
    for annotator in "xyz":
        assert lease(store, campaign, annotator, slots=5) == ["a", "b"]
    assert lease(store, campaign, "w", slots=5) == []
    assert say(store, "x", label("a", 0)).waiting == 1
    assert say(store, "y", label("a", 1)).waiting == 1
    assert effective(store, campaign) == {}
    assert say(store, "z", label("a", 1)) == Committed(accepted=1, unsolicited=0, corrections=0)
    assert effective(store, campaign) == {"a": (1,)}
    with store.reading() as session:
        assert tasks.outstanding(session, campaign.id) == ["b"]
        assert campaigns.get(session, "c").labelled == 1
        (arrived,) = events.after(session, campaign.id, 0)
        assert (arrived.labels_arrived.accepted, arrived.labels_arrived.labels) == (1, 1)


def test_disagreement_asks_for_one_more_and_then_gives_up(store: Store) -> None:
    campaign = add_campaign(store, classes=["a", "b", "c", "d"], task=common_pb2.TASK_KIND_MULTICLASS, annotation=THREE)
    hand_out(store, campaign, ["i"], annotations=3)
    for at, annotator in enumerate("xyz"):
        assert lease(store, campaign, annotator, slots=5) == ["i"]
        assert say(store, annotator, label("i", at)).waiting == 1
    assert lease(store, campaign, "z", slots=5) == []
    assert lease(store, campaign, "u", slots=5) == ["i"]
    assert lease(store, campaign, "v", slots=5) == []
    assert say(store, "u", label("i", 3)).waiting == 1
    assert lease(store, campaign, "v", slots=5) == ["i"]
    assert say(store, "v", cannot_tell("i")).waiting == 1
    assert lease(store, campaign, "w", slots=5) == ["i"]
    assert say(store, "w", label("i", 2)) == Committed(accepted=1, unsolicited=0, corrections=0)
    assert effective(store, campaign) == {"i": (2,)}
    # The same with one more tie.
    hand_out(store, campaign, ["j"], number=1, annotations=3)
    for annotator, index in zip("xyzu", (0, 1, 2, 3), strict=True):
        say(store, annotator, label("j", index))
    say(store, "x", label("j", 1))  # y and x now say 1
    assert effective(store, campaign)["j"] == (1,)
    hand_out(store, campaign, ["k"], number=2, annotations=3)
    for annotator, index in zip("xyzuv", (0, 0, 1, 1, 2), strict=True):
        done = say(store, annotator, label("k", index))
        if annotator == "z":  # two said 0
            assert effective(store, campaign)["k"] == (0,)
    assert done == Committed(accepted=1, unsolicited=0, corrections=0)
    assert effective(store, campaign)["k"] == (0,)  # a tie after the label leaves it


def test_as_many_as_disagree_to_the_end_are_given_up(store: Store) -> None:
    campaign = add_campaign(store, annotation=pb.AnnotationSpec(annotations=2, max_annotations=2))
    hand_out(store, campaign, ["i"], annotations=2)
    say(store, "x", label("i", 0))
    assert say(store, "y", label("i", 1)) == Committed(accepted=1, unsolicited=0, corrections=0, given_up=1)
    assert counted(store, campaign).given_up == 1
    assert lease(store, campaign, "z", slots=2) == []
    assert say(store, "z", label("i", 1)).accepted == 1
    assert effective(store, campaign) == {"i": (1,)}
    assert counted(store, campaign) == tasks.TaskCounts()


def test_a_second_answer_replaces_the_first_and_may_correct_the_label(store: Store) -> None:
    campaign = add_campaign(store, annotation=THREE)
    hand_out(store, campaign, ["a"], annotations=3)
    say(store, "x", label("a", 0))
    say(store, "x", label("a", 1))
    with store.reading() as session:
        assert len(tasks.outstanding(session, campaign.id)) == 1
    assert counted(store, campaign).open == 2
    say(store, "x", cannot_tell("a"))
    assert counted(store, campaign).open == 3  # his vote is gone, and another's is wanted instead
    for annotator in "xyz":
        say(store, annotator, label("a", 1))
    assert say(store, "x", label("a", 0)) == Committed(accepted=1, unsolicited=0, corrections=0)
    assert effective(store, campaign) == {"a": (1,)}
    assert say(store, "y", label("a", 0)).corrections == 1
    assert effective(store, campaign) == {"a": (0,)}
    with store.reading() as session:
        assert campaigns.get(session, "c").labelled == 1


def test_a_late_answer_takes_nobodys_slot_while_another_is_free(store: Store, clock: FakeClock) -> None:
    campaign = add_campaign(store, annotation=THREE)
    hand_out(store, campaign, ["a"], annotations=3)
    lease(store, campaign, "late", slots=5)
    clock.advance(60)
    (held,) = lease_tasks(store, campaign, "y", slots=5)
    say(store, "late", label("a", 0))
    assert counted(store, campaign) == tasks.TaskCounts(open=1, leased=1)
    with store.writing() as session:
        campaigns.lock(session, "c")
        assert leases.renew(session, campaign.id, annotator="y", task_ids=[], until=clock.now()) == [held.id]


def test_only_as_many_labels_as_the_budget_has_room_for_are_taken_votes_apart(store: Store) -> None:
    campaign = add_campaign(store, budget=6, annotation=pb.AnnotationSpec(annotations=2))
    say(store, "x", *(label(f"i{at}") for at in range(9)))
    with pytest.raises(FailedPrecondition, match="budget of 6"):
        say(store, "y", *(label(f"i{at}") for at in range(7)))
    say(store, "y", *(label(f"i{at}") for at in range(6)))
    assert len(effective(store, campaign)) == 6


def test_items_held_out_in_the_pool_cost_budget_and_are_never_labels_for_training(store: Store) -> None:
    campaign = add_campaign(store, budget=6)
    hand_out(store, campaign, ["e0", "e1"], purpose=LabelPurpose.EVALUATION)
    assert say(store, "x", label("e0", 1)).unsolicited == 0
    assert effective(store, campaign) == {}
    assert effective(store, campaign, LabelPurpose.EVALUATION) == {"e0": (1,)}
    say(store, "x", label("e0", 0), purpose=LabelPurpose.EVALUATION)
    with store.reading() as session:
        now = campaigns.get(session, "c")
        assert (now.labelled, now.evaluation_labelled) == (0, 1)
    say(store, "x", *(label(f"i{at}") for at in range(5)))
    with pytest.raises(FailedPrecondition, match="beyond the budget"):
        say(store, "x", label("e1"))
    with pytest.raises(InvalidArgument, match="purpose"):
        say(store, "x", label("e1"), purpose=LabelPurpose.TRAINING)
    with pytest.raises(InvalidArgument, match="purpose"):
        say(store, "x", label("i9"), purpose=LabelPurpose.EVALUATION)


def test_audit_labels_cost_nothing_and_stand_apart(store: Store) -> None:
    campaign = add_campaign(store, budget=6)
    hand_out(store, campaign, ["a0"], purpose=LabelPurpose.AUDIT)
    say(store, "x", *(label(f"i{at}") for at in range(6)))
    assert counted(store, campaign) == tasks.TaskCounts(open=1, review=1)
    assert say(store, "x", label("a0")) == Committed(accepted=1, unsolicited=0, corrections=0)
    assert effective(store, campaign, LabelPurpose.AUDIT) == {"a0": (0,)}
    assert "a0" not in effective(store, campaign)
    assert counted(store, campaign) == tasks.TaskCounts()
    with store.reading() as session:
        assert tasks.items_before(session, campaign.id, 0) == ["a0"]
        assert tasks.rounds_of(session, campaign.id, [ItemId("a0")]) == {}
        assert labels.count_items(session, campaign.id, purpose=LabelPurpose.AUDIT) == 1


def test_a_review_is_answered_by_a_label_for_training_and_asks_its_annotator_too(store: Store) -> None:
    campaign = add_campaign(store)
    hand_out(store, campaign, ["a"])
    say(store, "x", label("a", 0))
    hand_out(store, campaign, ["a"], purpose=LabelPurpose.REVIEW)
    assert lease(store, campaign, "x") == ["a"]
    assert say(store, "x", skip("a")).waiting == 0
    assert lease(store, campaign, "x") == []
    assert lease(store, campaign, "y") == ["a"]
    assert say(store, "y", label("a", 1)).corrections == 1
    assert effective(store, campaign) == {"a": (1,)}
    assert counted(store, campaign) == tasks.TaskCounts()


def test_a_doubted_label_stands_when_nobody_can_tell(store: Store) -> None:
    campaign = add_campaign(store)
    hand_out(store, campaign, ["a"])
    say(store, "x", label("a", 0))
    hand_out(store, campaign, ["a"], purpose=LabelPurpose.REVIEW)
    say(store, "y", cannot_tell("a"))
    assert counted(store, campaign) == tasks.TaskCounts(open=1, review=1)
    assert say(store, "z", cannot_tell("a")).given_up == 0
    assert counted(store, campaign) == tasks.TaskCounts()
    assert effective(store, campaign) == {"a": (0,)}


def test_leases_are_renewed_and_given_back_by_their_annotator_alone(store: Store, clock: FakeClock) -> None:
    campaign = add_campaign(store)
    hand_out(store, campaign, ["a", "b", "c", "d"])
    a, b, c, d = (task.id for task in lease_tasks(store, campaign, "x"))
    clock.advance(60)
    assert [task.id for task in lease_tasks(store, campaign, "y", 1)] == [a]
    say(store, "x", label("d"))
    with store.writing() as session:
        campaigns.lock(session, "c")
        until = clock.now()
        assert leases.renew(session, campaign.id, annotator="x", task_ids=[a, b, d, 2**62], until=until) == [b]
        assert sorted(leases.renew(session, campaign.id, annotator="x", task_ids=[], until=until)) == [b, c]
        assert leases.release(session, campaign.id, annotator="x", task_ids=[a, b]) == 1
        assert leases.release(session, campaign.id, annotator="x", task_ids=[]) == 1
        assert leases.release(session, campaign.id, annotator="x", task_ids=[]) == 0
        assert leases.count_waiting(session, campaign.id, now=until, purposes=[LabelPurpose.TRAINING]) == 2


def test_no_item_is_leased_twice_by_many_annotators_at_once_nor_two_of_its_tasks_to_one(store: Store) -> None:
    campaign = add_campaign(store, annotation=THREE)
    hand_out(store, campaign, [f"i{at:02d}" for at in range(20)], annotations=3)
    together = threading.Barrier(8)

    def annotator(number: int) -> list[tuple[str, str, int]]:
        mine: list[tuple[str, str, int]] = []
        together.wait()
        for _ in range(6):
            # Two threads a name.
            leased = lease_tasks(store, campaign, f"x{number // 2}", 3, slots=5)
            mine += [(f"x{number // 2}", task.item_id, task.id) for task in leased]
        return mine

    with ThreadPoolExecutor(8) as pool:
        taken = [one for mine in pool.map(annotator, range(8)) for one in mine]
    assert len({key for _, _, key in taken}) == len(taken)
    assert len({(name, item) for name, item, _ in taken}) == len(taken)


def test_dawid_skene_corrects_what_a_majority_of_bad_annotators_said_and_only_once(store: Store) -> None:
    pytest.importorskip("crowdkit")
    agreement = pb.AnnotationSpec(annotations=3, agreement=pb.AGREEMENT_DAWID_SKENE)
    campaign = add_campaign(store, annotation=agreement)
    items = [f"i{at:02d}" for at in range(24)]
    hand_out(store, campaign, items, annotations=3)
    truth = {item: at % 2 for at, item in enumerate(items)}
    # Two err in i03, which a third, who says the contrary of everything, makes a majority; two others are right.
    for annotator in "xy":
        say(store, annotator, *(label(item, truth[item] ^ (item == "i03")) for item in items))
    for annotator in "uv":
        say(store, annotator, *(label(item, truth[item]) for item in items if item != "i04"))
    say(store, "contrary", *(label(item, 1 - truth[item]) for item in items))
    before = effective(store, campaign)
    with store.writing() as session:
        corrected = resolve_all(session, campaigns.lock(session, "c"), now=store.clock.now())
    with store.writing() as session:
        assert resolve_all(session, campaigns.lock(session, "c"), now=store.clock.now()) == 0
    after = effective(store, campaign)
    assert corrected == sum(before[item] != after[item] for item in before)
    assert after == {item: (truth[item],) for item in items}
    assert corrected == 1
    with store.reading() as session:
        assert campaigns.get(session, "c").labelled == 24


def test_campaigns_of_one_annotation_or_of_the_majority_are_left_alone(store: Store) -> None:
    add_campaign(store, annotation=THREE)
    for annotator in "xyz":
        say(store, annotator, label("a"))
    with store.writing() as session:
        assert resolve_all(session, campaigns.lock(session, "c"), now=store.clock.now()) == 0
