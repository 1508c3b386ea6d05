"""How a round begins: on call, or because a rule asks for it."""

from collections.abc import Callable, Sequence
from functools import cache

from sqlalchemy.orm import Session

from scheduler import messages
from scheduler.asking import asking
from scheduler.domain.labels import why_untrainable
from scheduler.domain.planning import Facts, LastRound, is_idle, plan_round, rule_fires
from scheduler.domain.spec import batch_of, oracle_of
from scheduler.domain.states import (
    ENDED,
    FIRST_STATE,
    Audience,
    CampaignState,
    DrawKind,
    LabelPurpose,
    RoundKind,
    RoundState,
)
from scheduler.labelled_set import training_set
from scheduler.oracles.registry import OracleRegistry
from scheduler.pools import read_pool
from scheduler.ports import Index
from scheduler.resolving import resolve_all
from scheduler.storage import campaigns, drawn_items, events, labels, leadership, leases, rounds, tasks
from scheduler.storage.models import Campaign, Round
from scheduler.storage.store import Store
from sealpool.errors import FailedPrecondition, NotFound, Unavailable
from sealpool.runtime.logs import Logger
from sealpool.v1 import scheduler_pb2

FINISHED = frozenset({RoundState.FINISHED})


class RoundStarter:
    """Begins rounds. None of its methods runs one.

    Parameters
    ----------
    index
        Asked for the size of a pool, where a batch is a share of it; with a short deadline.
    """

    def __init__(self, *, store: Store, index: Index, oracles: OracleRegistry, log: Logger) -> None:
        self._store = store
        self._index = index
        self._oracles = oracles
        self._log = log

    def pool_size(self, name: str) -> int | None:
        """Return the size of the campaign's pool where a round that begins now asks for it, otherwise None.

        For `begin`, which runs in a transaction and so cannot ask another service.

        Raises
        ------
        NotFound
            No such campaign, or its pool is gone.
        Unavailable
            The index server is away.
        """
        with self._store.reading() as session:
            campaign = campaigns.get(session, name)
            spec = campaigns.spec_of(campaign)
            begins = campaign.state == CampaignState.ACTIVE and rounds.unfinished(session, campaign.id) is None
        if not spec.batch_share or not begins:
            return None
        with asking("the index server"):
            return read_pool(self._index, spec.pool).size

    def begin(self, session: Session, campaign: Campaign, *, pool_size: int | None) -> Round:
        """Begin the next round, or return the one that has not ended. The campaign must be locked.

        Parameters
        ----------
        pool_size
            What the method of that name said.

        Raises
        ------
        FailedPrecondition
            The campaign is not active, or `plan_round` says why there is nothing to do.
        Unavailable
            A round ran when the pool's size was asked for, and has ended since.
        """
        require_active(campaign)
        last = rounds.last(session, campaign.id)
        if last is not None and last.state not in ENDED:
            return last
        now = self._store.clock.now()
        spec = campaigns.spec_of(campaign)
        if spec.annotation.agreement == scheduler_pb2.AGREEMENT_DAWID_SKENE:
            resolve_all(session, campaign, now=now)
        examples = cache(lambda: _examples(session, campaign, spec))
        facts = self._facts(session, campaign, pool_size, examples)
        plan = plan_round(facts)
        trains = plan.kind in (RoundKind.MODEL, RoundKind.FINAL)
        round_ = Round(
            campaign_id=campaign.id,
            number=_next_number(last, plan.kind),
            kind=plan.kind,
            state=FIRST_STATE[plan.kind],
            snapshot=campaign.last_sequence,
            batch=plan.batch,
            labels=campaign.labelled if trains else 0,
            picks=0,
            seconds=b"",
            strategy="",
            strategy_reason="",
            notes=[],
            class_counts=_class_counts(spec, examples()),
            origin_counts=[],
            error="",
            pool_version=0,
            started_at=now,
        )
        session.add(round_)
        session.flush()
        events.add(session, campaign, messages.round_changed(round_, now=now))
        if plan.kind != RoundKind.FINAL and facts.why_cut:
            # The round goes on all the same: it trains on the newest labels. What cuts it shows in the campaign too,
            # as its open and leased tasks.
            self._log.warning(
                "batch cut by outstanding tasks",
                campaign=campaign.name,
                round=round_.number,
                batch=plan.batch,
                labels=facts.spent,
                outstanding=facts.outstanding,
                budget=facts.spec.budget,
                reserved=facts.reserved,
            )
        return round_

    def begin_by_timer(self, name: str, *, epoch: int) -> None:
        """Begin a round because an interval or a cron rule fired; do nothing where there is nothing to do.

        A round that failed is not repeated by a rule until another label has arrived, because it would fail again.

        Parameters
        ----------
        epoch
            In which this scheduler leads; once another does, nothing is begun.
        """
        try:
            pool_size = self.pool_size(name)
            with self._store.writing() as session:
                campaign = campaigns.lock(session, name)
                if leadership.is_epoch(session, epoch) and not self._would_fail_again(
                    session, campaign, rounds.last(session, campaign.id)
                ):
                    self.begin(session, campaign, pool_size=pool_size)
        except (FailedPrecondition, NotFound):
            return

    def begin_if_due(self, name: str, *, epoch: int) -> bool:
        """Begin a round if the after_labels rule asks for one; return whether one was begun. `epoch` as above."""
        with self._store.reading() as session:
            if not self._is_due(session, campaigns.get(session, name)):
                return False
        try:
            pool_size = self.pool_size(name)
            with self._store.writing() as session:
                campaign = campaigns.lock(session, name)
                if not leadership.is_epoch(session, epoch) or not self._is_due(session, campaign):
                    return False
                self.begin(session, campaign, pool_size=pool_size)
        except (FailedPrecondition, NotFound):
            return False
        return True

    def _is_due(self, session: Session, campaign: Campaign) -> bool:
        spec = campaigns.spec_of(campaign)
        if not spec.rule.after_labels or campaign.state != CampaignState.ACTIVE:
            return False
        last = rounds.last(session, campaign.id)
        if last is not None and last.state not in ENDED:
            return False
        if self._would_fail_again(session, campaign, last):
            return False
        if self._is_automatic(spec) and tasks.outstanding(session, campaign.id, audience=Audience.ORACLE):
            return True  # a stream asked for them, or an oracle that came to a limit of its own left them
        arrived = self._arrived(session, campaign, ENDED)
        spent = campaign.labelled + campaign.evaluation_labelled
        if arrived >= spec.rule.after_labels or last is None:
            return rule_fires(spec, arrived=arrived, spent=spent, idle=False, whole_batch=0)
        has_open = leases.has_open(session, campaign.id, purposes=(LabelPurpose.TRAINING,))
        return rule_fires(
            spec,
            arrived=arrived,
            spent=spent,
            idle=self._is_idle(session, campaign, spec, has_open=has_open),
            whole_batch=spec.seed_size if last.kind == RoundKind.SEED else spec.batch_size or last.batch,
        )

    def _is_automatic(self, spec: scheduler_pb2.CampaignSpec) -> bool:
        return self._oracles[oracle_of(spec)] is not None

    def _is_idle(
        self, session: Session, campaign: Campaign, spec: scheduler_pb2.CampaignSpec, *, has_open: bool
    ) -> bool:
        # Not the latest round: one that failed has done nothing that need not be done again.
        last = rounds.last_finished(session, campaign.id)
        known = None
        if last is not None:
            known = LastRound(kind=RoundKind(last.kind), picks=last.picks, has_selected=bool(last.strategy))
        return is_idle(spec, known, arrived=lambda: self._arrived(session, campaign, FINISHED), has_open=has_open)

    def _would_fail_again(self, session: Session, campaign: Campaign, last: Round | None) -> bool:
        failed = last is not None and last.state == RoundState.FAILED
        return failed and not self._arrived(session, campaign, ENDED)

    def _facts(
        self,
        session: Session,
        campaign: Campaign,
        pool_size: int | None,
        examples: Callable[[], Sequence[tuple[int, ...]]],
    ) -> Facts:
        spec = campaigns.spec_of(campaign)
        if spec.batch_share and pool_size is None:
            raise Unavailable("the round before has just ended; try again")
        outstanding = len(tasks.outstanding(session, campaign.id))
        return Facts(
            spec=spec,
            batch=batch_of(spec, pool_size=pool_size or 0),
            labelled=campaign.labelled,
            evaluation_labelled=campaign.evaluation_labelled,
            outstanding=outstanding,
            for_oracle=len(tasks.outstanding(session, campaign.id, audience=Audience.ORACLE)),
            reserved=reserved_for_evaluation(session, campaign, spec),
            idle=self._is_idle(session, campaign, spec, has_open=outstanding > 0),
            # A failed round's labels are taken up by the next one.
            arrived=self._arrived(session, campaign, FINISHED),
            seeded=not spec.seed_size or rounds.is_seeded(session, campaign.id),
            why_untrainable=lambda: why_untrainable(spec, examples()),
            oracle_is_automatic=self._is_automatic(spec),
        )

    def _arrived(self, session: Session, campaign: Campaign, states: frozenset[RoundState]) -> int:
        return labels.arrived_since(session, campaign.id, rounds.last_snapshot(session, campaign.id, states=states))


def reserved_for_evaluation(session: Session, campaign: Campaign, spec: scheduler_pb2.CampaignSpec) -> int:
    """Return how many labels of the budget evaluation still needs: training must not promise them to itself."""
    if spec.evaluation_pool:  # whose items cost none
        return 0
    to_draw = spec.evaluation.items
    if to_draw and drawn_items.is_drawn(session, campaign.id, DrawKind.EVALUATION):
        to_draw = 0
    return to_draw + len(drawn_items.evaluation_outstanding(session, campaign.id))


def _class_counts(spec: scheduler_pb2.CampaignSpec, labelled: Sequence[tuple[int, ...]]) -> list[int]:
    counts = [0] * len(spec.classes)
    for item in labelled:
        for index in item:
            counts[index] += 1
    return counts


def _examples(session: Session, campaign: Campaign, spec: scheduler_pb2.CampaignSpec) -> list[tuple[int, ...]]:
    return list(training_set(session, campaign.id, spec, until=campaign.last_sequence).values())


_WHY_COMPLETED = "its budget is spent, or its pool has nothing left to label"
"""Of campaigns that ended before their reason was kept."""


def require_active(campaign: Campaign) -> None:
    """Raise FailedPrecondition unless the campaign is active."""
    reasons = {
        CampaignState.PAUSED: "is paused: resume it first",
        CampaignState.COMPLETED: f"is completed: {campaign.state_reason or _WHY_COMPLETED}",
        CampaignState.ARCHIVED: "is archived",
    }
    if campaign.state != CampaignState.ACTIVE:
        reason = reasons[CampaignState(campaign.state)]
        raise FailedPrecondition(f"campaign {campaign.name!r} {reason}", field="campaign")


def _next_number(last: Round | None, kind: RoundKind) -> int:
    # Round 0 is the one without a model: where the caller brings the first labels, rounds count from 1.
    if last is not None:
        return last.number + 1
    return 0 if kind == RoundKind.SEED else 1
