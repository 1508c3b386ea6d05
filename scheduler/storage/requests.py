"""Request ids: what was answered to a call, so that its repetition changes nothing."""

from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from scheduler.storage.models import Request


def lock(session: Session, request_id: str) -> None:
    """Make other transactions with this request id wait until this one has ended."""
    # On SQLite a transaction that writes is alone.
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(request_id, 0))))


def find(session: Session, request_id: str) -> Request | None:
    """Return the call with this id, if one took effect."""
    return session.get(Request, request_id)


def add(session: Session, request_id: str, *, digest: str, answer: bytes, now: datetime) -> None:
    """Remember a call that takes effect in this transaction."""
    session.add(Request(request_id=request_id, digest=digest, answer=answer, created_at=now))


def forget_before(session: Session, then: datetime) -> None:
    """Forget calls that took effect before `then`."""
    session.execute(delete(Request).where(Request.created_at < then))
