"""Labels as Dawid and Skene see them, once a round: annotators weighed over all items together."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy.orm import Session

from scheduler import messages
from scheduler.domain.agreement import better_class, dawid_skene
from scheduler.domain.annotation_spec import annotations_of
from scheduler.domain.states import LabelPurpose, Outcome
from scheduler.labelling_cases import TRAINING
from scheduler.storage import annotations, campaigns, events, labels, tasks
from scheduler.storage.models import Campaign
from sealpool.types import ItemId
from sealpool.v1 import scheduler_pb2

ANNOTATOR = "dawid-skene"
"""In whose name its corrections stand in the label log. The annotations are nobody's but the annotators'."""


def resolve_all(session: Session, campaign: Campaign, *, now: datetime) -> int:
    """Correct the labels whose class is clearly not the likeliest by Dawid-Skene; return how many. Locked campaign.

    Looks at labelled items that have as many annotations as the campaign wants. Run again without new annotations, it
    corrects nothing. Campaigns that do not ask for Dawid-Skene, or want one annotation an item, are left alone.

    Raises
    ------
    FailedPrecondition
        crowd-kit is not installed.
    """
    spec = campaigns.spec_of(campaign)
    if spec.annotation.agreement != scheduler_pb2.AGREEMENT_DAWID_SKENE or annotations_of(spec) == 1:
        return 0
    votes = _votes(session, campaign, wanted=annotations_of(spec))
    standing = labels.effective_of(session, campaign.id, list(votes), purpose=LabelPurpose.TRAINING)
    better = _better(dawid_skene(votes), standing)
    rounds = tasks.rounds_of(session, campaign.id, list(better))
    new = [
        labels.NewLabel(
            item_id=item,
            classes=(index,),
            annotator=ANNOTATOR,
            round=rounds.get(item, 0),
            unsolicited=item not in rounds,
            corrects=True,
            purpose=LabelPurpose.TRAINING,
        )
        for item, index in better.items()
    ]
    if new:
        labels.append(session, campaign, new, now=now)
        events.add(session, campaign, messages.labels_arrived(len(new), campaign.labelled, now=now))
    return len(new)


def _votes(session: Session, campaign: Campaign, *, wanted: int) -> dict[ItemId, dict[str, int]]:
    votes: dict[ItemId, dict[str, int]] = {}
    for item, said in annotations.every_opinion(session, campaign.id, purposes=TRAINING).items():
        given = {name: opinion.classes[0] for name, opinion in said.items() if opinion.outcome is Outcome.LABEL}
        if len(given) >= wanted:
            votes[item] = given
    return votes


def _better(
    posteriors: Mapping[ItemId, Mapping[int, float]], standing: Mapping[ItemId, tuple[int, ...]]
) -> dict[ItemId, int]:
    found: dict[ItemId, int] = {}
    for item, posterior in posteriors.items():
        if item in standing and (index := better_class(posterior, standing[item][0])) is not None:
            found[item] = index
    return found
