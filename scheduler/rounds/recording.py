"""The round at hand, and the transaction that ends one of its phases."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from scheduler import messages
from scheduler.domain.states import CampaignState, RoundKind, RoundState, check_transition
from scheduler.storage import campaigns, events, rounds, tasks
from scheduler.storage.models import Campaign, Round
from scheduler.storage.store import Store
from sealpool.errors import FailedPrecondition
from sealpool.v1 import scheduler_pb2


class Overtaken(Exception):
    """Another process has taken the round on; what was done here is left aside."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundJob:
    """A round as it stood when its current phase began."""

    campaign: str
    campaign_id: int
    spec: scheduler_pb2.CampaignSpec
    held_out_loaded: bool
    number: int
    kind: RoundKind
    state: RoundState
    snapshot: int
    batch: int


def unfinished_job(store: Store, name: str) -> RoundJob | None:
    """Return the campaign's round that has not ended, if there is one."""
    with store.reading() as session:
        campaign = campaigns.get(session, name)
        row = rounds.unfinished(session, campaign.id)
        if row is None:
            return None
        return RoundJob(
            campaign=name,
            campaign_id=campaign.id,
            spec=campaigns.spec_of(campaign),
            held_out_loaded=campaign.held_out_loaded,
            number=row.number,
            kind=RoundKind(row.kind),
            state=RoundState(row.state),
            snapshot=row.snapshot,
            batch=row.batch,
        )


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

    def finish(self, *, is_last: bool) -> None:
        """End the round; the campaign too, if this was its last."""
        self._end()
        self.move_to(RoundState.FINISHED)
        if is_last and self.campaign.state != CampaignState.ARCHIVED:
            self.campaign.state = CampaignState.COMPLETED
            tasks.withdraw(self.session, self.campaign.id)
            events.add(self.session, self.campaign, messages.state_changed(self.campaign, now=self.now))

    def fail(self, error: str) -> None:
        """End the round with an error that waiting does not mend."""
        self._end()
        check_transition(RoundState(self.round.state), RoundState.FAILED)
        self.round.state = RoundState.FAILED
        self.round.error = error
        events.add(self.session, self.campaign, messages.round_changed(self.round, now=self.now))

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
    """
    with store.writing() as session:
        campaign = campaigns.lock(session, job.campaign)
        row = rounds.get(session, job.campaign_id, job.number)
        if row.state != job.state:
            raise Overtaken
        yield Recording(session=session, campaign=campaign, round=row, now=store.clock.now())


def check_not_archived(campaign: Campaign) -> None:
    """Raise FailedPrecondition if the campaign was archived while its round ran."""
    if campaign.state == CampaignState.ARCHIVED:
        raise FailedPrecondition("the campaign was archived")
