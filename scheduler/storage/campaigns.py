"""Campaigns, and the lock on which the order of everything in a campaign rests."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from scheduler.domain.states import Audience, CampaignState, TaskState
from scheduler.storage.batches import in_batches
from scheduler.storage.models import Campaign, Task
from sealpool.errors import AlreadyExists, NotFound
from sealpool.v1 import scheduler_pb2


def spec_of(campaign: Campaign) -> scheduler_pb2.CampaignSpec:
    """Return the campaign's spec as it was given."""
    return scheduler_pb2.CampaignSpec.FromString(campaign.spec)


def get(session: Session, name: str) -> Campaign:
    """Return a campaign by name, or raise NotFound."""
    return _one(session, select(Campaign), name)


def exists(session: Session, name: str) -> bool:
    """Whether a campaign has this name."""
    return "\0" not in name and session.scalar(select(Campaign.id).where(Campaign.name == name)) is not None


def lock(session: Session, name: str) -> Campaign:
    """Return a campaign with its row locked until the transaction ends, or raise NotFound.

    Labels, events, rounds and the state of a campaign are written under this lock alone. So their sequence numbers
    become visible in order: a snapshot taken at a number under the lock can never miss a label with a smaller one,
    although PostgreSQL hands numbers out before transactions commit.
    """
    # SQLite has no FOR UPDATE and needs none: a transaction that writes is alone from its beginning.
    return _one(session, select(Campaign).with_for_update().execution_options(populate_existing=True), name)


def add(session: Session, spec: scheduler_pb2.CampaignSpec, *, now: datetime) -> Campaign:
    """Write a new, active campaign, or raise AlreadyExists, after which the transaction must end."""
    campaign = Campaign(
        name=spec.name,
        spec=spec.SerializeToString(deterministic=True),
        state=CampaignState.ACTIVE,
        created_at=now,
        labelled=0,
        last_sequence=0,
        evaluation_labelled=0,
        state_reason="",
        held_out_loaded=False,
        drop_pending=False,
    )
    session.add(campaign)
    try:
        session.flush()
    except IntegrityError as error:  # the name is all that can clash
        raise AlreadyExists("campaign", spec.name) from error
    return campaign


def all_by_name(session: Session, *, include_archived: bool) -> Sequence[Campaign]:
    """Return campaigns by name."""
    query = select(Campaign)
    if not include_archived:
        query = query.where(Campaign.state != CampaignState.ARCHIVED)
    # Sorted here: databases sort text by their own locale.
    return sorted(session.scalars(query), key=lambda campaign: campaign.name)


def with_work_for_oracle(session: Session, campaign_ids: Sequence[int]) -> set[int]:
    """Return those campaigns with open tasks that wait for the campaign's own oracle."""
    found: set[int] = set()
    for some in in_batches(campaign_ids):
        query = select(Task.campaign_id).where(
            Task.campaign_id.in_(some), Task.state == TaskState.OPEN, Task.audience == Audience.ORACLE
        )
        found.update(session.scalars(query.distinct()))
    return found


def with_pending_drop(session: Session) -> Sequence[str]:
    """Return the names of archived campaigns whose candidate pool is still to be dropped."""
    return session.scalars(select(Campaign.name).where(Campaign.drop_pending)).all()


def _one(session: Session, query: Select[Campaign], name: str) -> Campaign:
    # PostgreSQL does not even compare text with a NUL in it.
    campaign = None if "\0" in name else session.scalar(query.where(Campaign.name == name))
    if campaign is None:
        raise NotFound("campaign", name)
    return campaign
