"""Rounds on call, and the list of them."""

from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress

from sqlalchemy.orm import Session

from scheduler import messages
from scheduler.asking import asking
from scheduler.domain.states import ENDED, RoundState
from scheduler.rounds.beginning import RoundStarter
from scheduler.rounds.pool import RoundPool
from scheduler.rounds.recording import Demoted
from scheduler.service.once import Once
from scheduler.storage import campaigns, rounds
from scheduler.storage.store import Store
from sealpool.errors import Cancelled, FailedPrecondition, Unavailable
from sealpool.v1 import scheduler_pb2

POLL_S = 0.25
"""How often a follower looks whether the leader has finished a round."""


class RoundService:
    """Runs rounds on call."""

    def __init__(self, *, store: Store, starter: RoundStarter, pool: RoundPool) -> None:
        self._store = store
        self._starter = starter
        self._pool = pool
        self._once = Once(store)

    def run(self, request: scheduler_pb2.RunRoundRequest, *, left: Future[None]) -> scheduler_pb2.RunRoundResponse:
        """Begin a round, or join the one that runs, and wait for its end.

        Parameters
        ----------
        left
            Done when the caller leaves. The round goes on.
        """
        # What is kept for the request id is which round it is; a repetition waits for that round in its turn.
        begun = self._once.answered(request, scheduler_pb2.RunRoundResponse) or self._begin(request)
        number = begun.round.number
        is_told = False
        while True:
            answer = self._ended(request.campaign, number)
            if answer is not None:
                return answer
            running = self._pool.run(request.campaign)
            if running is None and not is_told:
                self._forget_error(request.campaign, number)
                self._pool.nudge(request.campaign)
                is_told = True
            self._wait(running, left)
            if running is None:
                self._check_error(request.campaign, number)
                continue
            with asking("a service that the round needs"), suppress(Demoted):
                running.result()

    def _wait(self, running: Future[None] | None, left: Future[None]) -> None:
        """Wait until `running` is done; for a while where another scheduler runs the round."""
        if running is None:
            wait((left, self._pool.stopping), timeout=POLL_S, return_when=FIRST_COMPLETED)
        else:
            wait((running, left, self._pool.stopping), return_when=FIRST_COMPLETED)
        if left.done():
            raise Cancelled("the caller left; the round goes on")
        if self._pool.stopping.done() and (running is None or not running.done()):
            raise Unavailable("the scheduler is stopping; the round goes on when it is back")

    def _forget_error(self, name: str, number: int) -> None:
        # What stands there is of an earlier try. The leader, who is about to try again, writes down what it meets.
        with self._store.writing() as session:
            campaign = campaigns.lock(session, name)
            row = rounds.get(session, campaign.id, number)
            if row.state not in ENDED:
                row.error = ""

    def _check_error(self, name: str, number: int) -> None:
        with self._store.reading() as session:
            row = rounds.get(session, campaigns.get(session, name).id, number)
        if row.error and row.state not in ENDED:
            raise Unavailable(f"a service that the round needs: {row.error}")

    def _begin(self, request: scheduler_pb2.RunRoundRequest) -> scheduler_pb2.RunRoundResponse:
        pool_size = self._starter.pool_size(request.campaign)

        def effect(session: Session) -> scheduler_pb2.RunRoundResponse:
            campaign = campaigns.lock(session, request.campaign)
            begun = self._starter.begin(session, campaign, pool_size=pool_size)
            return scheduler_pb2.RunRoundResponse(round=scheduler_pb2.Round(number=begun.number))

        return self._once.run(request, scheduler_pb2.RunRoundResponse, effect)

    def list(self, campaign: str) -> list[scheduler_pb2.Round]:
        """Show all rounds, first to last."""
        with self._store.reading() as session:
            rows = rounds.every(session, campaigns.get(session, campaign).id)
            return [messages.round_message(row) for row in rows]

    def _ended(self, name: str, number: int) -> scheduler_pb2.RunRoundResponse | None:
        with self._store.reading() as session:
            campaign = campaigns.get(session, name)
            row = rounds.get(session, campaign.id, number)
        if row.state not in ENDED:
            return None
        if row.state == RoundState.FAILED:
            raise FailedPrecondition(f"round {number} failed while {row.error}")
        return scheduler_pb2.RunRoundResponse(
            round=messages.round_message(row), campaign_state=messages.campaign_state(campaign.state)
        )
