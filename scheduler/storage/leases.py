"""Leases: whose task is whose, and until when. Only tasks for people are leased."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

from sqlalchemy import ColumnElement, Integer, Select, Update, and_, bindparam, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from scheduler.domain.states import Audience, LabelPurpose, TaskState
from scheduler.storage.models import Annotation, Task, UtcDateTime
from scheduler.storage.tasks import waiting

_UNTRACKED = {"synchronize_session": False}


@dataclass(frozen=True, slots=True)
class LeasedTask:
    """A task that somebody has."""

    id: int
    item_id: str
    round: int
    score: float
    origin: int
    purpose: str
    lease_expires_at: datetime


def lease(
    session: Session,
    campaign_id: int,
    *,
    annotator: str,
    count: int,
    now: datetime,
    lease_s: float,
    slots: int = 1,
    purposes: Collection[LabelPurpose] = tuple(LabelPurpose),
) -> list[LeasedTask]:
    """Lease up to `count` open tasks: those of the latest round first, in it the most wanted first.

    Nobody gets an item that he has answered, skipped or could not tell for the same purpose, nor two tasks of an item.
    PostgreSQL skips rows that another transaction is leasing at this moment, so that annotators do not wait for each
    other; on SQLite a transaction that writes is alone. Two statements, and a third where the latest round has not
    enough.

    Parameters
    ----------
    slots
        Tasks an item has at most.
    """
    if slots > 1 and session.get_bind().dialect.name == "postgresql":
        # Of two calls by one annotator at once, neither sees what the other leases before it commits.
        key = func.hashtextextended(f"lease {campaign_id} {annotator}", 0)
        session.execute(select(func.pg_advisory_xact_lock(key)))
    taken: dict[str, LeasedTask] = {}
    until = now + timedelta(seconds=lease_s)
    asked = {"campaign_id": campaign_id, "annotator": annotator, "now": now, "purposes": list(purposes)}
    for of_latest in (True, False):
        if len(taken) < count:
            rows = session.execute(
                _wanted(of_latest=of_latest, several=slots > 1), {**asked, "most": (count - len(taken)) * slots}
            )
            for row in rows:
                if row.item_id not in taken and len(taken) < count:
                    taken[row.item_id] = LeasedTask(*row, until)
    if taken:
        held = {"keys": [task.id for task in taken.values()], "annotator": annotator, "until": until}
        session.execute(_hold(), held, execution_options=_UNTRACKED)
    return list(taken.values())


def count_waiting(session: Session, campaign_id: int, *, now: datetime, purposes: Collection[LabelPurpose]) -> int:
    """Count the tasks that anybody could lease now."""
    asked = {"campaign_id": campaign_id, "now": now, "purposes": list(purposes)}
    return session.scalar(_count_waiting(), asked) or 0


def has_open(session: Session, campaign_id: int, *, purposes: Collection[LabelPurpose]) -> bool:
    """Return whether people have open tasks of some purposes, leased or not."""
    query = select(Task.id).where(
        Task.campaign_id == campaign_id,
        Task.state == TaskState.OPEN,
        Task.audience == Audience.PEOPLE,
        Task.purpose.in_(list(purposes)),
    )
    return session.scalar(query.limit(1)) is not None


def renew(session: Session, campaign_id: int, *, annotator: str, task_ids: Sequence[int], until: datetime) -> list[int]:
    """Let the annotator's leases end at `until`; return the ids of those tasks. No ids: all of his.

    The campaign must be locked. A lease that ran out is still his until another has the task.
    """
    change = update(Task).where(_held(campaign_id, annotator, task_ids)).values(lease_expires_at=until)
    return list(session.scalars(change.returning(Task.id), execution_options=_UNTRACKED))


def release(session: Session, campaign_id: int, *, annotator: str, task_ids: Sequence[int]) -> int:
    """Give the annotator's tasks back; return how many. No ids: all of his. The campaign must be locked."""
    change = update(Task).where(_held(campaign_id, annotator, task_ids)).values(annotator="", lease_expires_at=None)
    return len(session.scalars(change.returning(Task.id), execution_options=_UNTRACKED).all())


# Building a statement costs more than running it: those of every lease are built once.


@cache
def _wanted(*, of_latest: bool, several: bool) -> Select[int, str, int, float, int, str]:
    """Return the tasks for an annotator, of the latest round that has open ones or of those before.

    By round, as the index has them: one sort of all that is open would look at every task.
    """
    latest = select(func.max(Task.round)).where(_theirs(), Task.state == TaskState.OPEN).scalar_subquery()
    of_round = Task.round == latest if of_latest else Task.round < latest
    return (
        select(Task.id, Task.item_id, Task.round, Task.score, Task.origin, Task.purpose)
        .where(_theirs(), waiting(bindparam("now", type_=UtcDateTime)), _is_new(several=several), of_round)
        .order_by(Task.round.desc(), Task.rank, Task.slot)
        .limit(bindparam("most", type_=Integer))
        .with_for_update(skip_locked=True)
    )


@cache
def _count_waiting() -> Select[int]:
    return select(func.count()).select_from(Task).where(_theirs(), waiting(bindparam("now", type_=UtcDateTime)))


@cache
def _hold() -> Update:
    return (
        update(Task)
        .where(Task.id.in_(bindparam("keys", expanding=True)))
        .values(annotator=bindparam("annotator"), lease_expires_at=bindparam("until"))
    )


def _theirs() -> ColumnElement[bool]:
    return and_(
        Task.campaign_id == bindparam("campaign_id"),
        Task.audience == Audience.PEOPLE,
        Task.purpose.in_(bindparam("purposes", expanding=True)),
    )


def _is_new(*, several: bool) -> ColumnElement[bool]:
    answered = exists().where(
        Annotation.campaign_id == Task.campaign_id,
        Annotation.item_id == Task.item_id,
        Annotation.annotator == bindparam("annotator"),
        Annotation.purpose == Task.purpose,
    )
    if not several:
        return ~answered
    other = aliased(Task)
    held = exists().where(
        other.campaign_id == Task.campaign_id,
        other.item_id == Task.item_id,
        other.id != Task.id,
        other.state == TaskState.OPEN,
        other.annotator == bindparam("annotator"),
        other.lease_expires_at > bindparam("now", type_=UtcDateTime),
    )
    return ~answered & ~held


def _held(campaign_id: int, annotator: str, task_ids: Sequence[int]) -> ColumnElement[bool]:
    held = and_(
        Task.campaign_id == campaign_id,
        Task.state == TaskState.OPEN,
        Task.annotator == annotator,
        Task.lease_expires_at.is_not(None),
    )
    return held & Task.id.in_(task_ids) if task_ids else held
