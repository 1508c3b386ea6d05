"""The statements of leasing, built once: that costs more than running one."""

from functools import cache
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    exists,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.orm import aliased

from scheduler.domain.states import Audience, TaskState
from scheduler.storage.models import Annotation, Task, UtcDateTime
from scheduler.storage.tasks import waiting


@cache
def wanted(*, of_latest: bool, several: bool, for_one: bool) -> Select[int, str, int, float, int, str, bool]:
    """Return the tasks for an annotator or for all, of the latest round that has open ones or of those before.

    By round, as the index has them: one sort of all that is open would look at every task.
    """
    # Not max(): PostgreSQL looks at every open task for that, and at one of the index for this.
    of_open = select(Task.round).where(_theirs(), Task.state == TaskState.OPEN)
    latest = of_open.order_by(Task.round.desc(), Task.rank.desc(), Task.slot.desc()).limit(1).scalar_subquery()
    of_round = Task.round == latest if of_latest else Task.round < latest
    return (
        select(
            Task.id,
            Task.item_id,
            Task.round,
            Task.score,
            Task.origin,
            Task.purpose,
            # A task that is given back has none.
            Task.lease_expires_at.is_not(None).label("had_run_out"),
        )
        .where(_theirs(), waiting(bindparam("now", type_=UtcDateTime)), of_round)
        .where(*([_is_new(several=several)] if for_one else []))
        .order_by(*([] if of_latest else [Task.round.desc()]), Task.rank, Task.slot)
        .limit(bindparam("most", type_=Integer))
        .with_for_update(skip_locked=True)
    )


@cache
def count_waiting() -> Select[int]:
    """Count what anybody could lease."""
    return select(func.count()).select_from(Task).where(_theirs(), waiting(bindparam("now", type_=UtcDateTime)))


@cache
def hold() -> Update:
    """Lease tasks to one annotator."""
    return (
        update(Task)
        .where(Task.id.in_(bindparam("keys", expanding=True)))
        .values(annotator=bindparam("annotator"), lease_expires_at=bindparam("until"))
    )


@cache
def hold_each() -> Update:
    """Lease one task; for many parameters."""
    # Of the table, not the class: the ORM would look at each row anew.
    table = cast("Table", Task.__table__)
    held: dict[str, Any] = {"annotator": bindparam("annotator"), "lease_expires_at": bindparam("until")}
    return update(table).where(table.c.id == bindparam("key")).values(held)


@cache
def answered() -> Select[str, str, str]:
    """Return who has answered which items for what."""
    return select(Annotation.annotator, Annotation.item_id, Annotation.purpose).where(
        Annotation.campaign_id == bindparam("campaign_id"),
        Annotation.item_id.in_(bindparam("items", expanding=True)),
        Annotation.annotator.in_(bindparam("annotators", expanding=True)),
    )


@cache
def holding() -> Select[str, str, str]:
    """Return who has a task of an item, of whatever purpose: it stands for all of them."""
    return select(Task.annotator, Task.item_id, literal("")).where(
        Task.campaign_id == bindparam("campaign_id"),
        Task.item_id.in_(bindparam("items", expanding=True)),
        Task.annotator.in_(bindparam("annotators", expanding=True)),
        Task.state == TaskState.OPEN,
        Task.lease_expires_at > bindparam("now", type_=UtcDateTime),
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
