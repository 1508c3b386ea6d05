"""Events: what WatchCampaign tells."""

from collections.abc import Sequence
from datetime import UTC

from sqlalchemy import select
from sqlalchemy.orm import Session

from scheduler.storage.models import Campaign, Event
from sealpool.v1 import scheduler_pb2

PAGE = 500
_LARGEST = 2**63 - 1
"""The contract counts to 2⁶⁴, databases to 2⁶³."""


def add(session: Session, campaign: Campaign, body: scheduler_pb2.WatchCampaignResponse) -> None:
    """Write an event, in the transaction in which it happens. The campaign must be locked.

    The body carries its time; its sequence is given by the database.
    """
    at = body.at.ToDatetime(tzinfo=UTC)
    session.add(Event(campaign_id=campaign.id, at=at, body=body.SerializeToString()))


def after(session: Session, campaign_id: int, sequence: int) -> Sequence[scheduler_pb2.WatchCampaignResponse]:
    """Return the first events after `sequence`, a page of them at most."""
    query = select(Event).where(Event.campaign_id == campaign_id, Event.sequence > min(sequence, _LARGEST))
    events = []
    for row in session.scalars(query.order_by(Event.sequence).limit(PAGE)):
        event = scheduler_pb2.WatchCampaignResponse.FromString(row.body)
        event.sequence = row.sequence
        events.append(event)
    return events
