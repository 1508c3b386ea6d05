"""One suite over SQLite and PostgreSQL."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from scheduler import messages
from scheduler.domain.answers import Answer
from scheduler.domain.states import LabelPurpose, RoundKind, RoundState
from scheduler.labelling import Committed, commit_answers
from scheduler.service.once import Once
from scheduler.storage import campaigns, events, labels, leases, requests, rounds, tasks
from scheduler.storage.engine import open_engine
from scheduler.storage.migrate import alembic_config, migrate
from scheduler.storage.models import Base, Campaign, Round
from scheduler.storage.store import Store
from sealpool.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, scheduler_pb2
from tests.unit.scheduler.fakes import FakeClock
from tests.unit.scheduler.world import make_spec


def add_campaign(store: Store, name: str = "c", budget: int = 1000) -> Campaign:
    with store.writing() as session:
        return campaigns.add(
            session, make_spec(name=name, budget=budget, evaluation_pool="held-out"), now=store.clock.now()
        )


def add_round(session: Session, campaign: Campaign, number: int, picks: Sequence[str], snapshot: int = 0) -> Round:
    row = Round(
        campaign_id=campaign.id,
        number=number,
        kind=RoundKind.MODEL,
        state=RoundState.FINISHED,
        snapshot=snapshot,
        batch=len(picks),
        labels=0,
        started_at=campaign.created_at,
    )
    session.add(row)
    session.flush()
    picked = [tasks.Pick(item_id=ItemId(item), score=1.0, origin=common_pb2.PICK_ORIGIN_CANDIDATE) for item in picks]
    tasks.add(session, campaign.id, number, picks=picked, labelled=())
    return row


def submit(
    store: Store, given: dict[str, int], *, name: str = "c", purpose: LabelPurpose = LabelPurpose.TRAINING
) -> Committed:
    with store.writing() as session:
        campaign = campaigns.lock(session, name)
        return commit_answers(
            session,
            campaign,
            [Answer(item_id=ItemId(item), classes=(label,)) for item, label in given.items()],
            annotator="ann",
            purpose=purpose,
            now=store.clock.now(),
        )


def effective(
    store: Store, campaign: Campaign, *, until: int = 2**40, purpose: LabelPurpose = LabelPurpose.TRAINING
) -> dict[str, int]:
    with store.reading() as session:
        found = labels.effective(session, campaign.id, purpose=purpose, until=until)
    return {item: classes[0] for item, classes in found.items()}


def test_migrations_make_the_tables_of_the_models(store: Store) -> None:
    migrate(store)  # a second start finds nothing to do
    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_several_processes_may_migrate_at_once(database_url: str, clock: FakeClock) -> None:
    stores = [Store(open_engine(database_url, connections=2), clock=clock) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, stores))
    for store in stores:
        store.close()


def test_rounds_of_the_first_version_come_through_the_migrations(database_url: str, clock: FakeClock) -> None:
    old = Store(open_engine(database_url, connections=2), clock=clock)
    with old.writing_engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0001")
        connection.execute(
            text(
                "INSERT INTO campaigns (id, name, spec, state, created_at, labelled, last_sequence, held_out_loaded, "
                "drop_pending) VALUES (1, 'c', :spec, 'active', '2026-01-01 00:00:00', 0, 0, :no, :no)"
            ),
            {"spec": make_spec().SerializeToString(), "no": False},
        )
        connection.execute(
            text(
                "INSERT INTO rounds (campaign_id, number, kind, state, snapshot, batch, labels, picks, seconds, error, "
                "pool_version, started_at) VALUES (1, 1, 'random', 'selecting', 0, 5, 0, 0, :nothing, '', 0, "
                "'2026-01-01 00:00:00')"
            ),
            {"nothing": b""},
        )
    migrate(old)
    with old.reading() as session:
        (row,) = rounds.every(session, 1)
        assert RoundKind(row.kind) is RoundKind.WITHOUT_MODEL
        assert (row.strategy, row.strategy_reason, row.notes) == ("", "", [])
        assert list(messages.round_message(row).notes) == []
    old.close()


def test_a_database_of_a_newer_version_is_refused_in_one_line(store: Store) -> None:
    with store.writing_engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(FailedPrecondition, match="at revision 9999, which this version does not know") as caught:
        migrate(store)
    assert "\n" not in caught.value.message


def test_a_database_that_is_away_is_unavailable(clock: FakeClock) -> None:
    away = Store(open_engine("postgresql+psycopg://u:secret@127.0.0.1:1/x", connections=2), clock=clock)
    with pytest.raises(Unavailable) as caught:
        migrate(away)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("url", ["nonsense:secret", "mysql://u:secret@host/x", "postgresql+nodriver://secret@h/x"])
def test_what_is_no_database_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidArgument, match="database_url") as caught:
        open_engine(url, connections=2)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("statement", ["UPDATE labels SET annotator = 'other'", "DELETE FROM labels"])
def test_the_label_log_refuses_changes(store: Store, statement: str) -> None:
    campaign = add_campaign(store)
    submit(store, {"x": 0})
    with store.writing_engine.connect() as connection, pytest.raises(DBAPIError, match="append-only"):
        connection.execute(text(statement))
    assert effective(store, campaign) == {"x": 0}


def test_an_items_effective_label_is_its_latest_as_of_a_sequence(store: Store) -> None:
    campaign = add_campaign(store)
    assert submit(store, {"x": 0, "y": 0}) == Committed(accepted=2, unsolicited=2, corrections=0)
    with store.reading() as session:
        snapshot = campaigns.get(session, "c").last_sequence
    assert submit(store, {"x": 1, "z": 1}) == Committed(accepted=2, unsolicited=2, corrections=1)
    assert effective(store, campaign) == {"y": 0, "x": 1, "z": 1}
    assert effective(store, campaign, until=snapshot) == {"x": 0, "y": 0}
    with store.reading() as session:
        assert campaigns.get(session, "c").labelled == 3
        assert labels.arrived_since(session, campaign.id, snapshot) == 2


def test_held_out_labels_are_a_log_of_their_own(store: Store) -> None:
    campaign = add_campaign(store)
    submit(store, {"x": 0})
    assert submit(store, {"x": 1, "h": 1}, purpose=LabelPurpose.EVALUATION) == Committed(
        accepted=2, unsolicited=0, corrections=0
    )
    assert effective(store, campaign) == {"x": 0}
    assert effective(store, campaign, purpose=LabelPurpose.EVALUATION) == {"x": 1, "h": 1}
    with store.reading() as session:
        assert campaigns.get(session, "c").labelled == 1


def test_pages_of_the_log_end_at_the_sequence_asked_for(store: Store) -> None:
    campaign = add_campaign(store)
    submit(store, {f"i{i}": 0 for i in range(5)})
    with store.reading() as session:
        until = campaigns.get(session, "c").last_sequence
    submit(store, {"i1": 1})
    with store.reading() as session:

        def page(after: int, *, only_effective: bool, until: int) -> list[str]:
            found = labels.page(
                session,
                campaign.id,
                purpose=LabelPurpose.TRAINING,
                only_effective=only_effective,
                after=after,
                until=until,
                limit=3,
            )
            return [label.item_id for label in found]

        assert page(0, only_effective=False, until=until) == ["i0", "i1", "i2"]
        assert page(until - 2, only_effective=False, until=until) == ["i3", "i4"]
        assert page(0, only_effective=True, until=until) == ["i0", "i1", "i2"]
        assert page(0, only_effective=True, until=until + 9) == ["i0", "i2", "i3"]


def test_labels_beyond_the_budget_change_nothing(store: Store) -> None:
    campaign = add_campaign(store, budget=10)
    submit(store, {f"i{i}": 0 for i in range(9)})
    with pytest.raises(FailedPrecondition, match="budget of 10"):
        submit(store, {"i0": 1, "x": 0, "y": 0})
    assert effective(store, campaign) == {f"i{i}": 0 for i in range(9)}
    submit(store, {"i0": 1, "x": 0})
    assert len(effective(store, campaign)) == 10


def test_tasks_are_leased_newest_round_first_and_most_wanted_first(store: Store, clock: FakeClock) -> None:
    campaign = add_campaign(store)
    with store.writing() as session:
        add_round(session, campaign, 0, ["a", "b"])
        add_round(session, campaign, 1, ["c", "d"])

    def lease(count: int) -> list[str]:
        with store.writing() as session:
            leased = leases.lease(session, campaign.id, annotator="x", count=count, now=clock.now(), lease_s=60)
            return [task.item_id for task in leased]

    assert lease(3) == ["c", "d", "a"]
    assert lease(3) == ["b"]
    assert lease(3) == []
    submit(store, {"c": 0})
    clock.advance(60)
    with store.reading() as session:
        assert tasks.counts(session, [campaign.id], now=clock.now()) == {campaign.id: tasks.TaskCounts(open=3)}
    assert lease(9) == ["d", "a", "b"]
    with store.writing() as session:
        tasks.withdraw(session, campaign.id)
    clock.advance(60)
    assert lease(9) == []


def test_no_item_is_leased_to_two_annotators_that_ask_at_once(store: Store) -> None:
    campaign = add_campaign(store)
    with store.writing() as session:
        add_round(session, campaign, 0, [f"i{i:03d}" for i in range(120)])
    together = threading.Barrier(8)

    def annotator(name: int) -> list[str]:
        mine: list[str] = []
        together.wait()
        for _ in range(10):
            with store.writing() as session:
                now = store.clock.now()
                leased = leases.lease(session, campaign.id, annotator=str(name), count=2, now=now, lease_s=60)
                mine += [task.item_id for task in leased]
        return mine

    with ThreadPoolExecutor(8) as pool:
        taken = [item for mine in pool.map(annotator, range(8)) for item in mine]
    assert len(taken) == len(set(taken)) == 120


def test_a_campaign_hands_an_item_out_once(store: Store) -> None:
    campaign = add_campaign(store)
    with store.writing() as session:
        add_round(session, campaign, 0, ["a"])
    with pytest.raises(DBAPIError), store.writing() as session:
        add_round(session, campaign, 1, ["a"])


def test_a_snapshot_never_misses_a_label_that_commits_later_with_a_smaller_sequence(store: Store) -> None:
    """Labels take their sequence before they commit: the campaign's lock makes the two orders one."""
    campaign = add_campaign(store)
    written, snapshot_asked = threading.Event(), threading.Event()
    snapshots: list[int] = []

    def slow_submit() -> None:
        with store.writing() as session:
            locked = campaigns.lock(session, "c")
            commit_answers(
                session,
                locked,
                [Answer(item_id=ItemId("slow"), classes=(0,))],
                annotator="ann",
                purpose=LabelPurpose.TRAINING,
                now=store.clock.now(),
            )
            session.flush()
            written.set()
            assert snapshot_asked.wait(10)

    def snapshot() -> None:
        assert written.wait(10)
        snapshot_asked.set()
        with store.writing() as session:
            snapshots.append(campaigns.lock(session, "c").last_sequence)

    threads = [threading.Thread(target=work) for work in (slow_submit, snapshot)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert effective(store, campaign, until=snapshots[0]) == {"slow": 0}


def test_concurrent_submitters_lose_nothing_and_count_right(store: Store) -> None:
    campaign = add_campaign(store)
    add_campaign(store, "other")

    def work(worker: int) -> None:
        for i in range(10):
            submit(store, {f"shared{i}": worker % 2, f"own{worker}-{i}": 0})
            submit(store, {f"x{worker}-{i}": 1}, name="other")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    with store.reading() as session:
        assert campaigns.get(session, "c").labelled == 70
        assert campaigns.get(session, "other").labelled == 60
        log = labels.page(
            session, campaign.id, purpose=LabelPurpose.TRAINING, only_effective=False, after=0, until=2**40, limit=1000
        )
    assert len(log) == 120
    assert sum(not label.corrects for label in log) == 70


def test_requests_with_one_id_at_once_take_effect_once(store: Store) -> None:
    campaign = add_campaign(store)
    once = Once(store)
    request = scheduler_pb2.SubmitLabelsRequest(campaign="c", request_id="r")

    def effect(session: Session) -> scheduler_pb2.SubmitLabelsResponse:
        locked = campaigns.lock(session, "c")
        done = commit_answers(
            session,
            locked,
            [Answer(item_id=ItemId("x"), classes=(0,))],
            annotator="a",
            purpose=LabelPurpose.TRAINING,
            now=store.clock.now(),
        )
        return scheduler_pb2.SubmitLabelsResponse(accepted=done.accepted, corrections=done.corrections)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: once.run(request, scheduler_pb2.SubmitLabelsResponse, effect), range(6)))
    assert all(answer == answers[0] for answer in answers)
    with store.reading() as session:
        log = labels.page(
            session, campaign.id, purpose=LabelPurpose.TRAINING, only_effective=False, after=0, until=99, limit=9
        )
    assert len(log) == 1
    with pytest.raises(InvalidArgument, match="other content"):
        once.run(
            scheduler_pb2.SubmitLabelsRequest(campaign="other", request_id="r"),
            scheduler_pb2.SubmitLabelsResponse,
            effect,
        )


def test_an_effect_that_fails_is_not_remembered(store: Store) -> None:
    once = Once(store)
    request = scheduler_pb2.RunRoundRequest(campaign="c", request_id="r")

    def refuse(session: Session) -> scheduler_pb2.RunRoundResponse:
        raise FailedPrecondition("not now")

    with pytest.raises(FailedPrecondition):
        once.run(request, scheduler_pb2.RunRoundResponse, refuse)
    assert once.answered(request, scheduler_pb2.RunRoundResponse) is None


def test_request_ids_are_forgotten_after_their_time(store: Store, clock: FakeClock) -> None:
    with store.writing() as session:
        requests.add(session, [requests.Answered(request_id="old", digest="d", answer=b"")], now=clock.now())
        clock.advance(100)
        requests.add(session, [requests.Answered(request_id="new", digest="d", answer=b"")], now=clock.now())
        requests.forget_before(session, clock.now())
    with store.reading() as session:
        assert requests.find(session, ["old", "new"]).keys() == {"new"}


def test_long_lists_of_items_fit_into_statements(store: Store) -> None:
    campaign = add_campaign(store, budget=100_000)
    items = [f"i{i:06d}" for i in range(10_500)]
    with store.writing() as session:
        add_round(session, campaign, 0, items)
    assert submit(store, dict.fromkeys(items, 0)) == Committed(accepted=10_500, unsolicited=0, corrections=0)
    with store.reading() as session:
        assert tasks.outstanding(session, campaign.id) == []


def test_times_come_back_aware_and_in_utc(store: Store, clock: FakeClock) -> None:
    add_campaign(store)
    with store.reading() as session:
        assert campaigns.get(session, "c").created_at == clock.now()
        assert campaigns.get(session, "c").created_at.tzinfo is not None


def test_events_are_told_in_order_and_in_pages(store: Store) -> None:
    campaign = add_campaign(store)
    submit(store, {"x": 0})
    submit(store, {"y": 0})
    with store.reading() as session:
        first, second = events.after(session, campaign.id, 0)
        assert (first.labels_arrived.labels, second.labels_arrived.labels) == (1, 2)
        assert events.after(session, campaign.id, first.sequence) == [second]


def test_of_two_campaigns_created_at_once_with_one_name_the_second_is_told_so(store: Store) -> None:
    together = threading.Barrier(4)

    def create(_: int) -> str:
        together.wait()
        try:
            return str(add_campaign(store).id)
        except AlreadyExists as error:
            return error.message

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(create, range(4)))
    assert answers.count("campaign 'c' exists already") == 3


def test_rounds_of_many_campaigns_are_read_together(store: Store) -> None:
    first, second, idle = (add_campaign(store, name) for name in "abc")
    with store.writing() as session:
        for number in range(3):
            add_round(session, first, number, [])
        add_round(session, second, 7, []).state = RoundState.FAILED
    ids = [first.id, second.id, idle.id]
    with store.reading() as session:
        assert {key: row.number for key, row in rounds.last_of_each(session, ids).items()} == {
            first.id: 2,
            second.id: 7,
        }
        assert rounds.finished(session, ids) == {first.id: 3, second.id: 0, idle.id: 0}


def test_an_unknown_campaign_is_not_found_whatever_its_name(store: Store) -> None:
    with store.reading() as session:
        for name in ("nobody", "", "x" * 10_000, "nul\0", "'; DROP TABLE labels; --"):
            with pytest.raises(NotFound):
                campaigns.get(session, name)


def test_unfinished_rounds_are_found_again(store: Store) -> None:
    campaign = add_campaign(store)
    with store.writing() as session:
        add_round(session, campaign, 0, []).state = RoundState.SELECTING
    with store.reading() as session:
        assert rounds.unfinished_campaigns(session) == ["c"]
        found = rounds.unfinished(session, campaign.id)
        assert found is not None
        assert found.number == 0
