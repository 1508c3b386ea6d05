"""How a round begins: on call, or because a rule asks for it."""

from sqlalchemy.orm import Session

from scheduler import messages
from scheduler.asking import asking
from scheduler.domain.labels import why_untrainable
from scheduler.domain.planning import Facts, plan_round, rule_fires
from scheduler.domain.spec import batch_of, oracle_of
from scheduler.domain.states import ENDED, FIRST_STATE, CampaignState, LabelPurpose, RoundKind, RoundState
from scheduler.oracles.registry import OracleRegistry
from scheduler.ports import Index
from scheduler.storage import campaigns, events, labels, rounds, tasks
from scheduler.storage.models import Campaign, Round
from scheduler.storage.store import Store
from sealpool.errors import FailedPrecondition, NotFound, Unavailable
from sealpool.runtime.logs import Logger


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
            return self._index.get_pool(spec.pool).size

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
        running = rounds.unfinished(session, campaign.id)
        if running is not None:
            return running
        now = self._store.clock.now()
        facts = self._facts(session, campaign, pool_size)
        plan = plan_round(facts)
        trains = plan.kind in (RoundKind.MODEL, RoundKind.FINAL)
        round_ = Round(
            campaign_id=campaign.id,
            number=_next_number(session, campaign, plan.kind),
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
            class_counts=[],
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
                labels=facts.labelled,
                outstanding=facts.outstanding,
                budget=facts.spec.budget,
            )
        return round_

    def begin_by_timer(self, name: str) -> None:
        """Begin a round because an interval or a cron rule fired; do nothing where there is nothing to do.

        A round that failed is not repeated by a rule until another label has arrived, because it would fail again.
        """
        try:
            pool_size = self.pool_size(name)
            with self._store.writing() as session:
                campaign = campaigns.lock(session, name)
                last = rounds.last(session, campaign.id)
                failed = last is not None and last.state == RoundState.FAILED
                if not failed or self._arrived(session, campaign, ENDED):
                    self.begin(session, campaign, pool_size=pool_size)
        except (FailedPrecondition, NotFound):
            return

    def begin_if_due(self, name: str) -> bool:
        """Begin a round if the after_labels rule asks for one; return whether one was begun."""
        with self._store.reading() as session:
            if not self._is_due(session, campaigns.get(session, name)):
                return False
        try:
            pool_size = self.pool_size(name)
            with self._store.writing() as session:
                campaign = campaigns.lock(session, name)
                if not self._is_due(session, campaign):
                    return False
                self.begin(session, campaign, pool_size=pool_size)
        except (FailedPrecondition, NotFound):
            return False
        return True

    def _is_due(self, session: Session, campaign: Campaign) -> bool:
        spec = campaigns.spec_of(campaign)
        if not spec.rule.after_labels or campaign.state != CampaignState.ACTIVE:
            return False
        if rounds.unfinished(session, campaign.id) is not None:
            return False
        arrived = self._arrived(session, campaign, ENDED)
        return rule_fires(spec, arrived=arrived, labelled=campaign.labelled)

    def _facts(self, session: Session, campaign: Campaign, pool_size: int | None) -> Facts:
        spec = campaigns.spec_of(campaign)
        if spec.batch_share and pool_size is None:
            raise Unavailable("the round before has just ended; try again")
        return Facts(
            spec=spec,
            batch=batch_of(spec, pool_size=pool_size or 0),
            labelled=campaign.labelled,
            outstanding=len(tasks.outstanding(session, campaign.id)),
            # A failed round's labels are taken up by the next one.
            arrived=self._arrived(session, campaign, frozenset({RoundState.FINISHED})),
            seeded=rounds.is_seeded(session, campaign.id),
            why_untrainable=lambda: why_untrainable(spec, _examples(session, campaign)),
            oracle_is_automatic=self._oracles[oracle_of(spec)] is not None,
        )

    def _arrived(self, session: Session, campaign: Campaign, states: frozenset[RoundState]) -> int:
        return labels.arrived_since(session, campaign.id, rounds.last_snapshot(session, campaign.id, states=states))


def _examples(session: Session, campaign: Campaign) -> list[tuple[int, ...]]:
    found = labels.effective(session, campaign.id, purpose=LabelPurpose.TRAINING, until=campaign.last_sequence)
    return list(found.values())


def require_active(campaign: Campaign) -> None:
    """Raise FailedPrecondition unless the campaign is active."""
    reasons = {
        CampaignState.PAUSED: "is paused: resume it first",
        CampaignState.COMPLETED: "is completed: its budget is spent, or its pool has nothing left to label",
        CampaignState.ARCHIVED: "is archived",
    }
    if campaign.state != CampaignState.ACTIVE:
        reason = reasons[CampaignState(campaign.state)]
        raise FailedPrecondition(f"campaign {campaign.name!r} {reason}", field="campaign")


def _next_number(session: Session, campaign: Campaign, kind: RoundKind) -> int:
    # Round 0 is the one without a model: where the caller brings the first labels, rounds count from 1.
    last = rounds.last(session, campaign.id)
    if last is not None:
        return last.number + 1
    return 0 if kind == RoundKind.SEED else 1
