"""Deciding of items: one transaction a group, and the items that are asked about in the pool before it."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy.orm import Session

from scheduler.domain.spec import DEFAULT_ORACLE, oracle_of
from scheduler.domain.states import Audience, LabelPurpose
from scheduler.ports import Index
from scheduler.rounds.beginning import require_active
from scheduler.storage import campaigns, labels, streams, tasks
from scheduler.storage.models import Campaign
from scheduler.storage.store import Store
from scheduler.storage.tasks import Pick
from scheduler.streams.budget import left_of_budget, round_of_tasks
from scheduler.streams.incoming import Prepared, upsert
from scheduler.streams.judging import predicted, uncertainty
from scheduler.streams.state import StreamState
from scheduler.streams.thresholds import Rule, draw_of
from sealpool.errors import Unavailable
from sealpool.failpoint import reach
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, scheduler_pb2, stream_pb2

ATTEMPTS = 20
_STRIPES = 64

Made: TypeAlias = dict[ItemId, stream_pb2.StreamDecision]
Transaction: TypeAlias = Callable[
    [Callable[[Session], stream_pb2.ConsiderBatchResponse]], stream_pb2.ConsiderBatchResponse
]


class _Moved(Exception):
    """The stream or the budget has changed since the group was decided."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Draft:
    """A group decided, and what that rests on."""

    made: Made  # of the items that had no decision
    state: StreamState  # after them
    seen_before: int
    asked: Sequence[Prepared]


class Decider:
    """Decides of groups of items. Groups of one campaign are decided one after the other.

    The index server is not called within a transaction: on SQLite that would hold up every label meanwhile. So a group
    is decided from what a read says, its items are put into the pool, and the transaction, under the campaign's lock,
    stands only if nothing that the decisions rest on has changed. In one process a lock of its own sees to that;
    another scheduler on the same database, or labels that used up the budget, make the group be decided again. An item
    that was put into the pool and then not asked about stays there, unlabelled.
    """

    def __init__(self, *, store: Store, index: Index) -> None:
        self._store = store
        self._index = index
        self._locks = [threading.Lock() for _ in range(_STRIPES)]

    def decide(
        self, name: str, ids: Sequence[ItemId], prepared: Mapping[ItemId, Prepared], *, transaction: Transaction
    ) -> stream_pb2.ConsiderBatchResponse:
        """Decide of items in their order.

        Parameters
        ----------
        prepared
            Of every item that may have no decision yet.
        transaction
            Runs an effect in a transaction of its own, and returns what it answers.

        Raises
        ------
        FailedPrecondition
            An item has no decision yet and the campaign is not active.
        """
        with self._locks[hash(name) % _STRIPES]:
            for _ in range(ATTEMPTS):
                draft = self._draft(name, ids, prepared)
                self._fill_pool(name, prepared, draft)
                reach("scheduler.stream.before_commit")
                try:
                    return transaction(lambda session, draft=draft: self._commit(session, name, ids, draft))  # type: ignore[misc]
                except _Moved:
                    continue
        raise Unavailable(f"the stream of campaign {name!r} changes too fast to decide of more items; try again")

    def _draft(self, name: str, ids: Sequence[ItemId], prepared: Mapping[ItemId, Prepared]) -> _Draft:
        with self._store.reading() as session:
            campaign = campaigns.get(session, name)
            spec = campaigns.spec_of(campaign)
            known = streams.decisions(session, campaign.id, ids)
            fresh = [item for item in dict.fromkeys(ids) if item not in known]
            if fresh:
                require_active(campaign)
            if not prepared.keys() >= set(fresh):  # what was decided of one of them was forgotten a moment ago
                raise Unavailable("an item's decision has just been forgotten; try again")
            rule = Rule.of(spec.stream)
            state = StreamState.of(streams.get(session, campaign.id), rule)
            left = left_of_budget(session, campaign)
            taken = streams.taken(session, campaign.id, fresh)
        seen_before = state.seen
        made: Made = {}
        for item in fresh:
            # Nobody is asked twice about an item, or about one that is held out.
            room = 0 if item in taken else left
            made[item] = _decide(spec, rule, state, prepared[item], room)
            left -= made[item].asked
        asked = [prepared[item] for item in fresh if made[item].asked]
        return _Draft(made=made, state=state, seen_before=seen_before, asked=asked)

    def _fill_pool(self, name: str, prepared: Mapping[ItemId, Prepared], draft: _Draft) -> None:
        if not draft.made:
            return
        with self._store.reading() as session:
            spec = campaigns.spec_of(campaigns.get(session, name))
        joining = [prepared[item] for item in draft.made] if spec.stream.join_pool else draft.asked
        upsert(self._index, spec.pool, joining)

    def _commit(
        self, session: Session, name: str, ids: Sequence[ItemId], draft: _Draft
    ) -> stream_pb2.ConsiderBatchResponse:
        campaign = campaigns.lock(session, name)
        if draft.made:
            require_active(campaign)
            self._check_unmoved(session, campaign, draft)
            self._write(session, campaign, draft)
        known = [item for item in ids if item not in draft.made]
        found = streams.decisions(session, campaign.id, known)
        if len(found) < len(set(known)):
            raise _Moved
        answer = stream_pb2.ConsiderBatchResponse()
        told: set[ItemId] = set()
        for item in ids:
            decision = answer.decisions.add()
            decision.CopyFrom(draft.made[item] if item in draft.made else found[item])
            decision.repeated_id = item in told or item not in draft.made
            told.add(item)
        return answer

    @staticmethod
    def _check_unmoved(session: Session, campaign: Campaign, draft: _Draft) -> None:
        stream = streams.get(session, campaign.id)
        moved = (stream.seen if stream is not None else 0) != draft.seen_before
        if moved or len(draft.asked) > left_of_budget(session, campaign):
            raise _Moved
        if streams.taken(session, campaign.id, [item.item_id for item in draft.asked]):
            raise _Moved

    def _write(self, session: Session, campaign: Campaign, draft: _Draft) -> None:
        spec = campaigns.spec_of(campaign)
        picks = [
            Pick(
                item_id=item.item_id,
                score=draft.made[item.item_id].uncertainty,
                origin=common_pb2.PICK_ORIGIN_STREAM,
            )
            for item in draft.asked
        ]
        add_tasks(session, campaign, spec, picks)
        state = draft.state
        streams.save(session, campaign.id, seen=state.seen, asked=state.asked, state=state.stored())
        streams.remember(session, campaign.id, list(draft.made.values()), now=self._store.clock.now())
        session.flush()


def add_tasks(session: Session, campaign: Campaign, spec: scheduler_pb2.CampaignSpec, picks: Sequence[Pick]) -> None:
    """Ask about items that no round picked, most wanted first: tasks for training. The campaign must be locked."""
    ranked = sorted(picks, key=lambda pick: -pick.score)
    items = [pick.item_id for pick in ranked]
    tasks.add(
        session,
        campaign.id,
        round_of_tasks(session, campaign),
        ranked,
        labelled=labels.known_items(session, campaign.id, items, purpose=LabelPurpose.TRAINING),
        purpose=LabelPurpose.TRAINING,
        audience=Audience.PEOPLE if oracle_of(spec) == DEFAULT_ORACLE else Audience.ORACLE,
        annotations=spec.annotation.annotations or 1,
    )


def _decide(
    spec: scheduler_pb2.CampaignSpec, rule: Rule, state: StreamState, item: Prepared, left: int
) -> stream_pb2.StreamDecision:
    doubt = uncertainty(spec.task, item.probabilities)
    threshold = state.standing.threshold
    decision = state.take(rule, uncertainty=doubt, draw=draw_of(spec.seed, item.item_id), left=left)
    return stream_pb2.StreamDecision(
        item_id=item.item_id,
        asked=decision.asked,
        at_random=decision.at_random,
        classes=[spec.classes[index] for index in predicted(spec.task, item.probabilities)],
        probabilities=[
            scheduler_pb2.ClassProbability(name=name, probability=probability)
            for name, probability in zip(spec.classes, item.probabilities.tolist(), strict=True)
        ],
        uncertainty=doubt,
        threshold=threshold,
        round=item.round,
    )
