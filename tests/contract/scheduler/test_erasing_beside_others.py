"""Erasure while others write, and what of it is left when it fails, on both databases."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, select, update
from sqlalchemy.exc import DatabaseError

from scheduler.domain.states import RoundKind, RoundState
from scheduler.service.erasing import ErasureService
from scheduler.service.labels import LabelService
from scheduler.storage import campaigns, erasing, events, llm_answers
from scheduler.storage.models import Annotation, Campaign, Event, Label, LlmAnswer, Round
from scheduler.storage.store import Store
from sealpool.types import ItemId
from sealpool.v1 import scheduler_pb2
from tests.unit.scheduler.fakes import FakeIndex
from tests.unit.scheduler.world import make_spec

CAMPAIGNS, THREADS, SUBMISSIONS = ("a", "b", "c"), 4, 12
SECRET = "item-of-Erika"
WHO = "Erika Mustermann, annotator"
LOGS: Sequence[Any] = (Label, Annotation)


@pytest.fixture
def index() -> FakeIndex:
    fake = FakeIndex()
    fake.add_pool("pool", 200)
    return fake


@pytest.fixture
def erase(store: Store, index: FakeIndex) -> Callable[..., scheduler_pb2.EraseResponse]:
    service = ErasureService(store=store, index=index, max_names=5000)
    return lambda campaign, **given: service.erase(scheduler_pb2.EraseRequest(campaign=campaign, **given))


@pytest.fixture
def submit(store: Store, index: FakeIndex) -> Callable[..., scheduler_pb2.SubmitLabelsResponse]:
    service = LabelService(store=store, index=index, max_labels=5000, on_labels=lambda _: None)

    def submit(campaign: str, items: list[str], annotator: str) -> scheduler_pb2.SubmitLabelsResponse:
        labels = [scheduler_pb2.NewLabel(item_id=item, classes=["a"], comment="of her") for item in items]
        return service.submit(scheduler_pb2.SubmitLabelsRequest(campaign=campaign, annotator=annotator, labels=labels))

    return submit


def make(store: Store, *names: str) -> None:
    with store.writing() as session:
        for name in names:
            campaigns.add(session, make_spec(name=name, pool="pool", budget=5000), now=store.clock.now())


def test_labels_that_arrive_while_others_are_erased_are_all_kept_and_nobody_waits_for_ever(
    store: Store,
    index: FakeIndex,
    erase: Callable[..., scheduler_pb2.EraseResponse],
    submit: Callable[..., scheduler_pb2.SubmitLabelsResponse],
) -> None:
    make(store, *CAMPAIGNS)
    for name in CAMPAIGNS:
        submit(name, ["i000", "i001", "i002"], "anna")
    for item in ("i000", "i001", "i002"):
        del index.pools["pool"][ItemId(item)]
    together = threading.Barrier(THREADS + len(CAMPAIGNS))

    def label(thread: int) -> None:
        together.wait(30)
        for number in range(SUBMISSIONS):
            first = 10 + (thread * SUBMISSIONS + number) * 2
            submit(CAMPAIGNS[number % len(CAMPAIGNS)], [f"i{first:03}", f"i{first + 1:03}"], f"annotator {thread}")

    def take_out(name: str) -> None:
        together.wait(30)
        for item in ("i000", "i001", "i002"):
            erase(name, item_ids=[item])
        erase(name, annotators=["anna"])

    with ThreadPoolExecutor(THREADS + len(CAMPAIGNS)) as threads:
        under_way = [threads.submit(label, thread) for thread in range(THREADS)]
        under_way += [threads.submit(take_out, name) for name in CAMPAIGNS]
        for future in under_way:
            future.result(timeout=60)
    with store.reading() as session:
        for model in LOGS:
            assert session.scalar(select(func.count()).select_from(model)) == 3 * 3 + THREADS * SUBMISSIONS * 2
            assert not session.scalars(select(model.sequence).where(model.item_id.in_(["i000", "i001", "i002"]))).all()
            assert not session.scalars(select(model.sequence).where(model.annotator == "anna")).all()
        assert session.scalar(select(func.sum(Campaign.labelled))) == 3 * 3 + THREADS * SUBMISSIONS * 2


def test_an_erasure_that_fails_in_the_middle_leaves_all_as_it_was_and_labels_append_only(
    store: Store,
    index: FakeIndex,
    erase: Callable[..., scheduler_pb2.EraseResponse],
    submit: Callable[..., scheduler_pb2.SubmitLabelsResponse],
) -> None:
    make(store, "a")
    submit("a", ["i000"], "anna")
    del index.pools["pool"][ItemId("i000")]

    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("UPDATE annotations SET item_id"):
            raise RuntimeError("in the middle")

    event.listen(store.engine, "before_cursor_execute", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        erase("a", item_ids=["i000"], annotators=["anna"])
    event.remove(store.engine, "before_cursor_execute", fail)
    for model in LOGS:
        with store.reading() as session:
            (row,) = session.scalars(select(model))
            assert (row.item_id, row.annotator) == ("i000", "anna")
        with pytest.raises(DatabaseError, match="append-only"), store.writing() as session:
            session.execute(update(model).values(annotator="x"))
    assert erase("a", item_ids=["i000"], annotators=["anna"]) == scheduler_pb2.EraseResponse(items=1, annotators=1)


def test_thousands_of_items_are_erased_in_a_few_statements(
    store: Store,
    index: FakeIndex,
    erase: Callable[..., scheduler_pb2.EraseResponse],
    submit: Callable[..., scheduler_pb2.SubmitLabelsResponse],
) -> None:
    make(store, "a")
    index.add_pool("pool", 2000)
    items = list(index.pools["pool"])
    submit("a", items, "anna")
    index.pools["pool"].clear()
    statements: list[str] = []
    event.listen(
        store.engine, "before_cursor_execute", lambda _connection, _cursor, statement, *_: statements.append(statement)
    )
    assert erase("a", item_ids=[*items, *(f"unknown {n}" for n in range(2000))]).items == 2000
    assert len(statements) < 250
    with store.reading() as session:
        names = session.scalars(select(Label.item_id)).all()
    assert len(set(names)) == 2000
    assert all(name.startswith("erased:") for name in names)


def test_errors_and_notes_that_quote_an_item_or_an_annotator_forget_it_too(
    store: Store, index: FakeIndex, erase: Callable[..., scheduler_pb2.EraseResponse]
) -> None:
    make(store, "a")
    with store.writing() as session:
        campaign = campaigns.lock(session, "a")
        error = f"2 of 20 items have no text, '{SECRET}' for example; annotator 'anna' of 7 rows"
        round_ = Round(
            campaign_id=campaign.id,
            number=1,
            kind=RoundKind.MODEL,
            state=RoundState.FAILED,
            snapshot=0,
            batch=1,
            labels=0,
            error=error,
            strategy_reason=error,
            notes=["fine", error],
            started_at=store.clock.now(),
        )
        session.add(round_)
        campaign.state_reason = error
        told = scheduler_pb2.WatchCampaignResponse()
        told.round_changed.round.error = error
        told.round_changed.round.notes.append(error)
        events.add(session, campaign, told)
    erase("a", item_ids=[SECRET, "7"], annotators=["anna"])
    with store.reading() as session:
        row = session.scalars(select(Round)).one()
        reason = campaigns.get(session, "a").state_reason
        (heard,) = events.after(session, row.campaign_id, 0)
        raw = session.scalars(select(Event.body)).one()
    assert SECRET.encode() not in raw
    texts = [row.error, row.strategy_reason, row.notes[1], reason, *heard.round_changed.round.notes]
    for text in (*texts, heard.round_changed.round.error):
        assert SECRET not in text
        assert "'erased:" in text
        assert "of 7 rows" in text  # an id is found where it is quoted, not in a number
    assert row.notes[0] == "fine"


def test_an_item_of_the_same_text_is_not_given_the_empty_answer(
    store: Store, erase: Callable[..., scheduler_pb2.EraseResponse]
) -> None:
    make(store, "a")
    with store.writing() as session:
        campaign = campaigns.get(session, "a")
        answer = llm_answers.NewAnswer(
            item_id=ItemId(SECRET),
            prompt_hash="0" * 64,
            sample=0,
            endpoint="e",
            model="m",
            answer="a",
            problem="",
            tokens_in=1,
            tokens_out=1,
            cost=1.0,
        )
        llm_answers.add(session, campaign.id, answer, now=store.clock.now())
    erase("a", item_ids=[SECRET])
    with store.reading() as session:
        assert llm_answers.find(session, campaign.id, prompt_hash="0" * 64, sample=0) is None
        assert session.scalars(select(LlmAnswer.answer)).all() == [""]
        assert llm_answers.spent(session, campaign.id).cost == 1.0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # PostgreSQL has VACUUM for this
def test_no_byte_of_what_was_erased_stays_in_sqlites_files(
    store: Store,
    index: FakeIndex,
    erase: Callable[..., scheduler_pb2.EraseResponse],
    submit: Callable[..., scheduler_pb2.SubmitLabelsResponse],
    tmp_path: Path,
) -> None:
    make(store, "a")
    index.add_pool("pool", 1000)
    items = list(index.pools["pool"])
    submit("a", items, WHO)
    assert holding(tmp_path, WHO) != []
    for item in items[500:600]:
        del index.pools["pool"][item]
    erase("a", annotators=[WHO], item_ids=items[500:600])
    assert [name for name in (WHO, *items[500:600]) if holding(tmp_path, name)] == []
    assert holding(tmp_path, items[0]) != []


def holding(folder: Path, what: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and what.encode() in path.read_bytes()]


def test_triggers_are_named_as_the_erasure_names_them(store: Store) -> None:
    # Else it would find none to lift, or lift and not bring back.
    with store.writing() as session, erasing.append_only_lifted(session):
        session.execute(update(Label).values(annotator="x"))
        session.execute(update(Annotation).values(annotator="x"))
