"""Tasks for annotators."""

from sqlalchemy.orm import Session

from scheduler import messages
from scheduler.domain.spec import check_lease, lease_s_of
from scheduler.ports import Index
from scheduler.rounds.beginning import require_active
from scheduler.service.checks import check_annotator
from scheduler.service.once import Once
from scheduler.storage import campaigns, tasks
from scheduler.storage.store import Store
from sealpool.errors import InvalidArgument, SealpoolError
from sealpool.runtime.logs import Logger
from sealpool.types import ItemId
from sealpool.v1 import scheduler_pb2


class TaskService:
    """Leases tasks.

    Parameters
    ----------
    max_lease_tasks
        Tasks in one call at most.
    """

    def __init__(self, *, store: Store, index: Index, max_lease_tasks: int, log: Logger) -> None:
        self._store = store
        self._index = index
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
        if request.lease_seconds != 0:
            check_lease("lease_seconds", request.lease_seconds)

        def effect(session: Session) -> scheduler_pb2.LeaseTasksResponse:
            campaign = campaigns.get(session, request.campaign)
            require_active(campaign)
            spec = campaigns.spec_of(campaign)
            now = self._store.clock.now()
            leased = tasks.lease(
                session,
                campaign.id,
                annotator=request.annotator,
                count=request.max_tasks,
                now=now,
                lease_s=request.lease_seconds or lease_s_of(spec),
            )
            return scheduler_pb2.LeaseTasksResponse(
                tasks=map(messages.task_message, leased),
                open_tasks=tasks.counts(session, [campaign.id], now=now)[campaign.id].open,
            )

        answer = self._once.run(request, scheduler_pb2.LeaseTasksResponse, effect)
        self._add_payloads(request.campaign, answer)
        return answer

    def _add_payloads(self, campaign: str, answer: scheduler_pb2.LeaseTasksResponse) -> None:
        if not answer.tasks:
            return
        with self._store.reading() as session:
            pool = campaigns.spec_of(campaigns.get(session, campaign)).pool
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
