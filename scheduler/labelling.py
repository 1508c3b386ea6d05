"""What annotators say into the logs: the same for people and for the scheduler's own oracles."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from scheduler import messages
from scheduler.domain.agreement import Decision
from scheduler.domain.answers import Answer
from scheduler.domain.states import CampaignState, LabelPurpose
from scheduler.labelling_cases import Case, cases_of, make_decisions
from scheduler.labelling_tasks import TaskChanges
from scheduler.storage import annotations, campaigns, events, labels
from scheduler.storage.models import Campaign
from sealpool.errors import FailedPrecondition
from sealpool.v1 import scheduler_pb2


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """What some answers turned out to be."""

    accepted: int
    unsolicited: int
    corrections: int
    waiting: int = 0  # items that wait for more annotations
    given_up: int = 0  # items


def commit_answers(
    session: Session,
    campaign: Campaign,
    answers: Sequence[Answer],
    *,
    annotator: str,
    purpose: LabelPurpose | None,
    now: datetime,
) -> Committed:
    """Append what an annotator says, settle the tasks that it answers, and tell watchers. The campaign must be locked.

    An item labelled before is corrected and counts once; one without a task is unsolicited. Where several annotations
    of an item are wanted, it is labelled once so many agree. For one label of one annotator this takes six statements
    beside the lock: tasks, annotation, label, task, event, campaign.

    Parameters
    ----------
    answers
        Of distinct items.
    purpose
        What the labels are for; None: what the item's task asks for, TRAINING where it has none.

    Raises
    ------
    FailedPrecondition
        The campaign is archived, or the labels go beyond its budget.
    InvalidArgument
        The purpose cannot be that of an item: held out in the pool or not.
    """
    if campaign.state == CampaignState.ARCHIVED:
        raise FailedPrecondition(f"campaign {campaign.name!r} is archived", field="campaign")
    spec = campaigns.spec_of(campaign)
    cases = cases_of(session, campaign.id, spec, answers, annotator=annotator, purpose=purpose)
    said = [annotations.NewAnnotation(answer=case.answer, purpose=case.purpose, round=case.round) for case in cases]
    annotations.append(session, campaign.id, said, annotator=annotator, now=now)
    decisions = make_decisions(session, campaign.id, spec, cases)
    new = [
        labels.NewLabel(
            item_id=case.answer.item_id,
            classes=decision.label,
            round=case.round,
            unsolicited=case.is_unsolicited,
            corrects=case.is_labelled,
            purpose=case.label_purpose,
        )
        for case, decision in zip(cases, decisions, strict=True)
        if decision.label is not None
    ]
    _append_labels(session, campaign, spec, new, annotator=annotator, now=now)
    changes = TaskChanges(annotator=annotator, now=now)
    for case, decision in zip(cases, decisions, strict=True):
        changes.settle(case, decision)
    changes.write(session, campaign.id)
    return _committed(cases, decisions)


def _append_labels(
    session: Session,
    campaign: Campaign,
    spec: scheduler_pb2.CampaignSpec,
    new: Sequence[labels.NewLabel],
    *,
    annotator: str,
    now: datetime,
) -> None:
    if not new:
        return
    first = [label.purpose for label in new if not label.corrects]
    held_out = 0 if spec.evaluation_pool else first.count(LabelPurpose.EVALUATION)
    _check_budget(campaign, spec, first.count(LabelPurpose.TRAINING) + held_out)
    labels.append(session, campaign, new, annotator=annotator, now=now)
    if held_out:
        campaign.evaluation_labelled += held_out
    events.add(session, campaign, messages.labels_arrived(len(new), campaign.labelled, now=now))


def _committed(cases: Sequence[Case], decisions: Sequence[Decision]) -> Committed:
    pairs = list(zip(cases, decisions, strict=True))
    return Committed(
        accepted=len(cases),
        unsolicited=sum(case.is_unsolicited for case in cases),
        corrections=sum(case.is_labelled for case, decision in pairs if decision.label is not None),
        waiting=sum(decision.more > 0 and not case.is_labelled for case, decision in pairs),
        given_up=sum(decision.given_up and not case.is_labelled for case, decision in pairs),
    )


def _check_budget(campaign: Campaign, spec: scheduler_pb2.CampaignSpec, more: int) -> None:
    labelled = campaign.labelled + campaign.evaluation_labelled
    if more and labelled + more > spec.budget:
        raise FailedPrecondition(
            f"labels: {more:,} more items beside the {labelled:,} labelled ones go beyond the budget of "
            f"{spec.budget:,}",
            field="labels",
        )
