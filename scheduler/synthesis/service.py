"""New items from labelled ones."""

from collections.abc import Callable, Iterator, Sequence

from sqlalchemy.orm import Session

from scheduler.asking import asking
from scheduler.domain.answers import Answer
from scheduler.domain.states import LabelPurpose
from scheduler.labelling import commit_answers
from scheduler.ports import Index
from scheduler.rounds.beginning import require_active
from scheduler.service.once import Once
from scheduler.storage import campaigns, streams, synthetic
from scheduler.storage.models import Campaign
from scheduler.storage.store import Store
from scheduler.storage.tasks import Pick
from scheduler.streams.considering import add_tasks
from scheduler.synthesis.making import ITEMS_A_CALL, Made, Maker
from scheduler.synthesis.plan import Plan, check_request, make_plan, require_budget
from sealpool.failpoint import reach
from sealpool.types import ItemId, Items
from sealpool.v1 import common_pb2, stream_pb2

ANNOTATOR = "synthesis"
"""In whose name labels stand that made items took over from their sources."""
ITEMS_A_MESSAGE = 500


class SynthesisService:
    """Makes items, asks about them, and lists them.

    New items are in the pool before the transaction that asks about them: a kill between leaves them there unlabelled,
    and the same request makes them again under the same ids.

    Parameters
    ----------
    max_count
        Items in one Synthesize at most.
    on_labels
        As for LabelService.
    """

    def __init__(
        self, *, store: Store, index: Index, maker: Maker, max_count: int, on_labels: Callable[[str], None]
    ) -> None:
        self._store = store
        self._index = index
        self._maker = maker
        self._max_count = max_count
        self._on_labels = on_labels
        self._once = Once(store)

    def synthesize(self, request: stream_pb2.SynthesizeRequest) -> stream_pb2.SynthesizeResponse:
        """Make items, or find them, and ask about them."""
        earlier = self._once.answered(request, stream_pb2.SynthesizeResponse)
        if earlier is not None:
            return earlier
        check_request(request, max_count=self._max_count)
        with self._store.reading() as session:
            plan = make_plan(session, campaigns.get(session, request.campaign), request)
        made = self._maker.make(plan)
        self._upsert(plan, made)
        reach("scheduler.synthesis.before_commit")
        answer = self._once.run(
            request, stream_pb2.SynthesizeResponse, lambda session: self._write(session, plan, made)
        )
        if plan.keep_label and plan.spec.rule.after_labels:
            self._on_labels(request.campaign)
        return answer

    def list(self, name: str) -> Iterator[list[stream_pb2.SyntheticItem]]:
        """Yield what a campaign made or found, by item id, in chunks."""
        with self._store.reading() as session:
            campaign_id = campaigns.get(session, name).id
        after = ""
        while True:
            with self._store.reading() as session:
                items = synthetic.page(session, campaign_id, after=after, limit=ITEMS_A_MESSAGE)
            if not items:
                return
            yield items
            after = items[-1].item_id

    def _upsert(self, plan: Plan, made: Made) -> None:
        new = made.new
        if new is None or new.vectors is None or new.payloads is None:
            return
        for start in range(0, len(new), ITEMS_A_CALL):
            stop = start + ITEMS_A_CALL
            with asking("the index server"):
                self._index.upsert(
                    plan.spec.pool,
                    Items(ids=new.ids[start:stop], vectors=new.vectors[start:stop], payloads=new.payloads[start:stop]),
                )

    def _write(self, session: Session, plan: Plan, made: Made) -> stream_pb2.SynthesizeResponse:
        campaign = campaigns.lock(session, plan.spec.name)
        require_active(campaign)
        left = require_budget(session, campaign)
        # Somebody may have been asked about one of them meanwhile.
        taken = streams.taken(session, campaign.id, [ItemId(item.item_id) for item in made.items])
        items = [item for item in made.items if item.item_id not in taken][:left]
        synthetic.add(session, campaign.id, items, now=self._store.clock.now())
        if plan.keep_label:
            self._label(session, campaign, plan, items)
        else:
            picks = [
                Pick(item_id=ItemId(item.item_id), score=0.0, origin=common_pb2.PICK_ORIGIN_SYNTHESIS) for item in items
            ]
            add_tasks(session, campaign, plan.spec, picks)
        session.flush()
        return stream_pb2.SynthesizeResponse(items=items)

    def _label(
        self, session: Session, campaign: Campaign, plan: Plan, items: Sequence[stream_pb2.SyntheticItem]
    ) -> None:
        if not items:
            return
        answers = [
            Answer(item_id=ItemId(item.item_id), classes=plan.sources[ItemId(item.sources[0])]) for item in items
        ]
        commit_answers(
            session,
            campaign,
            answers,
            annotator=ANNOTATOR,
            purpose=LabelPurpose.TRAINING,
            now=self._store.clock.now(),
        )
