"""A random sample of unlabelled items that people label, by which labels for the rest of the pool are judged."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from scheduler.asking import asking
from scheduler.domain.annotation_spec import annotations_of
from scheduler.domain.seeds import Purpose, derive_seed
from scheduler.domain.states import CampaignState, LabelPurpose
from scheduler.drawing import draw_real
from scheduler.ports import Index
from scheduler.service.once import Once
from scheduler.storage import campaigns, drawn_items, item_tasks, labels, rounds, tasks
from scheduler.storage.models import Campaign
from scheduler.storage.store import Store
from scheduler.storage.tasks import Pick
from sealpool.errors import FailedPrecondition
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, scheduler_pb2
from sealpool.vocabulary.checking import check_range

MAX_ITEMS = 100_000


class AuditService:
    """Draws audits."""

    def __init__(self, *, store: Store, index: Index) -> None:
        self._store = store
        self._index = index
        self._once = Once(store)

    def draw(self, request: scheduler_pb2.DrawAuditRequest) -> scheduler_pb2.DrawAuditResponse:
        """Make tasks of random items until so many are drawn in all."""
        earlier = self._once.answered(request, scheduler_pb2.DrawAuditResponse)
        if earlier is not None:
            return earlier
        check_range("items", request.items, 0, MAX_ITEMS)
        with self._store.reading() as session:
            campaign = campaigns.get(session, request.campaign)
            _check_not_archived(campaign)
            spec = campaigns.spec_of(campaign)
            drawn = len(tasks.items_of(session, campaign.id, purpose=LabelPurpose.AUDIT))
            taken = _taken(session, campaign)
        wanted = max(request.items - drawn, 0)
        sample: Sequence[ItemId] = ()
        if wanted:
            seed = derive_seed(spec.seed, drawn, Purpose.AUDIT)
            with asking("the index server"):
                sample = draw_real(self._index, spec.pool, wanted, seed=seed, exclude=taken)

        def effect(session: Session) -> scheduler_pb2.DrawAuditResponse:
            return _hand_out(session, request, sample)

        return self._once.run(request, scheduler_pb2.DrawAuditResponse, effect)


def _hand_out(
    session: Session, request: scheduler_pb2.DrawAuditRequest, sample: Sequence[ItemId]
) -> scheduler_pb2.DrawAuditResponse:
    campaign = campaigns.lock(session, request.campaign)
    _check_not_archived(campaign)
    before = len(tasks.items_of(session, campaign.id, purpose=LabelPurpose.AUDIT))
    # While the index server was asked, another audit may have been drawn, and a round may have picked some of these.
    known = item_tasks.with_a_task(session, campaign.id, sample)
    known |= labels.known_items(session, campaign.id, sample, purpose=LabelPurpose.TRAINING)
    fresh = [item for item in sample if item not in known][: max(request.items - before, 0)]
    last = rounds.last(session, campaign.id)
    tasks.add(
        session,
        campaign.id,
        0 if last is None else last.number,
        [Pick(item_id=item, score=0.0, origin=common_pb2.PICK_ORIGIN_AUDIT) for item in fresh],
        labelled=(),
        purpose=LabelPurpose.AUDIT,
        annotations=annotations_of(campaigns.spec_of(campaign)),
    )
    return scheduler_pb2.DrawAuditResponse(
        drawn=before + len(fresh),
        labelled=labels.count_items(session, campaign.id, purpose=LabelPurpose.AUDIT),
    )


def _taken(session: Session, campaign: Campaign) -> list[ItemId]:
    """Return the items that no audit draws: labelled, handed out for anything, or held out."""
    labelled = labels.effective(session, campaign.id, purpose=LabelPurpose.TRAINING, until=campaign.last_sequence)
    handed_out = tasks.items_of(session, campaign.id)
    return sorted({*labelled, *handed_out, *drawn_items.held_out(session, campaign.id)})


def _check_not_archived(campaign: Campaign) -> None:
    if campaign.state == CampaignState.ARCHIVED:
        raise FailedPrecondition(f"campaign {campaign.name!r} is archived", field="campaign")
