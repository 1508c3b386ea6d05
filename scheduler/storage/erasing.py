"""Names of people and ids of items, replaced by pseudonyms in every table that holds them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import exists, or_, select, text, update
from sqlalchemy.orm import Session

from scheduler.domain.states import TaskState
from scheduler.storage.models import (
    ActiveTestPoint,
    Annotation,
    Campaign,
    DrawnItem,
    Label,
    LabelStudioTask,
    LlmAnswer,
    Round,
    StreamDecision,
    SyntheticItem,
    Task,
)
from sealpool.v1 import scheduler_pb2, stream_pb2

_APPEND_ONLY: Final = (Annotation, Label)
"""In the order in which whoever labels writes to them: locked in the other, two transactions could wait for each other.
"""
_NAMING_ITEMS: Final = (
    *(Task, Label, Annotation, DrawnItem, ActiveTestPoint, LlmAnswer, StreamDecision, SyntheticItem, LabelStudioTask),
)
_NAMING_ANNOTATORS: Final = (Task, Label, Annotation)

ERASED: Final = "erased"
"""What is wrong with a language model's answer that was emptied."""


@contextmanager
def append_only_lifted(session: Session) -> Iterator[None]:
    """Let labels and annotations be changed until the end of the block, in a transaction that writes.

    On PostgreSQL nobody else writes to them meanwhile; on SQLite nobody else writes at all.
    """
    tables = [model.__tablename__ for model in _APPEND_ONLY]
    if session.get_bind().dialect.name == "postgresql":
        for table in tables:
            session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER {table}_append_only"))
        yield
        for table in tables:
            session.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER {table}_append_only"))
        return
    triggers = {
        name: session.execute(text("SELECT sql FROM sqlite_master WHERE name = :name"), {"name": name}).scalar_one()
        for name in (f"{table}_refuse_update" for table in tables)
    }
    for name in triggers:
        session.execute(text(f"DROP TRIGGER {name}"))
    yield
    for statement in triggers.values():
        session.execute(text(statement))


def knows_annotator(session: Session, campaign_id: int, annotator: str) -> bool:
    """Whether the campaign keeps the name."""
    return any(
        session.scalar(select(exists().where(model.campaign_id == campaign_id, model.annotator == annotator)))
        for model in _NAMING_ANNOTATORS
    )


def knows_item(session: Session, campaign_id: int, item_id: str) -> bool:
    """Whether the campaign keeps the id."""
    return any(
        session.scalar(select(exists().where(model.campaign_id == campaign_id, model.item_id == item_id)))
        for model in _NAMING_ITEMS
    )


def rename_annotator(session: Session, campaign_id: int, annotator: str, pseudonym: str) -> None:
    """Give an annotator another name and empty his comments. Within `append_only_lifted`."""
    own = (Annotation.campaign_id == campaign_id, Annotation.annotator == annotator)
    session.execute(update(Annotation).where(*own).values(comment=""))
    for model in _NAMING_ANNOTATORS:
        session.execute(
            update(model)
            .where(model.campaign_id == campaign_id, model.annotator == annotator)
            .values(annotator=pseudonym)
        )


def rename_item(session: Session, campaign_id: int, item_id: str, pseudonym: str) -> None:
    """Give an item another id, empty what was written of it and withdraw its tasks. Within `append_only_lifted`."""

    def change(model: Any, **values: object) -> None:
        session.execute(
            update(model).where(model.campaign_id == campaign_id, model.item_id == item_id).values(**values)
        )

    session.execute(
        update(Task)
        .where(Task.campaign_id == campaign_id, Task.item_id == item_id, Task.state == TaskState.OPEN)
        .values(state=TaskState.WITHDRAWN, annotator="", lease_expires_at=None)
    )
    change(Annotation, comment="")
    change(LlmAnswer, answer="", problem=ERASED)
    for model in _NAMING_ITEMS:
        change(model, item_id=pseudonym)


def rename_within_messages(session: Session, campaign: Campaign, pseudonyms: Mapping[str, str]) -> Sequence[str]:
    """Rename items where their ids stand inside of stored messages; return what was made of them, by its ids."""
    campaign.spec = _renamed_spec(campaign.spec, pseudonyms)
    for row in session.scalars(select(Round).where(Round.campaign_id == campaign.id, Round.spec.is_not(None))):
        row.spec = _renamed_spec(row.spec or b"", pseudonyms)
    _rename_decisions(session, campaign.id, pseudonyms)
    return _rename_sources(session, campaign.id, pseudonyms)


def _renamed_spec(stored: bytes, pseudonyms: Mapping[str, str]) -> bytes:
    spec = scheduler_pb2.CampaignSpec.FromString(stored)
    if not set(spec.seeding.item_ids) & pseudonyms.keys():
        return stored
    spec.seeding.item_ids[:] = [pseudonyms.get(item, item) for item in spec.seeding.item_ids]
    return spec.SerializeToString(deterministic=True)


def _rename_decisions(session: Session, campaign_id: int, pseudonyms: Mapping[str, str]) -> None:
    ids = or_(*(StreamDecision.item_id == pseudonym for pseudonym in pseudonyms.values()))
    for row in session.scalars(select(StreamDecision).where(StreamDecision.campaign_id == campaign_id, ids)):
        decision = stream_pb2.StreamDecision.FromString(row.decision)
        decision.item_id = row.item_id
        row.decision = decision.SerializeToString()


def _rename_sources(session: Session, campaign_id: int, pseudonyms: Mapping[str, str]) -> list[str]:
    erased, derived = set(pseudonyms.values()), []
    for row in session.scalars(select(SyntheticItem).where(SyntheticItem.campaign_id == campaign_id)):
        item = stream_pb2.SyntheticItem.FromString(row.item)
        if row.item_id in erased:
            item.item_id, item.text = row.item_id, ""
        if set(item.sources) & pseudonyms.keys():
            item.sources[:] = [pseudonyms.get(source, source) for source in item.sources]
            if not item.real and row.item_id not in erased:
                derived.append(row.item_id)
        row.item = item.SerializeToString()
    return derived
