"""Items that come one by one."""

from collections.abc import Callable, Iterator, Sequence

from sqlalchemy.orm import Session

from scheduler.ports import Index, Learner
from scheduler.rounds.beginning import require_active
from scheduler.service.once import Once
from scheduler.storage import campaigns, streams
from scheduler.storage.store import Store
from scheduler.streams.considering import Decider
from scheduler.streams.incoming import Incoming, Intake, open_intake, prepare
from scheduler.streams.state import StreamState
from scheduler.streams.thresholds import Rule
from sealpool.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, SealpoolError
from sealpool.failpoint import reach
from sealpool.v1 import scheduler_pb2, stream_pb2


class StreamService:
    """Decides of items and tells how streams stand.

    Parameters
    ----------
    index
        Asked while a caller waits, so with a short deadline.
    max_labels
        Items in one ConsiderBatch at most.
    """

    def __init__(self, *, store: Store, index: Index, learner: Learner, max_labels: int) -> None:
        self._store = store
        self._index = index
        self._learner = learner
        self._max_labels = max_labels
        self._once = Once(store)
        self._decider = Decider(store=store, index=index)

    def consider(
        self, groups: Iterator[Sequence[stream_pb2.ConsiderRequest]]
    ) -> Iterator[Sequence[stream_pb2.StreamDecision]]:
        """Decide of items as they arrive, a group in one transaction.

        Where an item is at fault, those before it in its group are decided of, and told, before its error is raised.
        """
        name, intake = "", None
        for group in groups:
            if intake is None:
                name = group[0].campaign
                if not name:
                    raise InvalidArgument("campaign", "is missing in the first message")
                intake = self._open(name)
            items, error = _until_fault(name, intake, group)
            if items:
                request = stream_pb2.ConsiderBatchRequest(campaign=name)
                yield self._decide(request, intake, items).decisions
            if error is not None:
                raise error

    def consider_batch(self, request: stream_pb2.ConsiderBatchRequest) -> stream_pb2.ConsiderBatchResponse:
        """Decide of several items: all of them or none."""
        earlier = self._once.answered(request, stream_pb2.ConsiderBatchResponse)
        if earlier is not None:
            return earlier
        if not request.items:
            raise InvalidArgument("items", "is empty")
        if len(request.items) > self._max_labels:
            raise ResourceExhausted(
                f"items: {len(request.items):,} in one call", limit=self._max_labels, setting="max_labels"
            )
        intake = self._open(request.campaign)
        items = [intake.check(f"items[{position}]", item) for position, item in enumerate(request.items)]
        return self._decide(request, intake, items)

    def get(self, name: str) -> stream_pb2.GetStreamResponse:
        """Tell how the stream of a campaign stands."""
        with self._store.reading() as session:
            campaign = campaigns.get(session, name)
            spec = _with_stream(campaigns.spec_of(campaign))
            return StreamState.of(streams.get(session, campaign.id), Rule.of(spec.stream)).message()

    def _open(self, name: str) -> Intake:
        with self._store.reading() as session:
            spec = _with_stream(campaigns.spec_of(campaigns.get(session, name)))
        return open_intake(self._index, spec)

    def _decide(
        self, request: stream_pb2.ConsiderBatchRequest, intake: Intake, items: Sequence[Incoming]
    ) -> stream_pb2.ConsiderBatchResponse:
        name = request.campaign
        fresh = self._fresh(name, items)
        prepared = prepare(self._index, self._learner, intake, fresh)

        def transaction(
            effect: Callable[[Session], stream_pb2.ConsiderBatchResponse],
        ) -> stream_pb2.ConsiderBatchResponse:
            return self._once.run(request, stream_pb2.ConsiderBatchResponse, effect)

        answer = self._decider.decide(name, [item.item_id for item in items], prepared, transaction=transaction)
        reach("scheduler.stream.after_commit")
        return answer

    def _fresh(self, name: str, items: Sequence[Incoming]) -> list[Incoming]:
        """Return the items that have no decision yet, each once: the first that came under its id."""
        with self._store.reading() as session:
            campaign = campaigns.get(session, name)
            known = streams.decisions(session, campaign.id, [item.item_id for item in items])
        first = {item.item_id: item for item in reversed(items) if item.item_id not in known}
        if first:
            require_active(campaign)
        return list(reversed(first.values()))


def _with_stream(spec: scheduler_pb2.CampaignSpec) -> scheduler_pb2.CampaignSpec:
    if not spec.HasField("stream"):
        raise FailedPrecondition(f"campaign {spec.name!r} takes no stream: its spec has no `stream`", field="campaign")
    return spec


def _until_fault(
    name: str, intake: Intake, group: Sequence[stream_pb2.ConsiderRequest]
) -> tuple[list[Incoming], SealpoolError | None]:
    items: list[Incoming] = []
    for request in group:
        if request.campaign not in ("", name):
            problem = f"{request.campaign[:140]!r} in a stream that is of {name!r}"
            return items, InvalidArgument("campaign", problem)
        try:
            items.append(intake.check("item", request.item))
        except InvalidArgument as error:
            return items, error
    return items, None
