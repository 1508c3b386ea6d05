"""Rounds."""

from collections.abc import Sequence

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from scheduler.domain.states import ENDED, RoundKind, RoundState
from scheduler.storage.batches import in_batches
from scheduler.storage.models import Campaign, Round, Task
from sealpool.v1 import common_pb2


def get(session: Session, campaign_id: int, number: int) -> Round:
    """Return one round, which must exist."""
    return session.get_one(Round, (campaign_id, number))


def every(session: Session, campaign_id: int) -> Sequence[Round]:
    """Return all rounds, first to last."""
    return session.scalars(select(Round).where(Round.campaign_id == campaign_id).order_by(Round.number)).all()


def last(session: Session, campaign_id: int) -> Round | None:
    """Return the latest round, running or ended."""
    query = select(Round).where(Round.campaign_id == campaign_id).order_by(Round.number.desc()).limit(1)
    return session.scalar(query)


def last_finished(session: Session, campaign_id: int) -> Round | None:
    """Return the latest round that did all it had to."""
    query = select(Round).where(Round.campaign_id == campaign_id, Round.state == RoundState.FINISHED)
    return session.scalar(query.order_by(Round.number.desc()).limit(1))


def unfinished(session: Session, campaign_id: int) -> Round | None:
    """Return the round that runs, or that waits to go on. There is at most one, and it is the latest."""
    latest = last(session, campaign_id)
    return None if latest is None or latest.state in ENDED else latest


def last_of_each(session: Session, campaign_ids: Sequence[int]) -> dict[int, Round]:
    """Return the latest round of each campaign; one that has none is left out."""
    found: dict[int, Round] = {}
    for some in in_batches(campaign_ids):
        latest = (
            select(Round.campaign_id, func.max(Round.number).label("number"))
            .where(Round.campaign_id.in_(some))
            .group_by(Round.campaign_id)
            .subquery()
        )
        is_latest = (Round.campaign_id == latest.c.campaign_id) & (Round.number == latest.c.number)
        found.update((row.campaign_id, row) for row in session.scalars(select(Round).join(latest, is_latest)))
    return found


def finished(session: Session, campaign_ids: Sequence[int]) -> dict[int, int]:
    """Return how many rounds of each campaign are finished."""
    found = dict.fromkeys(campaign_ids, 0)
    for some in in_batches(campaign_ids):
        query = select(Round.campaign_id, func.count()).group_by(Round.campaign_id)
        rows = session.execute(query.where(Round.campaign_id.in_(some), Round.state == RoundState.FINISHED))
        found.update((campaign_id, count) for campaign_id, count in rows)
    return found


def last_snapshot(session: Session, campaign_id: int, *, states: frozenset[RoundState]) -> int:
    """Return the snapshot of the latest round in one of `states`, 0 if there is none."""
    query = select(func.max(Round.snapshot)).where(Round.campaign_id == campaign_id, Round.state.in_(states))
    return session.scalar(query) or 0


def is_seeded(session: Session, campaign_id: int) -> bool:
    """Whether the seed set was handed out."""
    seeds = exists().where(Task.campaign_id == campaign_id, Task.origin == common_pb2.PICK_ORIGIN_SEED)
    done = exists().where(
        Round.campaign_id == campaign_id, Round.kind == RoundKind.SEED, Round.state == RoundState.FINISHED
    )
    return bool(session.scalar(select(seeds | done)))


def unfinished_campaigns(session: Session) -> Sequence[str]:
    """Return the names of the campaigns with a round that has not ended."""
    query = select(Campaign.name).join(Round, Round.campaign_id == Campaign.id).where(Round.state.not_in(ENDED))
    return session.scalars(query.distinct()).all()
