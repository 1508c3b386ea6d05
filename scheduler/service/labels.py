"""Labels in and out."""

from collections.abc import Callable, Iterator, Sequence

from sqlalchemy.orm import Session

from scheduler import messages
from scheduler.asking import asking
from scheduler.domain.labels import ClassIndex
from scheduler.domain.states import CampaignState, LabelPurpose
from scheduler.labelling import commit_labels
from scheduler.ports import Index
from scheduler.service.checks import check_annotator, check_text
from scheduler.service.once import Once
from scheduler.storage import campaigns, labels, tasks
from scheduler.storage.models import Campaign
from scheduler.storage.store import Store
from sealpool.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from sealpool.failpoint import reach
from sealpool.types import ItemId
from sealpool.v1 import scheduler_pb2
from sealpool.validation import MAX_ID_BYTES, check_ids

LABELS_A_MESSAGE = 2_000


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
        """Commit labels, all of them or none."""
        earlier = self._once.answered(request, scheduler_pb2.SubmitLabelsResponse)
        if earlier is not None:
            return earlier
        with self._store.reading() as session:
            campaign = campaigns.get(session, request.campaign)
            purpose = messages.purpose_of("purpose", request.purpose) or LabelPurpose.TRAINING
            given = self._check(campaign, request, purpose)
            strangers = _strangers(session, campaign, list(given), purpose=purpose)
        spec = campaigns.spec_of(campaign)
        self._check_items(spec.evaluation_pool if purpose == LabelPurpose.EVALUATION else spec.pool, strangers)

        def effect(session: Session) -> scheduler_pb2.SubmitLabelsResponse:
            locked = campaigns.lock(session, request.campaign)
            committed = commit_labels(
                session,
                locked,
                given,
                annotator=request.annotator,
                purpose=purpose,
                now=self._store.clock.now(),
            )
            session.flush()
            reach("scheduler.submit.before_commit")
            return scheduler_pb2.SubmitLabelsResponse(
                accepted=committed.accepted,
                unsolicited=committed.unsolicited,
                corrections=committed.corrections,
                labels=locked.labelled,
            )

        answer = self._once.run(request, scheduler_pb2.SubmitLabelsResponse, effect)
        reach("scheduler.submit.after_commit")
        if spec.rule.after_labels and purpose == LabelPurpose.TRAINING:
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

    def _check(
        self, campaign: Campaign, request: scheduler_pb2.SubmitLabelsRequest, purpose: LabelPurpose
    ) -> dict[ItemId, tuple[int, ...]]:
        if campaign.state == CampaignState.ARCHIVED:
            raise FailedPrecondition(f"campaign {campaign.name!r} is archived", field="campaign")
        check_annotator(request.annotator)
        if not request.labels:
            raise InvalidArgument("labels", "is empty")
        if len(request.labels) > self._max_labels:
            raise ResourceExhausted(
                f"labels: {len(request.labels):,} in one call", limit=self._max_labels, setting="max_labels"
            )
        spec = campaigns.spec_of(campaign)
        if purpose == LabelPurpose.EVALUATION and not spec.evaluation_pool:
            raise InvalidArgument("purpose", f"campaign {campaign.name!r} has no evaluation pool")
        items = check_ids("labels.item_id", [label.item_id for label in request.labels])
        for item in items:
            check_text("labels.item_id", item, max_bytes=MAX_ID_BYTES)
        classes = ClassIndex(spec)
        return {
            item: classes.indices(f"labels[{position}].classes", label.classes)
            for position, (item, label) in enumerate(zip(items, request.labels, strict=True))
        }

    def _check_items(self, pool: str, items: Sequence[ItemId]) -> None:
        if not items:
            return
        with asking("the index server"):
            found = self._index.get_items(pool, items, vectors=False, allow_missing=True)
        present = set(found.ids)
        missing = [item for item in items if item not in present]
        if missing:
            raise NotFound("item (labels.item_id)", *missing, field="labels.item_id")


def _strangers(session: Session, campaign: Campaign, items: Sequence[ItemId], *, purpose: LabelPurpose) -> list[ItemId]:
    """Return the items that were neither handed out nor labelled: only these need a look into the pool."""
    is_training = purpose == LabelPurpose.TRAINING
    known: set[ItemId] = set(tasks.rounds_of(session, campaign.id, items)) if is_training else set()
    known |= labels.known_items(session, campaign.id, items, purpose=purpose)
    return [item for item in items if item not in known]
