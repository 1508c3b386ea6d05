"""Labels in and out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from scheduler import messages
from scheduler.asking import asking
from scheduler.domain.answers import Answer
from scheduler.domain.labels import ClassIndex
from scheduler.domain.states import CampaignState, LabelPurpose, Outcome
from scheduler.labelling import commit_answers
from scheduler.ports import Index
from scheduler.service.checks import check_annotator, check_text
from scheduler.service.once import Once
from scheduler.storage import campaigns, item_tasks, labels
from scheduler.storage.models import Campaign
from scheduler.storage.store import Store
from sealpool.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, SealpoolError
from sealpool.failpoint import reach
from sealpool.types import ItemId
from sealpool.v1 import scheduler_pb2
from sealpool.validation import MAX_ID_BYTES, check_ids
from sealpool.vocabulary.checking import check_range

LABELS_A_MESSAGE = 2_000
MAX_COMMENT_BYTES = 16 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class _Submission:
    """A request that was checked."""

    spec: scheduler_pb2.CampaignSpec
    purpose: LabelPurpose | None
    answers: Sequence[Answer]


class LabelService:
    """Takes labels and lists them.

    Parameters
    ----------
    max_labels
        Labels in one call at most.
    on_labels
        Called with the name of a campaign with an after_labels rule whenever labels of it were committed. Must not
        raise: the labels are on disk, and the caller has to be told so.
    """

    def __init__(self, *, store: Store, index: Index, max_labels: int, on_labels: Callable[[str], None]) -> None:
        self._store = store
        self._index = index
        self._max_labels = max_labels
        self._on_labels = on_labels
        self._once = Once(store)

    def submit(self, request: scheduler_pb2.SubmitLabelsRequest) -> scheduler_pb2.SubmitLabelsResponse:
        """Commit annotations, all of them or none."""
        try:
            submission = self._prepare(request)
        except SealpoolError:
            # What the first of two like requests changed may be why the second is refused.
            earlier = self._once.answered(request, scheduler_pb2.SubmitLabelsResponse)
            if earlier is None:
                raise
            return earlier

        def effect(session: Session) -> scheduler_pb2.SubmitLabelsResponse:
            locked = campaigns.lock(session, request.campaign)
            committed = commit_answers(
                session,
                locked,
                submission.answers,
                annotator=request.annotator,
                purpose=submission.purpose,
                now=self._store.clock.now(),
            )
            session.flush()
            reach("scheduler.submit.before_commit")
            return scheduler_pb2.SubmitLabelsResponse(
                accepted=committed.accepted,
                unsolicited=committed.unsolicited,
                corrections=committed.corrections,
                labels=locked.labelled,
                waiting=committed.waiting,
                given_up=committed.given_up,
            )

        answer = self._once.run(request, scheduler_pb2.SubmitLabelsResponse, effect)
        reach("scheduler.submit.after_commit")
        if submission.spec.rule.after_labels and submission.purpose in (None, LabelPurpose.TRAINING):
            self._on_labels(request.campaign)
        return answer

    def list(self, request: scheduler_pb2.ListLabelsRequest) -> Iterator[list[scheduler_pb2.Label]]:
        """Yield labels as they were when the call began, in chunks, in the order they were committed."""
        with self._store.reading() as session:
            campaign = campaigns.get(session, request.campaign)
        classes = campaigns.spec_of(campaign).classes
        after = request.after_sequence
        while after < campaign.last_sequence:
            with self._store.reading() as session:
                page = labels.page(
                    session,
                    campaign.id,
                    purpose=messages.purpose_of("purpose", request.purpose) or LabelPurpose.TRAINING,
                    only_effective=request.only_effective,
                    after=after,
                    until=campaign.last_sequence,
                    limit=LABELS_A_MESSAGE,
                )
            if not page:
                return
            yield [messages.label_message(row, classes) for row in page]
            after = page[-1].sequence

    def _prepare(self, request: scheduler_pb2.SubmitLabelsRequest) -> _Submission:
        with self._store.reading() as session:
            campaign = campaigns.get(session, request.campaign)
            purpose = messages.purpose_of("purpose", request.purpose)
            spec = campaigns.spec_of(campaign)
            answers = self._check(campaign, spec, request)
            strangers = _strangers(session, campaign, spec, answers, purpose=purpose)
        is_elsewhere = purpose is LabelPurpose.EVALUATION
        self._check_items(spec.evaluation_pool if is_elsewhere else spec.pool, strangers)
        return _Submission(spec=spec, purpose=purpose, answers=answers)

    def _check(
        self, campaign: Campaign, spec: scheduler_pb2.CampaignSpec, request: scheduler_pb2.SubmitLabelsRequest
    ) -> Sequence[Answer]:
        if campaign.state == CampaignState.ARCHIVED:
            raise FailedPrecondition(f"campaign {campaign.name!r} is archived", field="campaign")
        check_annotator(request.annotator)
        if not request.labels:
            raise InvalidArgument("labels", "is empty")
        if len(request.labels) > self._max_labels:
            raise ResourceExhausted(
                f"labels: {len(request.labels):,} in one call", limit=self._max_labels, setting="max_labels"
            )
        items = check_ids("labels.item_id", [label.item_id for label in request.labels])
        for item in items:
            check_text("labels.item_id", item, max_bytes=MAX_ID_BYTES)
        classes = ClassIndex(spec)
        return [
            _answer(f"labels[{position}]", item, label, classes)
            for position, (item, label) in enumerate(zip(items, request.labels, strict=True))
        ]

    def _check_items(self, pool: str, items: Sequence[ItemId]) -> None:
        if not items:
            return
        with asking("the index server"):
            found = self._index.get_items(pool, items, vectors=False, allow_missing=True)
        present = set(found.ids)
        missing = [item for item in items if item not in present]
        if missing:
            raise NotFound("item (labels.item_id)", *missing, field="labels.item_id")


def _answer(field: str, item: ItemId, label: scheduler_pb2.NewLabel, classes: ClassIndex) -> Answer:
    outcome = messages.outcome_of(f"{field}.outcome", label.outcome)
    if outcome is not Outcome.LABEL and label.classes:
        raise InvalidArgument(f"{field}.classes", "names classes beside an outcome that is no label")
    if label.HasField("confidence"):
        check_range(f"{field}.confidence", label.confidence, 0, 1)
    return Answer(
        item_id=item,
        outcome=outcome,
        classes=classes.indices(f"{field}.classes", label.classes) if outcome is Outcome.LABEL else (),
        confidence=label.confidence if label.HasField("confidence") else None,
        comment=check_text(f"{field}.comment", label.comment, max_bytes=MAX_COMMENT_BYTES),
    )


def _strangers(
    session: Session,
    campaign: Campaign,
    spec: scheduler_pb2.CampaignSpec,
    answers: Sequence[Answer],
    *,
    purpose: LabelPurpose | None,
) -> list[ItemId]:
    """Return the items that were neither handed out nor labelled: only these need a look into the pool.

    Raises
    ------
    InvalidArgument
        One of them is said to be held out, and the campaign has no evaluation pool.
    """
    items = [answer.item_id for answer in answers]
    is_held_out = purpose is LabelPurpose.EVALUATION
    if not (is_held_out and spec.evaluation_pool):
        known = item_tasks.with_a_task(session, campaign.id, items)
        items = [item for item in items if item not in known]
        if is_held_out and items:
            raise InvalidArgument(
                "purpose", f"campaign {campaign.name!r} has no evaluation pool, and item {items[0]!r} is not held out"
            )
    if not items:
        return []
    labelled = labels.known_items(session, campaign.id, items, purpose=purpose or LabelPurpose.TRAINING)
    return [item for item in items if item not in labelled]
