"""Streams: where they stand, and what was decided of their items."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from scheduler.domain.states import DrawKind, LabelPurpose, TaskState
from scheduler.storage.batches import in_batches
from scheduler.storage.models import DrawnItem, Label, Stream, StreamDecision, Task
from sealpool.types import ItemId
from sealpool.v1 import stream_pb2

_HELD_OUT = (DrawKind.EVALUATION, DrawKind.TEST_POOL)


def get(session: Session, campaign_id: int) -> Stream | None:
    """Return where the stream of a campaign stands; None before its first item."""
    return session.get(Stream, campaign_id, populate_existing=True)


def of_each(session: Session, campaign_ids: Sequence[int]) -> dict[int, Stream]:
    """Return the streams of campaigns; those that have none are left out."""
    found: dict[int, Stream] = {}
    for some in in_batches(campaign_ids):
        query = select(Stream).where(Stream.campaign_id.in_(some))
        found.update((row.campaign_id, row) for row in session.scalars(query))
    return found


def save(session: Session, campaign_id: int, *, seen: int, asked: int, state: Mapping[str, object]) -> None:
    """Write where a stream stands. The campaign must be locked."""
    session.merge(Stream(campaign_id=campaign_id, seen=seen, asked=asked, state=dict(state)))


def decisions(
    session: Session, campaign_id: int, item_ids: Sequence[ItemId]
) -> dict[ItemId, stream_pb2.StreamDecision]:
    """Return what was decided of items; those that were never considered are left out."""
    found: dict[ItemId, stream_pb2.StreamDecision] = {}
    for some in in_batches(item_ids):
        query = select(StreamDecision).where(
            StreamDecision.campaign_id == campaign_id, StreamDecision.item_id.in_(some)
        )
        for row in session.scalars(query):
            found[ItemId(row.item_id)] = stream_pb2.StreamDecision.FromString(row.decision)
    return found


def remember(session: Session, campaign_id: int, made: Sequence[stream_pb2.StreamDecision], *, now: datetime) -> None:
    """Write decisions. The campaign must be locked."""
    rows = [
        {
            "campaign_id": campaign_id,
            "item_id": decision.item_id,
            "decision": decision.SerializeToString(),
            "decided_at": now,
        }
        for decision in made
    ]
    if rows:
        session.execute(insert(StreamDecision), rows)


def forget_before(session: Session, then: datetime) -> None:
    """Forget what was decided before `then`.

    An item that comes again after that is decided anew, and still never asked about twice: its task is kept.
    """
    session.execute(delete(StreamDecision).where(StreamDecision.decided_at < then))


def taken(session: Session, campaign_id: int, item_ids: Sequence[ItemId]) -> set[ItemId]:
    """Return those of `item_ids` that were handed out, for whatever purpose, are labelled, or are held out."""
    found: set[ItemId] = set()
    for some in in_batches(item_ids):
        queries = (
            select(Task.item_id).where(
                Task.campaign_id == campaign_id, Task.item_id.in_(some), Task.state != TaskState.WITHDRAWN
            ),
            select(Label.item_id).where(Label.campaign_id == campaign_id, Label.item_id.in_(some)),
            select(DrawnItem.item_id).where(
                DrawnItem.campaign_id == campaign_id, DrawnItem.item_id.in_(some), DrawnItem.kind.in_(_HELD_OUT)
            ),
        )
        for query in queries:
            found.update(ItemId(item) for item in session.scalars(query))
    return found


def all_taken(session: Session, campaign_id: int) -> list[ItemId]:
    """Return every item that was handed out, for whatever purpose, is labelled, or is held out."""
    queries = (
        select(Task.item_id).where(Task.campaign_id == campaign_id, Task.state != TaskState.WITHDRAWN),
        select(Label.item_id).where(Label.campaign_id == campaign_id),
        select(DrawnItem.item_id).where(DrawnItem.campaign_id == campaign_id, DrawnItem.kind.in_(_HELD_OUT)),
    )
    items = {ItemId(item) for query in queries for item in session.scalars(query)}
    return sorted(items)


def evaluation_outstanding(session: Session, campaign_id: int) -> int:
    """Return how many items wait for a label for evaluation."""
    query = select(Task.item_id).where(
        Task.campaign_id == campaign_id, Task.state == TaskState.OPEN, Task.purpose == LabelPurpose.EVALUATION
    )
    return len(set(session.scalars(query)))
