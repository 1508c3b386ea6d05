"""What annotators say into the logs: the same for people and for the scheduler's own oracles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.orm import Session

from scheduler import messages
from scheduler.domain.agreement import Decision
from scheduler.domain.answers import Answer
from scheduler.domain.states import CampaignState, LabelPurpose
from scheduler.labelling_cases import Case, Submission, cases_of, make_decisions
from scheduler.labelling_tasks import TaskChanges
from scheduler.storage import annotations, campaigns, events, labels
from scheduler.storage.models import Campaign
from sealpool.errors import FailedPrecondition, SealpoolError
from sealpool.types import ItemId
from sealpool.v1 import scheduler_pb2


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """What some answers turned out to be."""

    accepted: int
    unsolicited: int
    corrections: int
    waiting: int = 0  # items that wait for more annotations
    given_up: int = 0  # items
    labels: int = field(default=0, compare=False)  # of the campaign now


@dataclass(frozen=True, slots=True)
class Strangers:
    """Why nothing was done: nobody handed these items out or labelled them, and the pool may not have them."""

    items: Sequence[ItemId]


Result = Committed | Strangers | SealpoolError


def commit_answers(
    session: Session,
    campaign: Campaign,
    answers: Sequence[Answer],
    *,
    annotator: str,
    purpose: LabelPurpose | None,
    now: datetime,
) -> Committed:
    """Commit the answers of one annotator, as `commit_submissions` does; none of them if one is refused.

    Parameters
    ----------
    answers
        Of distinct items, which their pool must have.
    purpose
        What the labels are for; None: what the item's task asks for, TRAINING where it has none.

    Raises
    ------
    FailedPrecondition
        The campaign is archived, or the labels go beyond its budget.
    InvalidArgument
        The purpose cannot be that of an item: held out in the pool or not.
    """
    submission = Submission(answers=answers, annotator=annotator, purpose=purpose)
    (result,) = commit_submissions(session, campaign, campaigns.spec_of(campaign), [submission], now=now)
    match result:
        case Committed():
            return result
        case Strangers():
            raise AssertionError("strangers are told only to those who say which items are present")
        case error:
            raise error


def commit_submissions(
    session: Session,
    campaign: Campaign,
    spec: scheduler_pb2.CampaignSpec,
    submissions: Sequence[Submission],
    *,
    now: datetime,
) -> list[Result]:
    """Append what annotators say, settle the tasks that it answers, and tell watchers. The campaign must be locked.

    As if the submissions came one after the other: each sees what those before it changed. One that is refused is
    refused as a whole, with nothing written, and the others go on.

    An item labelled before is corrected and counts once; one without a task is unsolicited. Where several annotations
    of an item are wanted, it is labelled once so many agree. Submissions of distinct items that want one annotation
    each take six statements together, beside the lock: tasks, annotations, labels, tasks, event, campaign. Watchers are
    told once of all of them.

    Returns
    -------
    list
        For each submission, parallel, what became of it: FailedPrecondition where the campaign is archived or the
        labels go beyond its budget, InvalidArgument where an item, held out or not, cannot have the purpose.
    """
    if campaign.state == CampaignState.ARCHIVED:
        return [FailedPrecondition(f"campaign {campaign.name!r} is archived", field="campaign") for _ in submissions]
    results: list[Result] = []
    for some in _of_distinct_items(submissions):
        results += _Commit(session, campaign, spec, now).run(some)
    return results


def _of_distinct_items(submissions: Sequence[Submission]) -> Iterator[list[Submission]]:
    """Yield the submissions in their order, those together that have no item in common."""
    some: list[Submission] = []
    items: set[ItemId] = set()
    for submission in submissions:
        own = {answer.item_id for answer in submission.answers}
        if not items.isdisjoint(own):
            yield some
            some, items = [], set()
        some.append(submission)
        items |= own
    yield some


class _Commit:
    """Submissions of distinct items, committed together: read, decide one after the other, write."""

    def __init__(self, session: Session, campaign: Campaign, spec: scheduler_pb2.CampaignSpec, now: datetime) -> None:
        self._session = session
        self._campaign = campaign
        self._spec = spec
        self._now = now
        self._said: list[annotations.NewAnnotation] = []
        self._new: list[labels.NewLabel] = []
        self._changes = TaskChanges(now=now)

    def run(self, submissions: Sequence[Submission]) -> list[Result]:
        """Return what became of each."""
        found = cases_of(self._session, self._campaign.id, self._spec, submissions)
        acceptable = [
            _without_strangers(submission, cases) for submission, cases in zip(submissions, found, strict=True)
        ]
        cases = [case for some in acceptable if isinstance(some, list) for case in some]
        decisions = iter(make_decisions(self._session, self._campaign.id, self._spec, cases))
        results: list[Result] = []
        for some in acceptable:
            if isinstance(some, list):
                results.append(self._accept(some, [next(decisions) for _ in some]))
            else:
                results.append(some)
        self._write()
        return results

    def _accept(self, cases: Sequence[Case], decisions: Sequence[Decision]) -> Committed | FailedPrecondition:
        new = [_label(case, made.label) for case, made in zip(cases, decisions, strict=True) if made.label is not None]
        first = [label.purpose for label in new if not label.corrects]
        held_out = 0 if self._spec.evaluation_pool else first.count(LabelPurpose.EVALUATION)
        training = first.count(LabelPurpose.TRAINING)
        refused = _beyond_budget(self._campaign, self._spec, training + held_out)
        if refused is not None:
            return refused
        if training:
            self._campaign.labelled += training
        if held_out:
            self._campaign.evaluation_labelled += held_out
        self._new += new
        for case, decision in zip(cases, decisions, strict=True):
            self._said.append(
                annotations.NewAnnotation(
                    answer=case.answer, annotator=case.annotator, purpose=case.purpose, round=case.round
                )
            )
            self._changes.settle(case, decision)
        return _committed(cases, decisions, labelled=self._campaign.labelled)

    def _write(self) -> None:
        with self._session.no_autoflush:  # the campaign is written once, at the end
            self._append()

    def _append(self) -> None:
        annotations.append(self._session, self._campaign.id, self._said, now=self._now)
        if self._new:
            labels.append(self._session, self._campaign, self._new, now=self._now)
            arrived = messages.labels_arrived(len(self._new), self._campaign.labelled, now=self._now)
            events.add(self._session, self._campaign, arrived)
        self._changes.write(self._session, self._campaign.id)


def _without_strangers(
    submission: Submission, cases: list[Case] | SealpoolError
) -> list[Case] | Strangers | SealpoolError:
    if submission.present is None or isinstance(cases, SealpoolError):
        return cases
    strangers = [case.answer.item_id for case in cases if case.is_stranger]
    unknown = [item for item in strangers if item not in submission.present]
    return Strangers(unknown) if unknown else cases


def _label(case: Case, classes: tuple[int, ...]) -> labels.NewLabel:
    return labels.NewLabel(
        item_id=case.answer.item_id,
        classes=classes,
        annotator=case.annotator,
        round=case.round,
        unsolicited=case.is_unsolicited,
        corrects=case.is_labelled,
        purpose=case.label_purpose,
    )


def _committed(cases: Sequence[Case], decisions: Sequence[Decision], *, labelled: int) -> Committed:
    pairs = list(zip(cases, decisions, strict=True))
    return Committed(
        accepted=len(cases),
        unsolicited=sum(case.is_unsolicited for case in cases),
        corrections=sum(case.is_labelled for case, decision in pairs if decision.label is not None),
        waiting=sum(decision.more > 0 and not case.is_labelled for case, decision in pairs),
        given_up=sum(decision.given_up and not case.is_labelled for case, decision in pairs),
        labels=labelled,
    )


def _beyond_budget(campaign: Campaign, spec: scheduler_pb2.CampaignSpec, more: int) -> FailedPrecondition | None:
    labelled = campaign.labelled + campaign.evaluation_labelled
    if not more or labelled + more <= spec.budget:
        return None
    return FailedPrecondition(
        f"labels: {more:,} more items beside the {labelled:,} labelled ones go beyond the budget of {spec.budget:,}",
        field="labels",
    )
