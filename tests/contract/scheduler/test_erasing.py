"""People taken out of what a campaign keeps, on both databases."""

from collections.abc import Callable

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DatabaseError

from scheduler.domain.states import LabelPurpose, RoundKind, RoundState
from scheduler.service.erasing import ErasureService
from scheduler.service.labels import LabelService
from scheduler.storage import campaigns, tasks
from scheduler.storage.models import (
    Annotation,
    Base,
    Campaign,
    Label,
    LlmAnswer,
    Round,
    StreamDecision,
    SyntheticItem,
    Task,
)
from scheduler.storage.store import Store
from scheduler.storage.tasks import Pick
from sealpool.errors import FailedPrecondition, InvalidArgument, NotFound, SealpoolError
from sealpool.v1 import common_pb2, scheduler_pb2, stream_pb2
from tests.unit.scheduler.fakes import FakeIndex
from tests.unit.scheduler.world import make_spec

ITEM, OTHER, ANNOTATOR = "i001", "i002", "anna.schmidt"


@pytest.fixture
def index() -> FakeIndex:
    fake = FakeIndex()
    fake.add_pool("pool", 20)
    return fake


@pytest.fixture
def campaign(store: Store, index: FakeIndex) -> Campaign:
    with store.writing() as session:
        spec = make_spec(name="c", pool="pool", budget=9)
        spec.seeding.kind = scheduler_pb2.SEEDING_KIND_EXAMPLES
        spec.seeding.item_ids[:] = [ITEM, "i007"]
        row = campaigns.add(session, spec, now=store.clock.now())
        picks = [
            Pick(item_id=item, score=0.0, origin=common_pb2.PICK_ORIGIN_CANDIDATE) for item in (ITEM, OTHER, "i003")
        ]
        tasks.add(session, row.id, 1, picks, labelled=(), purpose=LabelPurpose.TRAINING)
        answer = {"prompt_hash": "0" * 64, "sample": 0, "endpoint": "e", "model": "m", "tokens_in": 1, "tokens_out": 1}
        session.add(
            LlmAnswer(
                campaign_id=row.id, item_id=ITEM, answer="Mrs Meier", cost=1.0, answered_at=store.clock.now(), **answer
            )
        )
        decision = stream_pb2.StreamDecision(item_id=ITEM).SerializeToString()
        session.add(StreamDecision(campaign_id=row.id, item_id=ITEM, decision=decision, decided_at=store.clock.now()))
        for made, sources in (("synthetic:1", [ITEM, OTHER]), ("synthetic:2", [OTHER])):
            item = stream_pb2.SyntheticItem(item_id=made, sources=sources, text="Mrs Meier again")
            session.add(
                SyntheticItem(
                    campaign_id=row.id,
                    item_id=made,
                    item=item.SerializeToString(),
                    real=False,
                    created_at=store.clock.now(),
                )
            )
    labels = LabelService(store=store, index=index, max_labels=9, on_labels=lambda _: None)
    labels.submit(
        scheduler_pb2.SubmitLabelsRequest(
            campaign="c",
            annotator=ANNOTATOR,
            labels=[
                scheduler_pb2.NewLabel(item_id=ITEM, classes=["a"], comment="that is my neighbour"),
                scheduler_pb2.NewLabel(item_id=OTHER, classes=["b"], comment="Anna was here"),
            ],
        )
    )
    labels.submit(
        scheduler_pb2.SubmitLabelsRequest(
            campaign="c", annotator="bo", labels=[scheduler_pb2.NewLabel(item_id="i003", classes=["b"], comment="sure")]
        )
    )
    return row


@pytest.fixture
def erase(store: Store, index: FakeIndex) -> Callable[..., scheduler_pb2.EraseResponse]:
    service = ErasureService(store=store, index=index, max_names=3)
    return lambda **given: service.erase(scheduler_pb2.EraseRequest(campaign="c", **given))


def everything(store: Store) -> str:
    """What every table holds, but for the answers to repeated calls."""
    with store.reading() as session:
        kept = [
            session.execute(select(table)).all() for table in Base.metadata.sorted_tables if table.name != "requests"
        ]
    return repr(kept)


def test_an_erased_annotator_is_nowhere_and_what_he_labelled_still_counts(
    store: Store, campaign: Campaign, erase: Callable[..., scheduler_pb2.EraseResponse]
) -> None:
    answer = erase(annotators=[ANNOTATOR, "never heard of"])
    assert answer == scheduler_pb2.EraseResponse(annotators=1)
    assert ANNOTATOR not in everything(store)
    assert "Anna was here" not in everything(store)
    with store.reading() as session:
        names = session.scalars(select(Label.annotator).order_by(Label.sequence)).all()
        comments = session.scalars(select(Annotation.comment).order_by(Annotation.sequence)).all()
        labelled = session.scalar(select(Campaign.labelled))
    assert names[0] == names[1] != names[2] == "bo"
    assert comments == ["", "", "sure"]
    assert labelled == 3


def test_an_erased_item_is_nowhere_and_its_label_still_counts(
    store: Store, index: FakeIndex, campaign: Campaign, erase: Callable[..., scheduler_pb2.EraseResponse]
) -> None:
    del index.pools["pool"][ITEM]
    answer = erase(item_ids=[ITEM])
    assert answer == scheduler_pb2.EraseResponse(items=1, derived_item_ids=["synthetic:1"])
    assert ITEM not in everything(store)
    assert "Mrs Meier'" not in everything(store)
    assert "neighbour" not in everything(store)
    with store.reading() as session:
        label = session.scalars(select(Label).order_by(Label.sequence)).first()
        row = campaigns.get(session, "c")
        decision = session.scalars(select(StreamDecision)).one()
        answered = session.scalars(select(LlmAnswer)).one()
        made = session.get_one(SyntheticItem, (campaign.id, "synthetic:1"))
    assert label is not None
    assert label.item_id.startswith("erased:")
    assert row.labelled == 3
    assert campaigns.spec_of(row).seeding.item_ids == [label.item_id, "i007"]
    assert stream_pb2.StreamDecision.FromString(decision.decision).item_id == decision.item_id == label.item_id
    assert stream_pb2.SyntheticItem.FromString(made.item).sources == [label.item_id, OTHER]
    assert (answered.item_id, answered.cost) == (label.item_id, 1.0)


def test_what_was_made_of_an_item_can_be_erased_with_it(
    store: Store, index: FakeIndex, campaign: Campaign, erase: Callable[..., scheduler_pb2.EraseResponse]
) -> None:
    del index.pools["pool"][ITEM]
    assert erase(item_ids=[ITEM, "synthetic:1"]) == scheduler_pb2.EraseResponse(items=2)
    with store.reading() as session:
        texts = {
            row.item_id: stream_pb2.SyntheticItem.FromString(row.item).text
            for row in session.scalars(select(SyntheticItem))
        }
    assert sorted(texts.values()) == ["", "Mrs Meier again"]
    assert texts["synthetic:2"] == "Mrs Meier again"


def test_a_task_of_an_erased_item_is_handed_to_nobody(
    store: Store, index: FakeIndex, campaign: Campaign, erase: Callable[..., scheduler_pb2.EraseResponse]
) -> None:
    with store.writing() as session:
        pick = Pick(item_id="i009", score=0.0, origin=common_pb2.PICK_ORIGIN_CANDIDATE)
        tasks.add(session, campaign.id, 2, [pick], labelled=(), purpose=LabelPurpose.TRAINING)
    del index.pools["pool"]["i009"]
    erase(item_ids=["i009"])
    with store.reading() as session:
        states = dict(session.execute(select(Task.item_id, Task.state)).all())  # type: ignore[arg-type]
    assert "i009" not in states
    assert "withdrawn" in {state for item, state in states.items() if item.startswith("erased:")}


def test_labels_are_append_only_again_afterwards(
    store: Store, campaign: Campaign, erase: Callable[..., scheduler_pb2.EraseResponse]
) -> None:
    erase(annotators=[ANNOTATOR])
    for model in (Label, Annotation):
        for statement in (update(model).values(annotator="x"), text(f"DELETE FROM {model.__tablename__}")):
            with pytest.raises(DatabaseError, match="append-only"), store.writing() as session:
                session.execute(statement)


def test_erasing_twice_is_harmless(
    store: Store, index: FakeIndex, campaign: Campaign, erase: Callable[..., scheduler_pb2.EraseResponse]
) -> None:
    del index.pools["pool"][ITEM]
    erase(annotators=[ANNOTATOR], item_ids=[ITEM])
    before = everything(store)
    assert erase(annotators=[ANNOTATOR], item_ids=[ITEM]) == scheduler_pb2.EraseResponse()
    assert everything(store) == before


def test_the_same_names_in_another_campaign_stay(
    store: Store, index: FakeIndex, campaign: Campaign, erase: Callable[..., scheduler_pb2.EraseResponse]
) -> None:
    with store.writing() as session:
        campaigns.add(session, make_spec(name="d", pool="pool"), now=store.clock.now())
    LabelService(store=store, index=index, max_labels=9, on_labels=lambda _: None).submit(
        scheduler_pb2.SubmitLabelsRequest(
            campaign="d", annotator=ANNOTATOR, labels=[scheduler_pb2.NewLabel(item_id=ITEM, classes=["a"])]
        )
    )
    del index.pools["pool"][ITEM]
    erase(annotators=[ANNOTATOR], item_ids=[ITEM])
    with store.reading() as session:
        kept = session.execute(select(Label.item_id, Label.annotator).join(Campaign).where(Campaign.name == "d")).all()
    assert kept == [(ITEM, ANNOTATOR)]


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({}, InvalidArgument, "0 names and ids"),
        ({"annotators": ["a", "b"], "item_ids": ["x", "y"]}, InvalidArgument, "max_labels"),
        ({"annotators": ["a", "a"]}, InvalidArgument, "twice"),
        ({"item_ids": [""]}, InvalidArgument, "0 bytes"),
        ({"item_ids": [OTHER]}, FailedPrecondition, "still has"),
    ],
)
def test_what_cannot_be_erased_is_refused_and_nothing_changes(
    store: Store,
    campaign: Campaign,
    erase: Callable[..., scheduler_pb2.EraseResponse],
    given: dict[str, list[str]],
    error: type[SealpoolError],
    says: str,
) -> None:
    before = everything(store)
    with pytest.raises(error, match=says):
        erase(**given)
    assert everything(store) == before


def test_nothing_is_erased_while_a_round_is_under_way(
    store: Store, campaign: Campaign, erase: Callable[..., scheduler_pb2.EraseResponse]
) -> None:
    with store.writing() as session:
        session.add(
            Round(
                campaign_id=campaign.id,
                number=1,
                kind=RoundKind.MODEL,
                state=RoundState.SELECTING,
                snapshot=0,
                batch=1,
                labels=0,
                started_at=store.clock.now(),
            )
        )
    with pytest.raises(FailedPrecondition, match="under way"):
        erase(annotators=[ANNOTATOR])
    assert ANNOTATOR in everything(store)


def test_a_campaign_that_is_not_there_is_not_found(store: Store, index: FakeIndex) -> None:
    service = ErasureService(store=store, index=index, max_names=3)
    with pytest.raises(NotFound):
        service.erase(scheduler_pb2.EraseRequest(campaign="nobody", annotators=["x"]))


def test_every_column_that_names_an_item_or_an_annotator_is_known_here() -> None:
    # A new table that names either must be erased from too: scheduler/storage/erasing.py.
    named = {
        (table.name, column.name)
        for table in Base.metadata.sorted_tables
        for column in table.columns
        if column.name in ("item_id", "annotator")
    }
    models = {mapper.class_.__tablename__ for mapper in Base.registry.mappers}
    assert models
    assert {table for table, column in named if column == "item_id"} == {
        *("tasks", "labels", "annotations", "drawn_items", "test_points", "llm_answers", "stream_decisions"),
        *("synthetic_items", "label_studio_tasks"),
    }
    assert {table for table, column in named if column == "annotator"} == {"tasks", "labels", "annotations"}
