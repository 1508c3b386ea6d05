"""Labels into the log: the same for people and for the scheduler's own oracles."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from scheduler import messages
from scheduler.domain.states import CampaignState, LabelPurpose
from scheduler.storage import campaigns, events, labels, tasks
from scheduler.storage.models import Campaign
from sealpool.errors import FailedPrecondition
from sealpool.types import ItemId


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """What some labels turned out to be."""

    accepted: int
    unsolicited: int
    corrections: int


def commit_labels(
    session: Session,
    campaign: Campaign,
    given: Mapping[ItemId, tuple[int, ...]],
    *,
    annotator: str,
    purpose: LabelPurpose,
    now: datetime,
) -> Committed:
    """Append labels, close the tasks that they answer, and tell watchers. The campaign must be locked.

    An item labelled before is corrected and counts once; one without a task is unsolicited.

    Raises
    ------
    FailedPrecondition
        The campaign is archived, or the labels go beyond its budget.
    """
    if campaign.state == CampaignState.ARCHIVED:
        raise FailedPrecondition(f"campaign {campaign.name!r} is archived", field="campaign")
    items = list(given)
    corrected = labels.known_items(session, campaign.id, items, purpose=purpose)
    is_training = purpose == LabelPurpose.TRAINING
    rounds = tasks.rounds_of(session, campaign.id, items) if is_training else {}
    if is_training:
        _check_budget(campaign, len(items) - len(corrected))
    new = [
        labels.NewLabel(
            item_id=item,
            classes=classes,
            round=rounds.get(item, 0),
            unsolicited=is_training and item not in rounds,
            corrects=item in corrected,
        )
        for item, classes in given.items()
    ]
    labels.append(session, campaign, new, annotator=annotator, purpose=purpose, now=now)
    if is_training:
        tasks.close(session, campaign.id, items)
    events.add(session, campaign, messages.labels_arrived(len(new), campaign.labelled, now=now))
    return Committed(
        accepted=len(new),
        unsolicited=sum(label.unsolicited for label in new),
        corrections=sum(label.corrects for label in new),
    )


def _check_budget(campaign: Campaign, more: int) -> None:
    budget = campaigns.spec_of(campaign).budget
    if campaign.labelled + more > budget:
        raise FailedPrecondition(
            f"labels: {more:,} more items beside the {campaign.labelled:,} labelled ones go beyond the budget of "
            f"{budget:,}",
            field="labels",
        )
