"""Tasks of rounds that newer ones have replaced."""

from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, or_, select, update
from sqlalchemy.orm import Session

from scheduler.domain.states import LabelPurpose, TaskState
from scheduler.storage.models import Round, Task


def withdraw(session: Session, campaign_id: int, *, open_rounds: int, now: datetime) -> None:
    """Take back tasks for training of all but the last `open_rounds` rounds that made tasks, 0 meaning none.

    Leased tasks stay until their lease ends, for a later call. The campaign must be locked, and no round may be
    choosing its batch: what it picks depends on what was withdrawn.
    """
    oldest = _oldest_open(session, campaign_id, open_rounds)
    if oldest is not None:
        session.execute(
            update(Task)
            .where(_stale(campaign_id, oldest, now))
            .values(state=TaskState.WITHDRAWN, annotator="", lease_expires_at=None)
        )


def are_left(session: Session, campaign_id: int, *, open_rounds: int, now: datetime) -> bool:
    """Whether `withdraw` would take anything back."""
    oldest = _oldest_open(session, campaign_id, open_rounds)
    if oldest is None:
        return False
    return bool(session.scalar(select(exists().where(_stale(campaign_id, oldest, now)))))


def _oldest_open(session: Session, campaign_id: int, open_rounds: int) -> int | None:
    """Return the oldest round whose tasks may wait; None if any may."""
    if not open_rounds:
        return None
    query = select(Round.number).where(Round.campaign_id == campaign_id, Round.picks > 0)
    return session.scalar(query.order_by(Round.number.desc()).limit(1).offset(open_rounds - 1))


def _stale(campaign_id: int, oldest: int, now: datetime) -> ColumnElement[bool]:
    return and_(
        Task.campaign_id == campaign_id,
        Task.state == TaskState.OPEN,
        Task.purpose == LabelPurpose.TRAINING,
        Task.round < oldest,
        or_(Task.lease_expires_at.is_(None), Task.lease_expires_at <= now),
    )
