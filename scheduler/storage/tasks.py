"""Tasks. Leases are in `storage.leases`, and what an answer changes in `storage.item_tasks`."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BindParameter, ColumnElement, and_, case, distinct, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session, aliased

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

    A withdrawn task of the same item, purpose and slot is taken up again. Any other is a fault of the caller's, and
    raises the database's IntegrityError.

    Parameters
    ----------
    number
        The round that hands them out; for tasks of no round, the latest one.
    annotations
        How many annotations are wanted of each item.
    """
    rows: list[dict[str, object]] = [
        {
            "campaign_id": campaign_id,
            "item_id": pick.item_id,
            "round": number,
            "rank": rank,
            "score": pick.score,
            "origin": pick.origin,
            "state": TaskState.CLOSED if pick.item_id in labelled else TaskState.OPEN,
            "annotator": "",
            "lease_expires_at": None,
            "purpose": purpose,
            "audience": audience,
            "slot": slot,
        }
        for rank, pick in enumerate(picks)
        for slot in range(annotations)
    ]
    again = _take_up(session, campaign_id, rows, purpose)
    new = [row for row in rows if row["slot"] not in again.get(row["item_id"], ())]
    if new:
        session.execute(insert(Task), new)


def _take_up(
    session: Session, campaign_id: int, rows: Sequence[dict[str, object]], purpose: LabelPurpose
) -> dict[object, set[int]]:
    """Open the withdrawn tasks of the items in `rows` as those say; return all slots of those items.

    Of an item that somebody answered before its other tasks were withdrawn, the answered ones stay closed.
    """
    wanted = {str(row["item_id"]): row for row in rows}
    slots: dict[object, set[int]] = {}
    for some in in_batches(list(wanted)):
        query = select(Task.id, Task.item_id, Task.slot, Task.state).where(
            Task.campaign_id == campaign_id,
            Task.item_id.in_(some),
            Task.purpose == purpose,
            _has_withdrawn(),
        )
        again: list[dict[str, object]] = []
        for key, item, slot, state in session.execute(query):
            slots.setdefault(item, set()).add(slot)
            if state == TaskState.WITHDRAWN:
                again.append({**wanted[item], "id": key, "slot": slot})
        if again:
            session.execute(update(Task), again)
    return slots


def _has_withdrawn() -> ColumnElement[bool]:
    """Return the condition that a task of the same item and purpose was withdrawn: the item may be picked again."""
    other = aliased(Task)
    return exists().where(
        other.campaign_id == Task.campaign_id,
        other.item_id == Task.item_id,
        other.purpose == Task.purpose,
        other.state == TaskState.WITHDRAWN,
    )


def counts(session: Session, campaign_ids: Sequence[int], *, now: datetime) -> dict[int, TaskCounts]:
    """Count the tasks of each campaign that wait, those that are leased, and the items that were given up."""
    found = dict.fromkeys(campaign_ids, TaskCounts())
    is_open = Task.state == TaskState.OPEN
    for some in in_batches(campaign_ids):
        query = (
            select(
                Task.campaign_id,
                func.sum(case((is_open, 1), else_=0)),
                func.sum(case((waiting(now), 1), else_=0)),
                func.sum(case((and_(is_open, Task.purpose != LabelPurpose.TRAINING), 1), else_=0)),
                func.count(distinct(case((Task.state == TaskState.GIVEN_UP, Task.item_id)))),
            )
            .where(Task.campaign_id.in_(some), Task.state.in_([TaskState.OPEN, TaskState.GIVEN_UP]))
            .group_by(Task.campaign_id)
        )
        for campaign_id, all_open, free, review, given_up in session.execute(query):
            found[campaign_id] = TaskCounts(
                open=int(free), leased=int(all_open) - int(free), review=int(review), given_up=given_up
            )
    return found


def outstanding(session: Session, campaign_id: int, *, audience: Audience | None = None) -> Sequence[ItemId]:
    """Return the items whose open tasks will make labels for training, leased or not, in the order they were picked.

    Parameters
    ----------
    audience
        Only those that wait for it; None for all.
    """
    query = select(Task.item_id).where(
        Task.campaign_id == campaign_id, Task.state == TaskState.OPEN, Task.purpose == LabelPurpose.TRAINING
    )
    if audience is not None:
        query = query.where(Task.audience == audience)
    found = session.scalars(query.order_by(Task.round, Task.rank, Task.slot))
    return list(dict.fromkeys(ItemId(item_id) for item_id in found))


def hand_to_people(session: Session, campaign_id: int, item_ids: Sequence[ItemId]) -> None:
    """Let people do the open tasks of some items that waited for the campaign's own oracle."""
    for some in in_batches(item_ids):
        session.execute(
            update(Task)
            .where(
                Task.campaign_id == campaign_id,
                Task.item_id.in_(some),
                Task.state == TaskState.OPEN,
                Task.audience == Audience.ORACLE,
            )
            .values(audience=Audience.PEOPLE)
        )


def items_before(session: Session, campaign_id: int, number: int) -> list[ItemId]:
    """Return the items that round `number` must not hand out, in the order they were picked.

    Those are what earlier rounds handed out, except where that was withdrawn since, and what was handed out for
    another purpose than training at any time.
    """
    query = select(Task.item_id).where(
        Task.campaign_id == campaign_id,
        or_(
            and_(Task.purpose == LabelPurpose.TRAINING, Task.round < number, ~_has_withdrawn()),
            Task.purpose != LabelPurpose.TRAINING,
        ),
    )
    found = session.scalars(query.order_by(Task.round, Task.rank, Task.slot))
    return list(dict.fromkeys(ItemId(item_id) for item_id in found))


def rounds_of(session: Session, campaign_id: int, item_ids: Sequence[ItemId]) -> dict[ItemId, int]:
    """Return the round that handed each item out for training; items of which none did, or withdrew, are left out."""
    found: dict[ItemId, int] = {}
    for some in in_batches(item_ids):
        query = select(Task.item_id, Task.round).where(
            Task.campaign_id == campaign_id,
            Task.item_id.in_(some),
            Task.purpose == LabelPurpose.TRAINING,
            ~_has_withdrawn(),
        )
        found.update((ItemId(item_id), number) for item_id, number in session.execute(query))
    return found


def items_of(session: Session, campaign_id: int, *, purpose: LabelPurpose | None = None) -> list[ItemId]:
    """Return the items that have a task, of one purpose or of any, whatever became of it."""
    query = select(Task.item_id).where(Task.campaign_id == campaign_id).distinct()
    if purpose is not None:
        query = query.where(Task.purpose == purpose)
    return sorted(ItemId(item_id) for item_id in session.scalars(query))


def withdraw(session: Session, campaign_id: int, *, purpose: LabelPurpose | None = None) -> None:
    """Take back open tasks, of one purpose or all, leased ones too."""
    change = update(Task).where(Task.campaign_id == campaign_id, Task.state == TaskState.OPEN)
    if purpose is not None:
        change = change.where(Task.purpose == purpose)
    session.execute(change.values(state=TaskState.WITHDRAWN, lease_expires_at=None))


def withdraw_items(session: Session, campaign_id: int, item_ids: Sequence[ItemId]) -> None:
    """Take back the open tasks of some items, of every purpose, leased ones too."""
    for some in in_batches(item_ids):
        session.execute(
            update(Task)
            .where(Task.campaign_id == campaign_id, Task.item_id.in_(some), Task.state == TaskState.OPEN)
            .values(state=TaskState.WITHDRAWN, lease_expires_at=None)
        )


def waiting(now: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    """Return the condition that a task is open and leased to nobody."""
    free = or_(Task.lease_expires_at.is_(None), Task.lease_expires_at <= now)
    return and_(Task.state == TaskState.OPEN, free)
