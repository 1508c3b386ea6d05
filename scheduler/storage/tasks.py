"""Tasks and their leases."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, case, func, insert, or_, select, update
from sqlalchemy.orm import Session

from scheduler.domain.states import Audience, LabelPurpose, TaskState
from scheduler.storage.batches import in_batches
from scheduler.storage.models import Task
from sealpool.types import ItemId
from sealpool.v1 import common_pb2


@dataclass(frozen=True, kw_only=True, slots=True)
class Pick:
    """An item chosen for labelling."""

    item_id: ItemId
    score: float
    origin: common_pb2.PickOrigin.ValueType


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskCounts:
    """Tasks of a campaign that are not labelled."""

    open: int = 0  # waiting, not leased
    leased: int = 0
    review: int = 0  # of both: those of evaluation, audit and review
    given_up: int = 0  # items


def add(
    session: Session,
    campaign_id: int,
    number: int,
    picks: Iterable[Pick],
    *,
    labelled: Collection[ItemId],
    purpose: LabelPurpose = LabelPurpose.TRAINING,
    audience: Audience = Audience.PEOPLE,
    annotations: int = 1,
) -> None:
    """Write picks as tasks, most wanted first. One whose item is in `labelled` is closed from the beginning.

    Parameters
    ----------
    number
        The round that hands them out; for tasks of no round, the latest one.
    annotations
        How many annotations are wanted of each item.
    """
    rows = [
        {
            "campaign_id": campaign_id,
            "item_id": pick.item_id,
            "round": number,
            "rank": rank,
            "score": pick.score,
            "origin": pick.origin,
            "state": TaskState.CLOSED if pick.item_id in labelled else TaskState.OPEN,
            "annotator": "",
            "purpose": purpose,
            "audience": audience,
            "slot": slot,
        }
        for rank, pick in enumerate(picks)
        for slot in range(annotations)
    ]
    if rows:
        session.execute(insert(Task), rows)


def lease(
    session: Session, campaign_id: int, *, annotator: str, count: int, now: datetime, lease_s: float
) -> Sequence[Task]:
    """Lease up to `count` open tasks: those of the latest round first, in it the most wanted first.

    PostgreSQL skips rows that another transaction is leasing at this moment, so that annotators do not wait for each
    other; on SQLite a transaction that writes is alone.
    """
    query = (
        select(Task)
        .where(Task.campaign_id == campaign_id, _waiting(now))
        .order_by(Task.round.desc(), Task.rank)
        .limit(count)
        .with_for_update(skip_locked=True)
    )
    tasks = session.scalars(query).all()
    for task in tasks:
        task.annotator = annotator
        task.lease_expires_at = now + timedelta(seconds=lease_s)
    session.flush()
    return tasks


def counts(session: Session, campaign_ids: Sequence[int], *, now: datetime) -> dict[int, TaskCounts]:
    """Count the tasks of each campaign that wait and those that are leased."""
    found = dict.fromkeys(campaign_ids, TaskCounts())
    waiting = func.sum(case((_waiting(now), 1), else_=0))
    for some in in_batches(campaign_ids):
        query = (
            select(Task.campaign_id, func.count(), waiting)
            .where(Task.campaign_id.in_(some), Task.state == TaskState.OPEN)
            .group_by(Task.campaign_id)
        )
        for campaign_id, total, open_ in session.execute(query):
            found[campaign_id] = TaskCounts(open=int(open_), leased=total - int(open_))
    return found


def outstanding(session: Session, campaign_id: int) -> Sequence[ItemId]:
    """Return the items of open tasks, leased or not, in the order they were picked."""
    query = select(Task.item_id).where(Task.campaign_id == campaign_id, Task.state == TaskState.OPEN)
    return [ItemId(item_id) for item_id in session.scalars(query.order_by(Task.round, Task.rank))]


def items_before(session: Session, campaign_id: int, number: int) -> list[ItemId]:
    """Return all items that rounds before `number` handed out, in the order they were picked."""
    query = select(Task.item_id).where(Task.campaign_id == campaign_id, Task.round < number)
    return [ItemId(item_id) for item_id in session.scalars(query.order_by(Task.round, Task.rank))]


def rounds_of(session: Session, campaign_id: int, item_ids: Sequence[ItemId]) -> dict[ItemId, int]:
    """Return the round of each item's task; items without a task are left out."""
    found: dict[ItemId, int] = {}
    for some in in_batches(item_ids):
        query = select(Task.item_id, Task.round).where(Task.campaign_id == campaign_id, Task.item_id.in_(some))
        found.update((ItemId(item_id), number) for item_id, number in session.execute(query))
    return found


def close(session: Session, campaign_id: int, item_ids: Sequence[ItemId]) -> None:
    """Close the open tasks of items that were labelled."""
    _end(session, campaign_id, item_ids, TaskState.CLOSED)


def withdraw(session: Session, campaign_id: int) -> None:
    """Take back all open tasks, leased ones too."""
    session.execute(
        update(Task)
        .where(Task.campaign_id == campaign_id, Task.state == TaskState.OPEN)
        .values(state=TaskState.WITHDRAWN, lease_expires_at=None)
    )


def withdraw_items(session: Session, campaign_id: int, item_ids: Sequence[ItemId]) -> None:
    """Take back the open tasks of some items, leased ones too."""
    _end(session, campaign_id, item_ids, TaskState.WITHDRAWN)


def _end(session: Session, campaign_id: int, item_ids: Sequence[ItemId], state: TaskState) -> None:
    for some in in_batches(item_ids):
        session.execute(
            update(Task)
            .where(Task.campaign_id == campaign_id, Task.item_id.in_(some), Task.state == TaskState.OPEN)
            .values(state=state, lease_expires_at=None)
        )


def _waiting(now: datetime) -> ColumnElement[bool]:
    free = or_(Task.lease_expires_at.is_(None), Task.lease_expires_at <= now)
    return and_(Task.state == TaskState.OPEN, free)
