"""Request ids: what was answered to a call, so that its repetition changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import cast

from sqlalchemy import Insert, Select, Table, bindparam, delete, insert, select
from sqlalchemy.orm import Session

from scheduler.storage import locks
from scheduler.storage.models import Request


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """A call that took effect."""

    request_id: str
    digest: str
    answer: bytes


def lock(session: Session, request_ids: Sequence[str]) -> None:
    """Make other transactions with one of these request ids wait until this one has ended.

    Before any other lock of the transaction.
    """
    locks.until_end(session, request_ids)


def find(session: Session, request_ids: Sequence[str]) -> dict[str, Answered]:
    """Return the calls with these ids that took effect, by their id."""
    rows = session.execute(_find(), {"ids": list(request_ids)}) if request_ids else ()
    return {key: Answered(request_id=key, digest=digest, answer=answer) for key, digest, answer in rows}


def add(session: Session, calls: Sequence[Answered], *, now: datetime) -> None:
    """Remember calls that take effect in this transaction."""
    rows = [
        {"request_id": call.request_id, "digest": call.digest, "answer": call.answer, "created_at": now}
        for call in calls
    ]
    if rows:
        session.execute(_insert(), rows)


@cache
def _find() -> Select[str, str, bytes]:
    wanted = Request.request_id.in_(bindparam("ids", expanding=True))
    return select(Request.request_id, Request.digest, Request.answer).where(wanted)


@cache
def _insert() -> Insert:
    # Of the table, not the class: the ORM's bulk insert would look at each row anew.
    return insert(cast("Table", Request.__table__))


def forget_before(session: Session, then: datetime) -> None:
    """Forget calls that took effect before `then`."""
    session.execute(delete(Request).where(Request.created_at < then))
