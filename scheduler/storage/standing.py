"""What is exported of all campaigns at each scrape, in a few statements that the indexes answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ScalarSelect, and_, distinct, func, select, tuple_
from sqlalchemy.orm import Session

from scheduler.domain.states import LabelPurpose, RoundKind, RoundState, TaskState
from scheduler.storage.batches import in_batches
from scheduler.storage.models import Campaign, Label, LlmAnswer, Round, Task

_TRAINS = (RoundKind.MODEL, RoundKind.FINAL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ledger:
    """What a campaign's language models came to."""

    tokens: int
    cost: float


def waiting_labels(session: Session, campaign_ids: Sequence[int]) -> dict[int, int]:
    """Count the items labelled for training, or labelled anew, since the latest round that trained a model began.

    A round that failed trained none.
    """
    # By the round's number, downwards: the primary key then ends the search at the first that trains.
    snapshot = (
        select(Round.snapshot)
        .where(Round.campaign_id == Campaign.id, Round.kind.in_(_TRAINS), Round.state != RoundState.FAILED)
        .order_by(Round.number.desc())
        .limit(1)
        .correlate(Campaign)
        .scalar_subquery()
    )
    waiting = (
        select(func.count(distinct(Label.item_id)))
        .where(
            Label.campaign_id == Campaign.id,
            Label.purpose == LabelPurpose.TRAINING,
            Label.sequence > func.coalesce(snapshot, 0),
        )
        .correlate(Campaign)
        .scalar_subquery()
    )
    return _by_campaign(session, campaign_ids, waiting)


def oldest_open_since(session: Session, campaign_ids: Sequence[int]) -> dict[int, datetime]:
    """Return when the round of each campaign's oldest open task began; campaigns without open tasks are left out."""
    first = (
        select(Task.round)
        .where(Task.campaign_id == Campaign.id, Task.state == TaskState.OPEN)
        .order_by(Task.round)
        .limit(1)
        .correlate(Campaign)
        .scalar_subquery()
    )
    found: dict[int, datetime] = {}
    for some in in_batches(list(_by_campaign(session, campaign_ids, first).items())):
        of_rounds = tuple_(Round.campaign_id, Round.number).in_(some)
        found.update(session.execute(select(Round.campaign_id, Round.started_at).where(of_rounds)).all())
    return found


def expired_leases(session: Session, campaign_ids: Sequence[int], *, now: datetime) -> dict[int, int]:
    """Count the open tasks of each campaign whose lease ran out and that nobody has taken since."""
    found = dict.fromkeys(campaign_ids, 0)
    ran_out = and_(Task.state == TaskState.OPEN, Task.lease_expires_at <= now)
    for some in in_batches(campaign_ids):
        query = select(Task.campaign_id, func.count()).where(Task.campaign_id.in_(some), ran_out)
        found.update(session.execute(query.group_by(Task.campaign_id)).all())
    return found


def ledgers(session: Session, campaign_ids: Sequence[int]) -> Mapping[int, Ledger]:
    """Add up what each campaign's answers of language models cost; campaigns that never asked are left out."""
    found: dict[int, Ledger] = {}
    for some in in_batches(campaign_ids):
        query = select(
            LlmAnswer.campaign_id, func.sum(LlmAnswer.tokens_in + LlmAnswer.tokens_out), func.sum(LlmAnswer.cost)
        ).where(LlmAnswer.campaign_id.in_(some))
        for campaign_id, tokens, cost in session.execute(query.group_by(LlmAnswer.campaign_id)):
            found[campaign_id] = Ledger(tokens=int(tokens), cost=float(cost))
    return found


def _by_campaign(session: Session, campaign_ids: Sequence[int], value: ScalarSelect[Any]) -> dict[int, int]:
    """Return `value`, which is of one campaign, of each; campaigns of which it is NULL are left out."""
    found: dict[int, int] = {}
    for some in in_batches(campaign_ids):
        rows = session.execute(select(Campaign.id, value).where(Campaign.id.in_(some)))
        found.update((campaign_id, number) for campaign_id, number in rows if number is not None)
    return found
