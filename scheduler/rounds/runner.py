"""Runs a round from the state it is in to its end."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from scheduler.domain.states import FIRST_STATE
from scheduler.rounds.phases import Phases
from scheduler.rounds.recording import (
    ARCHIVED,
    Demoted,
    Overtaken,
    RoundJob,
    check_not_archived,
    recording,
    unfinished_job,
)
from scheduler.storage import campaigns
from scheduler.storage.store import Store
from sealpool.errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    ResourceExhausted,
    SealpoolError,
    Unavailable,
)
from sealpool.failpoint import reach
from sealpool.runtime.logs import Logger
from sealpool.runtime.tracing import NO_TRACING, Tracer

TRANSIENT = (Unavailable, DeadlineExceeded, ResourceExhausted, Cancelled)
"""What time may mend. Anything else that a service answers ends the round as failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How a phase is tried again after a transient error, until `retry_for_s` after the first one.

    Pauses double up to a short longest one: a try at a service that is away costs next to nothing, and a round should
    go on as soon as it is back.
    """

    retry_for_s: float
    first_pause_s: float = 0.1
    longest_pause_s: float = 1.0


class RoundRunner:
    """Runs the phases of rounds, one round of a campaign at a time: `RoundPool` sees to that.

    After a permanent error the round is FAILED. After a transient one that outlasts the retry policy it stays where it
    is, with the error written down, and goes on when it is resumed.

    Parameters
    ----------
    epoch
        Says in which epoch this scheduler leads; None while it follows.
    """

    def __init__(
        self,
        *,
        store: Store,
        phases: Phases,
        retry: RetryPolicy,
        epoch: Callable[[], int | None],
        log: Logger,
        tracer: Tracer = NO_TRACING,
    ) -> None:
        self._store = store
        self._epoch = epoch
        self._phases = phases
        self._retry = retry
        self._log = log
        self._tracer = tracer
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Stop all rounds before their next phase. They go on when the service starts again."""
        self._stopping.set()

    def resume(self, name: str, *, epoch: int) -> None:
        """Run the campaign's unfinished round to its end, in `epoch`; return at once if there is none.

        Raises
        ------
        Unavailable, DeadlineExceeded, ResourceExhausted, Cancelled
            The round waits to be resumed.
        Demoted
            This scheduler leads in this epoch no more; the round is another's.
        """
        job = unfinished_job(self._store, name, epoch=epoch)
        while job is not None:
            with self._tracer.span("round", campaign=name, round=job.number, kind=job.kind.value):
                job = self._run_round(job)

    def _run_round(self, job: RoundJob) -> RoundJob | None:
        """Run a round to its end; return the one that has begun since, if any."""
        number, following = job.number, job
        while following.number == number:
            self._advance(following)
            unfinished = unfinished_job(self._store, job.campaign, epoch=job.epoch)
            if unfinished is None:
                return None
            following = unfinished
        return following

    def _advance(self, job: RoundJob) -> None:
        if job.state == FIRST_STATE[job.kind]:
            reach("scheduler.round.after_start")
        try:
            self._run_phase(job)
        except Demoted:
            self._log.warning("round left to another scheduler", **_fields(job))
            raise
        except Overtaken:
            self._log.warning("round overtaken", campaign=job.campaign, round=job.number)
        except TRANSIENT as error:
            self._note(job, error)
            raise
        except SealpoolError as error:
            self._fail(job, error)

    def _run_phase(self, job: RoundJob) -> None:
        phase = self._phases.by_state[job.state]
        if job.is_archived:
            raise FailedPrecondition(ARCHIVED)
        pause_s = self._retry.first_pause_s
        failing_since: float | None = None
        while True:
            if self._stopping.is_set():
                raise Unavailable("the scheduler is stopping; the round goes on when it is back")
            if self._epoch() != job.epoch:
                raise Demoted
            try:
                if failing_since is not None:
                    self._check_again(job)
                self._attempt(job, phase)
            except TRANSIENT as error:
                now = time.monotonic()
                failing_since = now if failing_since is None else failing_since
                if now + pause_s > failing_since + self._retry.retry_for_s:
                    raise
                self._log.info("phase tried again", **_fields(job), error=error.message, pause_s=pause_s)
                self._stopping.wait(pause_s)
                pause_s = min(2 * pause_s, self._retry.longest_pause_s)
            else:
                return

    def _check_again(self, job: RoundJob) -> None:
        """Look whether the campaign was archived since the phase was first tried."""
        with self._store.reading() as session:
            check_not_archived(campaigns.get(session, job.campaign))

    def _attempt(self, job: RoundJob, phase: Callable[[RoundJob], None]) -> None:
        with self._tracer.span(f"round.{job.state.value}", campaign=job.campaign, round=job.number):
            phase(job)
            self._log.info("phase ended", **_fields(job))

    def _note(self, job: RoundJob, error: SealpoolError) -> None:
        self._log.warning("round waits", **_fields(job), error=error.message)
        if self._stopping.is_set():
            return
        try:
            with recording(self._store, job) as record:
                record.round.error = error.message
        except (Overtaken, Unavailable):
            return  # it was a note for people; the caller gets the error itself

    def _fail(self, job: RoundJob, error: SealpoolError) -> None:
        self._log.error("round failed", **_fields(job), error=error.message)
        try:
            with recording(self._store, job) as record:
                record.fail(f"{job.state.value}: {error.message}")
        except Overtaken:
            return


def _fields(job: RoundJob) -> dict[str, object]:
    return {"campaign": job.campaign, "round": job.number, "phase": job.state.value}
