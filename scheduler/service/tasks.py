"""Tasks for annotators."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from sqlalchemy.orm import Session

from scheduler import messages
from scheduler.combining import Combiner
from scheduler.domain.annotation_spec import annotations_of, max_annotations_of
from scheduler.domain.spec import check_lease, lease_s_of
from scheduler.domain.states import CampaignState, LabelPurpose
from scheduler.ports import Index, Learner
from scheduler.rounds.beginning import require_active
from scheduler.service.checks import check_annotator
from scheduler.service.known_specs import KnownSpecs
from scheduler.service.once import Once, check_request_id, parts
from scheduler.storage import campaigns, leases
from scheduler.storage.models import Campaign
from scheduler.storage.store import Store
from sealpool.errors import InvalidArgument, SealpoolError
from sealpool.runtime.logs import Logger
from sealpool.types import ItemId, Payload
from sealpool.v1 import scheduler_pb2

EVERY_PURPOSE = tuple(LabelPurpose)
WHILE_COMPLETED = tuple(purpose for purpose in LabelPurpose if purpose is not LabelPurpose.TRAINING)
"""Evaluation, audit and review go on when nothing more is learnt."""
MOST_CALLS = 256
"""Of a group: an annotator waits for the group before and for his own."""
MOST_LOOK_UPS = 16
"""Texts may be long, and an answer of the index server must fit into a message."""
_TASKS_AT_ONCE = 5_000
_DIGITS = 18
"""Of the key of a task: any such number fits into the database."""

_Leased = tuple[scheduler_pb2.LeaseTasksResponse, str]
"""An answer without texts, and the pool where they are."""


class TaskService:
    """Leases tasks, to all who wait for those of a campaign together. Leases end by the scheduler's clock.

    A clock that is set forward ends leases early, and one that is set back makes them last longer by as much; no label
    is lost by either, because an answer counts whoever leased its task and however late.

    Parameters
    ----------
    max_lease_tasks
        Tasks in one call at most.
    index, learner
        With short deadlines: an annotator waits.
    on_expired
        Told of a campaign, and how many of the tasks just leased somebody had let run out.
    """

    def __init__(
        self,
        *,
        store: Store,
        index: Index,
        learner: Learner,
        max_lease_tasks: int,
        log: Logger,
        on_expired: Callable[[str, int], None] = lambda _campaign, _number: None,
    ) -> None:
        self._store = store
        self._index = index
        self._learner = learner
        self._max_lease_tasks = max_lease_tasks
        self._log = log
        self._on_expired = on_expired
        self._once = Once(store)
        self._specs = KnownSpecs(store)
        self._combiner: Combiner[scheduler_pb2.LeaseTasksRequest, _Leased] = Combiner(self._lease, most=MOST_CALLS)
        self._payloads: Combiner[Sequence[ItemId], Mapping[ItemId, Payload]] = Combiner(
            self._look_up, most=MOST_LOOK_UPS
        )

    def lease(self, request: scheduler_pb2.LeaseTasksRequest) -> scheduler_pb2.LeaseTasksResponse:
        """Hand out open tasks to one annotator."""
        check_annotator(request.annotator)
        if not 1 <= request.max_tasks <= self._max_lease_tasks:
            raise InvalidArgument(
                "max_tasks",
                f"{request.max_tasks:,} is not 1 to {self._max_lease_tasks:,} (setting max_lease_tasks)",
            )
        _check_lease_seconds(request.lease_seconds)
        check_request_id(request)
        answer, pool = self._combiner.run(request.campaign, request)
        if answer.tasks:
            self._add_payloads(request.campaign, pool, answer)
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

    def _lease(self, name: str, asked: Sequence[scheduler_pb2.LeaseTasksRequest]) -> list[_Leased | SealpoolError]:
        """Hand out tasks of a campaign to many annotators, in the order they came."""
        answers: list[_Leased | SealpoolError] = []
        for part in parts(asked, lambda request: request.max_tasks, most=_TASKS_AT_ONCE):
            some = asked[part]
            try:
                answers += self._lease_at_once(name, some)
            except SealpoolError as error:  # what transactions before this one handed out is theirs
                answers += [error] * len(some)
        return answers

    def _lease_at_once(
        self, name: str, asked: Sequence[scheduler_pb2.LeaseTasksRequest]
    ) -> list[_Leased | SealpoolError]:
        had_run_out = 0

        def effect(session: Session, new: Sequence[int]) -> list[scheduler_pb2.LeaseTasksResponse]:
            nonlocal had_run_out
            some, had_run_out = self._lease_to_all(session, campaigns.get(session, name), [asked[at] for at in new])
            return some

        answers = self._once.run_all(asked, scheduler_pb2.LeaseTasksResponse, effect)
        # After the commit: a transaction that failed has leased nothing.
        if had_run_out:
            self._on_expired(name, had_run_out)
        pool = self._specs.pool_of(name)
        return [answer if isinstance(answer, SealpoolError) else (answer, pool) for answer in answers]

    def _lease_to_all(
        self, session: Session, campaign: Campaign, asked: Sequence[scheduler_pb2.LeaseTasksRequest]
    ) -> tuple[list[scheduler_pb2.LeaseTasksResponse], int]:
        """Return the answers, and how many of their tasks somebody had let run out."""
        purposes = _leasable(session, campaign)
        spec = self._specs.of(campaign).spec
        now = self._store.clock.now()
        leased = leases.lease_all(
            session,
            campaign.id,
            [
                leases.Wanted(
                    annotator=request.annotator,
                    count=request.max_tasks,
                    until=now + timedelta(seconds=request.lease_seconds or lease_s_of(spec)),
                )
                for request in asked
            ],
            now=now,
            slots=1 if annotations_of(spec) == 1 else max_annotations_of(spec),
            purposes=purposes,
        )
        # Counting looks at every open task: once for all who are answered together.
        open_tasks = leases.count_waiting(session, campaign.id, now=now, purposes=purposes)
        answers = [
            scheduler_pb2.LeaseTasksResponse(tasks=map(messages.task_message, some), open_tasks=open_tasks)
            for some in leased
        ]
        return answers, sum(task.had_run_out for some in leased for task in some)

    def _add_payloads(self, campaign: str, pool: str, answer: scheduler_pb2.LeaseTasksResponse) -> None:
        try:
            payloads = self._payloads.run(pool, [ItemId(task.item_id) for task in answer.tasks])
        except SealpoolError as error:
            # The lease is committed: whatever ails the index server, an error would hide the tasks until it runs out.
            self._log.warning("tasks without payload", campaign=campaign, error=error.message)
            return
        for task in answer.tasks:
            payload = payloads.get(ItemId(task.item_id))
            if payload is not None:
                messages.add_payload(task, payload)

    def _look_up(self, pool: str, asked: Sequence[Sequence[ItemId]]) -> list[Mapping[ItemId, Payload] | SealpoolError]:
        """Ask the index server once for what many annotators will read; each gets all of it."""
        ids = list(dict.fromkeys(item for items in asked for item in items))
        found = self._index.get_items(pool, ids, vectors=False, payloads=True, allow_missing=True)
        payloads = dict(zip(found.ids, found.payloads or (), strict=True))
        return [payloads for _ in asked]

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
