"""Tasks for annotators."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy.orm import Session

from scheduler import messages
from scheduler.domain.annotation_spec import annotations_of, max_annotations_of
from scheduler.domain.spec import check_lease, lease_s_of
from scheduler.domain.states import CampaignState, LabelPurpose
from scheduler.ports import Index, Learner
from scheduler.rounds.beginning import require_active
from scheduler.service.checks import check_annotator
from scheduler.service.once import Once
from scheduler.storage import campaigns, leases
from scheduler.storage.models import Campaign
from scheduler.storage.store import Store
from sealpool.errors import InvalidArgument, SealpoolError
from sealpool.runtime.logs import Logger
from sealpool.types import ItemId
from sealpool.v1 import scheduler_pb2

EVERY_PURPOSE = tuple(LabelPurpose)
WHILE_COMPLETED = tuple(purpose for purpose in LabelPurpose if purpose is not LabelPurpose.TRAINING)
"""Evaluation, audit and review go on when nothing more is learnt."""
_DIGITS = 18
"""Of the key of a task: any such number fits into the database."""


class TaskService:
    """Leases tasks. Leases end by the scheduler's clock.

    A clock that is set forward ends leases early, and one that is set back makes them last longer by as much; no label
    is lost by either, because an answer counts whoever leased its task and however late.

    Parameters
    ----------
    max_lease_tasks
        Tasks in one call at most.
    index, learner
        With short deadlines: an annotator waits.
    """

    def __init__(self, *, store: Store, index: Index, learner: Learner, max_lease_tasks: int, log: Logger) -> None:
        self._store = store
        self._index = index
        self._learner = learner
        self._max_lease_tasks = max_lease_tasks
        self._log = log
        self._once = Once(store)

    def lease(self, request: scheduler_pb2.LeaseTasksRequest) -> scheduler_pb2.LeaseTasksResponse:
        """Hand out open tasks to one annotator."""
        check_annotator(request.annotator)
        if not 1 <= request.max_tasks <= self._max_lease_tasks:
            raise InvalidArgument(
                "max_tasks",
                f"{request.max_tasks:,} is not 1 to {self._max_lease_tasks:,} (setting max_lease_tasks)",
            )
        _check_lease_seconds(request.lease_seconds)
        pools: list[str] = []

        def effect(session: Session) -> scheduler_pb2.LeaseTasksResponse:
            campaign = campaigns.get(session, request.campaign)
            spec = campaigns.spec_of(campaign)
            pools.append(spec.pool)
            return self._lease(session, request, campaign, spec)

        answer = self._once.run(request, scheduler_pb2.LeaseTasksResponse, effect)
        if answer.tasks:
            self._add_payloads(request.campaign, pools[-1] if pools else self._pool_of(request.campaign), answer)
            if request.include_predictions:
                self._add_predictions(request.campaign, answer)
        return answer

    def renew(self, request: scheduler_pb2.RenewLeasesRequest) -> scheduler_pb2.RenewLeasesResponse:
        """Let leases of one annotator end later."""
        check_annotator(request.annotator)
        _check_lease_seconds(request.lease_seconds)

        def effect(session: Session) -> scheduler_pb2.RenewLeasesResponse:
            campaign = campaigns.lock(session, request.campaign)
            lease_s = request.lease_seconds or lease_s_of(campaigns.spec_of(campaign))
            until = self._store.clock.now() + timedelta(seconds=lease_s)
            asked = _keys(request.task_ids)
            if request.task_ids and not asked:
                return scheduler_pb2.RenewLeasesResponse(lost=request.task_ids)
            renewed = leases.renew(
                session, campaign.id, annotator=request.annotator, task_ids=list(asked.values()), until=until
            )
            kept = set(renewed)
            return scheduler_pb2.RenewLeasesResponse(
                renewed=len(kept), lost=[task for task in request.task_ids if asked.get(task) not in kept]
            )

        return self._once.run(request, scheduler_pb2.RenewLeasesResponse, effect)

    def release(self, request: scheduler_pb2.ReleaseTasksRequest) -> scheduler_pb2.ReleaseTasksResponse:
        """Take leased tasks back from one annotator."""
        check_annotator(request.annotator)

        def effect(session: Session) -> scheduler_pb2.ReleaseTasksResponse:
            campaign = campaigns.lock(session, request.campaign)
            asked = _keys(request.task_ids)
            if request.task_ids and not asked:
                return scheduler_pb2.ReleaseTasksResponse()
            released = leases.release(session, campaign.id, annotator=request.annotator, task_ids=list(asked.values()))
            return scheduler_pb2.ReleaseTasksResponse(released=released)

        return self._once.run(request, scheduler_pb2.ReleaseTasksResponse, effect)

    def _lease(
        self,
        session: Session,
        request: scheduler_pb2.LeaseTasksRequest,
        campaign: Campaign,
        spec: scheduler_pb2.CampaignSpec,
    ) -> scheduler_pb2.LeaseTasksResponse:
        purposes = _leasable(session, campaign)
        now = self._store.clock.now()
        leased = leases.lease(
            session,
            campaign.id,
            annotator=request.annotator,
            count=request.max_tasks,
            now=now,
            lease_s=request.lease_seconds or lease_s_of(spec),
            slots=1 if annotations_of(spec) == 1 else max_annotations_of(spec),
            purposes=purposes,
        )
        return scheduler_pb2.LeaseTasksResponse(
            tasks=map(messages.task_message, leased),
            open_tasks=leases.count_waiting(session, campaign.id, now=now, purposes=purposes),
        )

    def _pool_of(self, campaign: str) -> str:
        with self._store.reading() as session:
            return campaigns.spec_of(campaigns.get(session, campaign)).pool

    def _add_payloads(self, campaign: str, pool: str, answer: scheduler_pb2.LeaseTasksResponse) -> None:
        ids = [ItemId(task.item_id) for task in answer.tasks]
        try:
            items = self._index.get_items(pool, ids, vectors=False, payloads=True, allow_missing=True)
        except SealpoolError as error:
            # The lease is committed: whatever ails the index server, an error would hide the tasks until it runs out.
            self._log.warning("tasks without payload", campaign=campaign, error=error.message)
            return
        payloads = dict(zip(items.ids, items.payloads or (), strict=True))
        for task in answer.tasks:
            payload = payloads.get(ItemId(task.item_id))
            if payload is not None:
                messages.add_payload(task, payload)

    def _add_predictions(self, campaign: str, answer: scheduler_pb2.LeaseTasksResponse) -> None:
        found: dict[str, list[scheduler_pb2.ClassProbability]] = {}
        try:
            for chunk in self._learner.predict(campaign, ids=[task.item_id for task in answer.tasks]):
                for item, probabilities in zip(chunk.ids, chunk.probabilities.tolist(), strict=True):
                    found[item] = messages.class_probabilities(chunk.classes, probabilities)
        except SealpoolError as error:
            # As with payloads. NotFound is the rule until the first model is trained.
            self._log.warning("tasks without predictions", campaign=campaign, error=error.message)
            return
        for task in answer.tasks:
            task.predictions.extend(found.get(task.item_id, ()))


def _leasable(session: Session, campaign: Campaign) -> Sequence[LabelPurpose]:
    """Return for what the campaign hands out tasks as it stands, or raise FailedPrecondition."""
    is_completed = campaign.state == CampaignState.COMPLETED
    if is_completed and leases.has_open(session, campaign.id, purposes=WHILE_COMPLETED):
        return WHILE_COMPLETED
    require_active(campaign)
    return EVERY_PURPOSE


def _check_lease_seconds(lease_seconds: float) -> None:
    if lease_seconds != 0:
        check_lease("lease_seconds", lease_seconds)


def _keys(task_ids: Sequence[str]) -> dict[str, int]:
    """Return the keys of those ids that can be ours; any other text is no task of anybody's."""
    return {task: int(task) for task in task_ids if task.isascii() and task.isdigit() and len(task) <= _DIGITS}
