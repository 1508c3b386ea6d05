"""Test points of active testing, in the order chosen."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from scheduler.storage.models import ActiveTestPoint
from sealpool.types import ItemId


@dataclass(frozen=True, kw_only=True, slots=True)
class TestPoint:
    """An item that was chosen, with which probability, and out of how many in all (those chosen before included)."""

    __test__ = False  # pytest takes a class of this name for tests

    item_id: ItemId
    probability: float
    pool: int


def add(session: Session, campaign_id: int, number: int, points: Sequence[TestPoint]) -> None:
    """Write what round `number` chose behind what was chosen before."""
    query = select(func.max(ActiveTestPoint.position)).where(ActiveTestPoint.campaign_id == campaign_id)
    last = session.scalar(query)
    first = 0 if last is None else last + 1
    rows = [
        {
            "campaign_id": campaign_id,
            "position": position,
            "item_id": point.item_id,
            "round": number,
            "probability": point.probability,
            "pool": point.pool,
        }
        for position, point in enumerate(points, first)
    ]
    if rows:
        session.execute(insert(ActiveTestPoint), rows)


def every(session: Session, campaign_id: int) -> list[TestPoint]:
    """Return all points in the order chosen."""
    query = select(ActiveTestPoint).where(ActiveTestPoint.campaign_id == campaign_id)
    return [
        TestPoint(item_id=ItemId(row.item_id), probability=row.probability, pool=row.pool)
        for row in session.scalars(query.order_by(ActiveTestPoint.position))
    ]
