"""Items that were made, or found by synthesis."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from scheduler.storage.batches import in_batches
from scheduler.storage.models import SyntheticItem
from sealpool.types import ItemId
from sealpool.v1 import stream_pb2


def add(session: Session, campaign_id: int, items: Sequence[stream_pb2.SyntheticItem], *, now: datetime) -> None:
    """Write items; one that is there already gets its new origin. The campaign must be locked."""
    for item in items:
        session.merge(
            SyntheticItem(
                campaign_id=campaign_id,
                item_id=item.item_id,
                item=item.SerializeToString(),
                real=item.real,
                created_at=now,
            )
        )


def count(session: Session, campaign_id: int) -> int:
    """Return how many items a campaign made or found."""
    return session.scalar(select(func.count()).where(SyntheticItem.campaign_id == campaign_id)) or 0


def known(session: Session, campaign_id: int, item_ids: Sequence[ItemId]) -> set[ItemId]:
    """Return those of `item_ids` that are there."""
    found: set[ItemId] = set()
    for some in in_batches(item_ids):
        query = select(SyntheticItem.item_id).where(
            SyntheticItem.campaign_id == campaign_id, SyntheticItem.item_id.in_(some)
        )
        found.update(ItemId(item) for item in session.scalars(query))
    return found


def made(session: Session) -> list[ItemId]:
    """Return the items that any campaign made, by their ids: whoever made one asks about it, and nobody else does."""
    query = select(SyntheticItem.item_id).where(SyntheticItem.real.is_(False))
    return sorted(ItemId(item) for item in session.scalars(query.distinct()))


def page(session: Session, campaign_id: int, *, after: str, limit: int) -> list[stream_pb2.SyntheticItem]:
    """Return up to `limit` items by their ids, those after `after`."""
    query = (
        select(SyntheticItem.item)
        .where(SyntheticItem.campaign_id == campaign_id, SyntheticItem.item_id > after)
        .order_by(SyntheticItem.item_id)
        .limit(limit)
    )
    return [stream_pb2.SyntheticItem.FromString(item) for item in session.scalars(query)]
