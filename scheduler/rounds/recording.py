"""The round at hand, and the transaction that ends one of its phases."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from scheduler import messages
from scheduler.domain.labels import why_untrainable
from scheduler.domain.states import CampaignState, LabelPurpose, RoundKind, RoundState, check_transition
from scheduler.labelled_set import training_set
from scheduler.storage import campaigns, events, leadership, rounds, stale_tasks, tasks
from scheduler.storage.models import Campaign, Round
from scheduler.storage.store import Store
from sealpool.errors import FailedPrecondition
from sealpool.v1 import scheduler_pb2

ARCHIVED = "the campaign was archived"


class Overtaken(Exception):
    """Another process has taken the round on; what was done here is left aside."""


class Demoted(Overtaken):
    """Another scheduler leads, and takes rounds on: this one lets go of them at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundJob:
    """A round as it stood when its current phase began, in the epoch of whoever led."""

    epoch: int
    campaign: str
    campaign_id: int
    spec: scheduler_pb2.CampaignSpec
    held_out_loaded: bool
    is_archived: bool
    number: int
    kind: RoundKind
    state: RoundState
    snapshot: int
    batch: int


def unfinished_job(store: Store, name: str, *, epoch: int) -> RoundJob | None:
    """Return the campaign's round that has not ended, if there is one, to be run in `epoch`."""
    with store.reading() as session:
        campaign = campaigns.get(session, name)
        row = rounds.unfinished(session, campaign.id)
        if row is None:
            return None
        return RoundJob(
            epoch=epoch,
            campaign=name,
            campaign_id=campaign.id,
            spec=_spec_of(row, campaign),
            held_out_loaded=campaign.held_out_loaded,
            is_archived=campaign.state == CampaignState.ARCHIVED,
            number=row.number,
            kind=RoundKind(row.kind),
            state=RoundState(row.state),
            snapshot=row.snapshot,
            batch=row.batch,
        )


def _spec_of(row: Round, campaign: Campaign) -> scheduler_pb2.CampaignSpec:
    """Return the spec that the round began with, and the budget as it is now: no label may go beyond that."""
    now = campaigns.spec_of(campaign)
    if row.spec is None:
        return now
    begun = scheduler_pb2.CampaignSpec.FromString(row.spec)
    begun.budget = now.budget
    return begun


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """An open transaction in which a phase writes down what it found."""

    session: Session
    campaign: Campaign
    round: Round
    now: datetime

    def add_seconds(self, seconds: scheduler_pb2.PhaseSeconds) -> None:
        """Set those phases' seconds that `seconds` has."""
        total = scheduler_pb2.PhaseSeconds.FromString(self.round.seconds)
        total.MergeFrom(seconds)
        self.round.seconds = total.SerializeToString()

    def move_to(self, state: RoundState) -> None:
        """Move the round to its next state and tell watchers."""
        check_transition(RoundState(self.round.state), state)
        self.round.state = state
        self.round.error = ""
        events.add(self.session, self.campaign, messages.round_changed(self.round, now=self.now))
        if state is RoundState.LABELLING:
            open_rounds = campaigns.spec_of(self.campaign).rule.open_rounds
            stale_tasks.withdraw(self.session, self.campaign.id, open_rounds=open_rounds, now=self.now)

    def finish(self, *, is_last: bool, reason: str = "") -> None:
        """End the round; the campaign too, if this was its last.

        Parameters
        ----------
        reason
            Why it was; "" for what follows from the kind of round.
        """
        self._end()
        self.move_to(RoundState.FINISHED)
        hopeless = self._why_no_model_can_follow()
        if not is_last and not hopeless:
            return
        if self.campaign.state != CampaignState.ARCHIVED:
            tasks.withdraw(self.session, self.campaign.id, purpose=LabelPurpose.TRAINING)
            budget = campaigns.spec_of(self.campaign).budget
            spent = f"its budget is spent: {budget:,} labels"
            final = spent if self.round.kind == RoundKind.FINAL else "its pool has nothing left to label"
            because = f"{spent}, which cannot train a model: {hopeless}" if hopeless else reason or final
            self._change_campaign(CampaignState.COMPLETED, because)

    def pause(self, reason: str) -> None:
        """Pause the campaign although nobody asked for it; nothing happens unless it is active."""
        if self.campaign.state == CampaignState.ACTIVE:
            self._change_campaign(CampaignState.PAUSED, reason)

    def fail(self, error: str) -> None:
        """End the round with an error that waiting does not mend."""
        self._end()
        check_transition(RoundState(self.round.state), RoundState.FAILED)
        self.round.state = RoundState.FAILED
        self.round.error = error
        events.add(self.session, self.campaign, messages.round_changed(self.round, now=self.now))

    def _change_campaign(self, state: CampaignState, reason: str) -> None:
        self.campaign.state = state
        self.campaign.state_reason = reason
        events.add(self.session, self.campaign, messages.state_changed(self.campaign, now=self.now))

    def _why_no_model_can_follow(self) -> str:
        """Return why a round that `plan_round` began without a model or a batch has spent all in vain; "" otherwise."""
        spec = campaigns.spec_of(self.campaign)
        spent = self.campaign.labelled + self.campaign.evaluation_labelled
        if self.round.kind != RoundKind.WITHOUT_MODEL or self.round.batch or spent < spec.budget:
            return ""
        found = training_set(self.session, self.campaign.id, spec, until=self.campaign.last_sequence)
        return why_untrainable(spec, found.values())

    def _end(self) -> None:
        self.round.finished_at = self.now
        elapsed_s = (self.now - self.round.started_at).total_seconds()
        self.add_seconds(scheduler_pb2.PhaseSeconds(total=max(elapsed_s, 0.0)))


@contextmanager
def recording(store: Store, job: RoundJob) -> Iterator[Recording]:
    """Begin the transaction that ends the phase of `job`; it commits at the end of the block.

    Raises
    ------
    Overtaken
        The round is no longer in the state in which the phase began.
    Demoted
        Another scheduler has led since the phase began.
    """
    with store.writing() as session:
        campaign = campaigns.lock(session, job.campaign)
        if not leadership.is_epoch(session, job.epoch):
            raise Demoted
        row = rounds.get(session, job.campaign_id, job.number)
        if row.state != job.state:
            raise Overtaken
        yield Recording(session=session, campaign=campaign, round=row, now=store.clock.now())


def check_not_archived(campaign: Campaign) -> None:
    """Raise FailedPrecondition if the campaign was archived while its round ran."""
    if campaign.state == CampaignState.ARCHIVED:
        raise FailedPrecondition(ARCHIVED)
