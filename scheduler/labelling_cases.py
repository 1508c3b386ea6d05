"""An answer beside what is known of its item, and what follows from it."""

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from scheduler.domain.agreement import Decision, decide
from scheduler.domain.annotation_spec import give_up_after_of, max_annotations_of, wanted_for
from scheduler.domain.answers import Answer
from scheduler.domain.llm_spec import annotator_of
from scheduler.domain.states import Audience, LabelPurpose, Outcome, TaskState
from scheduler.storage import annotations, drawn_items, item_tasks, labels
from scheduler.storage.annotations import Opinion
from scheduler.storage.item_tasks import ItemTask
from sealpool.errors import InvalidArgument
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, scheduler_pb2

TRAINING = (LabelPurpose.TRAINING, LabelPurpose.REVIEW)
"""Purposes of tasks whose answers are labels for training."""
FIRST_MEANT = (LabelPurpose.TRAINING, LabelPurpose.EVALUATION, LabelPurpose.AUDIT, LabelPurpose.REVIEW)


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """What one annotator says of distinct items.

    Parameters
    ----------
    purpose
        What the labels are for; None: what the item's task asks for, TRAINING where it has none.
    present
        Items that its pool is known to have, beside those that were handed out or labelled; None: all.
    """

    answers: Sequence[Answer]
    annotator: str
    purpose: LabelPurpose | None
    present: Collection[ItemId] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """An answer, whose it is, and what is known of its item.

    Parameters
    ----------
    purpose
        That of the task it answers, which may be REVIEW.
    tasks
        Those of the item that ask for labels of this purpose, by slot.
    is_labelled
        Whether the item has a label of this purpose.
    is_stranger
        Whether it was neither labelled nor ever handed out for anything.
    """

    answer: Answer
    annotator: str
    purpose: LabelPurpose
    tasks: Sequence[ItemTask]
    is_labelled: bool
    is_stranger: bool = False

    @property
    def label_purpose(self) -> LabelPurpose:
        """What a label that follows from it is for."""
        return LabelPurpose.TRAINING if self.purpose is LabelPurpose.REVIEW else self.purpose

    @property
    def round(self) -> int:
        """The round whose task it answers; 0 if unsolicited."""
        return next((task.round for task in self.tasks if task.purpose is self.purpose), 0)

    @property
    def is_unsolicited(self) -> bool:
        """Whether nobody had asked for it."""
        return self.label_purpose is LabelPurpose.TRAINING and not self.tasks


def cases_of(
    session: Session, campaign_id: int, spec: scheduler_pb2.CampaignSpec, submissions: Sequence[Submission]
) -> list[list[Case] | InvalidArgument]:
    """Return the answers of each submission beside what is known of their items.

    Two statements for all of them at most: tasks, and labels of items without; one more with a test pool. A submission
    with an item that cannot have its purpose gets the error instead.
    """
    # Items of an evaluation pool have no tasks, but may be called as items of the pool are.
    within = [submission for submission in submissions if not _is_elsewhere(spec, submission)]
    items = [answer.item_id for submission in within for answer in submission.answers]
    known = item_tasks.of_items(session, campaign_id, items)
    reserved = drawn_items.in_test_pool(session, campaign_id, items) if spec.evaluation.test_pool else set()
    placed = [
        _placed_elsewhere(submission) if _is_elsewhere(spec, submission) else _placed(submission, known, reserved)
        for submission in submissions
    ]
    labelled = _labelled_without_task(session, campaign_id, placed)
    return [
        found if isinstance(found, InvalidArgument) else [_with_label(case, labelled) for case in found]
        for found in placed
    ]


def _is_elsewhere(spec: scheduler_pb2.CampaignSpec, submission: Submission) -> bool:
    return submission.purpose is LabelPurpose.EVALUATION and bool(spec.evaluation_pool)


def _placed_elsewhere(submission: Submission) -> list[Case]:
    return [
        Case(
            answer=answer,
            annotator=submission.annotator,
            purpose=LabelPurpose.EVALUATION,
            tasks=(),
            is_labelled=False,
            is_stranger=True,
        )
        for answer in submission.answers
    ]


def _placed(
    submission: Submission, known: Mapping[ItemId, Sequence[ItemTask]], reserved: AbstractSet[ItemId]
) -> list[Case] | InvalidArgument:
    cases: list[Case] = []
    for answer in submission.answers:
        of_item = known.get(answer.item_id, ())
        meant = _meant(of_item, submission.purpose, submission.annotator)
        try:
            _check_held_out(answer.item_id, of_item, meant, is_reserved=answer.item_id in reserved)
        except InvalidArgument as error:
            return error
        purposes = TRAINING if meant in TRAINING else (meant,)
        tasks = [task for task in of_item if task.purpose in purposes]
        cases.append(
            Case(
                answer=answer,
                annotator=submission.annotator,
                purpose=meant,
                tasks=tasks,
                is_labelled=any(task.is_labelled for task in tasks),
                is_stranger=not of_item,
            )
        )
    return cases


def _with_label(case: Case, labelled: AbstractSet[tuple[ItemId, LabelPurpose]]) -> Case:
    if (case.answer.item_id, case.purpose) not in labelled:
        return case
    return replace(case, is_labelled=True, is_stranger=False)


def make_decisions(
    session: Session, campaign_id: int, spec: scheduler_pb2.CampaignSpec, cases: Sequence[Case]
) -> list[Decision]:
    """Return what follows for each case, of distinct items, once its annotation is written.

    Where one annotation is wanted, its answer is the label, and nothing is read, unless somebody cannot tell.
    """
    shared = [
        case for case in cases if wanted_for(spec, case.label_purpose) > 1 or case.answer.outcome is Outcome.CANNOT_TELL
    ]
    opinions = {
        purposes: annotations.opinions(session, campaign_id, items, purposes=purposes)
        for purposes, items in _by_purposes(shared).items()
    }
    decisions: list[Decision] = []
    for case in cases:
        said = _with_answer(opinions.get(_purposes(case), {}).get(case.answer.item_id, {}), case)
        if wanted_for(spec, case.label_purpose) > 1:
            decisions.append(_together(spec, case, said))
        else:
            decisions.append(_alone(spec, case, said))
    return _without_repetitions(session, campaign_id, spec, cases, decisions)


def _with_answer(said: Mapping[str, Opinion], case: Case) -> list[Opinion]:
    """Return what everybody says of an item now: an annotator's answer replaces his earlier one; a skip is none."""
    if case.answer.outcome is Outcome.SKIP:
        return list(said.values())
    own = Opinion(case.annotator, case.answer.outcome, case.answer.classes, case.purpose)
    return list({**said, case.annotator: own}.values())


def _meant(of_item: Sequence[ItemTask], purpose: LabelPurpose | None, annotator: str) -> LabelPurpose:
    """Return what an answer is for: what it says, or what the likeliest of the item's tasks asks for."""
    if purpose not in (None, LabelPurpose.TRAINING):
        return purpose
    asked = [task for task in of_item if purpose is None or task.purpose in TRAINING]
    if not asked:
        return LabelPurpose.TRAINING

    def likelihood(task: ItemTask) -> tuple[bool, bool, int]:
        is_open = task.state is TaskState.OPEN
        is_his = is_open and task.annotator == annotator
        return not is_his, not is_open, FIRST_MEANT.index(task.purpose)

    return min(asked, key=likelihood).purpose


def _check_held_out(item: ItemId, of_item: Sequence[ItemTask], meant: LabelPurpose, *, is_reserved: bool) -> None:
    is_asked_for = any(task.purpose is LabelPurpose.EVALUATION for task in of_item)
    if meant is LabelPurpose.EVALUATION and not is_asked_for:
        raise InvalidArgument(
            "purpose", f"the campaign has no evaluation pool, and item {item[:140]!r} is not held out"
        )
    if meant in TRAINING and (is_asked_for or is_reserved):
        raise InvalidArgument("purpose", f"item {item[:140]!r} is held out for evaluation, not for training")


def _labelled_without_task(
    session: Session, campaign_id: int, placed: Sequence[list[Case] | InvalidArgument]
) -> set[tuple[ItemId, LabelPurpose]]:
    by_purpose: dict[LabelPurpose, list[ItemId]] = {}
    for found in placed:
        for case in () if isinstance(found, InvalidArgument) else found:
            if not case.tasks:
                by_purpose.setdefault(case.purpose, []).append(case.answer.item_id)
    return {
        (item, purpose)
        for purpose, items in by_purpose.items()
        for item in labels.known_items(session, campaign_id, items, purpose=purpose)
    }


def _purposes(case: Case) -> tuple[LabelPurpose, ...]:
    return TRAINING if case.purpose in TRAINING else (case.purpose,)


def _by_purposes(cases: Sequence[Case]) -> dict[tuple[LabelPurpose, ...], list[ItemId]]:
    found: dict[tuple[LabelPurpose, ...], list[ItemId]] = {}
    for case in cases:
        found.setdefault(_purposes(case), []).append(case.answer.item_id)
    return found


def _alone(spec: scheduler_pb2.CampaignSpec, case: Case, said: Sequence[Opinion]) -> Decision:
    if case.answer.outcome is Outcome.LABEL:
        return Decision(label=case.answer.classes)
    if _is_hopeless(spec, case, said):
        return Decision(given_up=True)
    return Decision(more=1)


def _together(spec: scheduler_pb2.CampaignSpec, case: Case, said: Sequence[Opinion]) -> Decision:
    if _is_hopeless(spec, case, said):
        return Decision(given_up=True)
    if case.is_labelled and case.answer.outcome is Outcome.SKIP:
        return Decision()
    return decide(
        [opinion.classes for opinion in said if opinion.outcome is Outcome.LABEL],
        wanted=wanted_for(spec, case.label_purpose),
        at_most=max_annotations_of(spec),
        multilabel=spec.task == common_pb2.TASK_KIND_MULTILABEL,
    )


def _is_hopeless(spec: scheduler_pb2.CampaignSpec, case: Case, said: Sequence[Opinion]) -> bool:
    """Whether enough people cannot tell. What the campaign's own oracle cannot tell goes to people first."""
    if case.answer.outcome is not Outcome.CANNOT_TELL:
        return False
    if any(task.state is TaskState.OPEN and task.audience is Audience.ORACLE for task in case.tasks):
        return False
    cannot = {
        opinion.annotator
        for opinion in said
        if opinion.outcome is Outcome.CANNOT_TELL and opinion.purpose is case.purpose
    }
    return len(cannot - {annotator_of(spec.oracle.llm)}) >= give_up_after_of(spec)


def _without_repetitions(
    session: Session,
    campaign_id: int,
    spec: scheduler_pb2.CampaignSpec,
    cases: Sequence[Case],
    decisions: list[Decision],
) -> list[Decision]:
    """Return decisions without the labels that items have already.

    Where several annotations are wanted, an answer that leaves the majority as it was corrects nothing.
    """
    agreed: dict[LabelPurpose, list[ItemId]] = {}
    for case, decision in zip(cases, decisions, strict=True):
        if case.is_labelled and decision.label is not None and wanted_for(spec, case.label_purpose) > 1:
            agreed.setdefault(case.label_purpose, []).append(case.answer.item_id)
    standing = {
        (purpose, item): classes
        for purpose, items in agreed.items()
        for item, classes in labels.effective_of(session, campaign_id, items, purpose=purpose).items()
    }
    kept: list[Decision] = []
    for case, decision in zip(cases, decisions, strict=True):
        stands = standing.get((case.label_purpose, case.answer.item_id))
        kept.append(Decision() if stands is not None and stands == decision.label else decision)
    return kept
