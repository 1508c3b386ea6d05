"""Leases: whose task is whose, and until when. Only tasks for people are leased."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, select, update
from sqlalchemy.orm import Session

from scheduler.domain.states import Audience, LabelPurpose, TaskState
from scheduler.storage import lease_statements, locks
from scheduler.storage.batches import in_batches
from scheduler.storage.models import Task

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
    had_run_out: bool
    """Whether somebody had leased it before and let that run out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """So many tasks that an annotator would have until a time."""

    annotator: str
    count: int
    until: datetime


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
    """Lease tasks to one annotator, as `lease_all` does."""
    wanted = Wanted(annotator=annotator, count=count, until=now + timedelta(seconds=lease_s))
    (leased,) = lease_all(session, campaign_id, [wanted], now=now, slots=slots, purposes=purposes)
    return leased


def lease_all(
    session: Session,
    campaign_id: int,
    wanted: Sequence[Wanted],
    *,
    now: datetime,
    slots: int = 1,
    purposes: Collection[LabelPurpose] = tuple(LabelPurpose),
) -> list[list[LeasedTask]]:
    """Lease open tasks: those of the latest round first, in it the most wanted first, to who comes first.

    Nobody gets an item that he has answered, skipped or could not tell for the same purpose, nor two tasks of an item.
    PostgreSQL skips rows that another transaction is leasing at this moment, so that schedulers do not wait for each
    other; on SQLite a transaction that writes is alone.

    All are given what lies on top, in three to five statements. Who is barred from so much of that that it is not
    enough for him gets the rest by a search of his own.

    Parameters
    ----------
    slots
        Tasks an item has at most.

    Returns
    -------
    list
        What each got, parallel to `wanted`: as many as he wants, or all there are for him.
    """
    if slots > 1:
        _lock_annotators(session, campaign_id, [one.annotator for one in wanted])
    search = _Search(session, campaign_id, now=now, slots=slots, purposes=purposes)
    if len(wanted) == 1:
        return [search.give_alone(wanted[0], [])]
    most = sum(one.count for one in wanted) * slots
    free = {row.id: row for row in search.on_top(most)}
    is_all = len(free) < most
    barred = search.barred({row.item_id for row in free.values()}, {one.annotator for one in wanted})
    given = [_taken(one, free, barred) for one in wanted]
    if any(given):
        session.execute(lease_statements.hold_each(), _held_rows(wanted, given))
    if is_all:
        return given
    return [search.give_alone(one, some) for one, some in zip(wanted, given, strict=True)]


Barred = set[tuple[str, str, str]]
"""Annotator, item and purpose: for whom there is no task of it."""


class _Search:
    """Looks for tasks of one campaign that can be leased now."""

    def __init__(
        self, session: Session, campaign_id: int, *, now: datetime, slots: int, purposes: Collection[LabelPurpose]
    ) -> None:
        self._session = session
        self._several = slots > 1
        self._slots = slots
        self._asked = {"campaign_id": campaign_id, "now": now, "purposes": list(purposes)}

    def on_top(self, most: int, *, annotator: str | None = None) -> Iterator[Row[*tuple[Any, ...]]]:
        """Yield up to `most` tasks that anybody, or one annotator, could have."""
        for of_latest in (True, False):
            if most > 0:
                query = lease_statements.wanted(
                    of_latest=of_latest, several=self._several, for_one=annotator is not None
                )
                asked = self._asked if annotator is None else {**self._asked, "annotator": annotator}
                rows = self._session.execute(query, {**asked, "most": most}).all()
                yield from rows
                most -= len(rows)

    def give_alone(self, one: Wanted, has: Sequence[LeasedTask]) -> list[LeasedTask]:
        """Lease an annotator what he still wants beside what he has."""
        taken = {task.item_id: task for task in has}
        if len(taken) < one.count:
            for row in self.on_top((one.count - len(taken)) * self._slots, annotator=one.annotator):
                if row.item_id not in taken and len(taken) < one.count:
                    taken[row.item_id] = _leased(row, one.until)
        new = [task.id for task in taken.values()][len(has) :]
        if new:
            held = {"keys": new, "annotator": one.annotator, "until": one.until}
            self._session.execute(lease_statements.hold(), held, execution_options=_UNTRACKED)
        return list(taken.values())

    def barred(self, items: Collection[str], annotators: Collection[str]) -> Barred:
        """Return who must not have which of these items for what: he has answered it, or has a task of it."""
        found: Barred = set()
        queries = (
            (lease_statements.answered(), lease_statements.holding())
            if self._several
            else (lease_statements.answered(),)
        )
        for some in in_batches(list(items)):
            asked = {**self._asked, "items": some, "annotators": list(annotators)}
            for query in queries:
                found.update((name, item, purpose) for name, item, purpose in self._session.execute(query, asked))
        return found


def _lock_annotators(session: Session, campaign_id: int, annotators: Sequence[str]) -> None:
    """Let no other transaction lease to them: of two at once, neither sees what the other leases before it commits."""
    locks.until_end(session, [f"lease {campaign_id} {annotator}" for annotator in annotators])


def _taken(one: Wanted, free: dict[int, Row[*tuple[Any, ...]]], barred: Barred) -> list[LeasedTask]:
    """Take out of `free` what an annotator may have, and bar him from other tasks of the same items."""
    taken: list[LeasedTask] = []
    for row in free.values():
        if len(taken) == one.count:
            break
        if (one.annotator, row.item_id, row.purpose) not in barred and (one.annotator, row.item_id, "") not in barred:
            taken.append(_leased(row, one.until))
            barred.add((one.annotator, row.item_id, ""))
    for task in taken:
        del free[task.id]
    return taken


def _leased(row: Row[*tuple[Any, ...]], until: datetime) -> LeasedTask:
    key, item, number, score, origin, purpose, had_run_out = row
    return LeasedTask(key, item, number, score, origin, purpose, until, had_run_out)


def _held_rows(wanted: Sequence[Wanted], given: Sequence[Sequence[LeasedTask]]) -> list[dict[str, object]]:
    return [
        {"key": task.id, "annotator": one.annotator, "until": one.until}
        for one, some in zip(wanted, given, strict=True)
        for task in some
    ]


def count_waiting(session: Session, campaign_id: int, *, now: datetime, purposes: Collection[LabelPurpose]) -> int:
    """Count the tasks that anybody could lease now."""
    asked = {"campaign_id": campaign_id, "now": now, "purposes": list(purposes)}
    return session.scalar(lease_statements.count_waiting(), asked) or 0


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


def _held(campaign_id: int, annotator: str, task_ids: Sequence[int]) -> ColumnElement[bool]:
    held = and_(
        Task.campaign_id == campaign_id,
        Task.state == TaskState.OPEN,
        Task.annotator == annotator,
        Task.lease_expires_at.is_not(None),
    )
    return held & Task.id.in_(task_ids) if task_ids else held
