"""What is left over, and is tried again regularly: rounds that wait, candidate pools to drop, old request ids."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from scheduler.domain.states import CampaignState
from scheduler.jobs import RuleTimers
from scheduler.ports import Index
from scheduler.rounds.pool import RoundPool
from scheduler.storage import campaigns, requests, rounds, stale_tasks, streams, tasks
from scheduler.storage.models import Campaign
from scheduler.storage.store import Store
from sealpool.errors import NotFound, SealpoolError, Unavailable
from sealpool.runtime.logs import Logger


class Housekeeper:
    """Does what could not be done when it was due.

    Parameters
    ----------
    leads
        Whether this scheduler leads; one that follows keeps no house.
    timers
        Brought in line with the campaigns.
    every_s
        How often `keep` runs once started.
    request_ids_kept_s
        After which time request ids are forgotten.
    """

    def __init__(
        self,
        *,
        store: Store,
        index: Index,
        pool: RoundPool,
        leads: Callable[[], bool],
        timers: RuleTimers,
        every_s: float,
        request_ids_kept_s: float,
        log: Logger,
    ) -> None:
        self._store = store
        self._index = index
        self._pool = pool
        self._leads = leads
        self._timers = timers
        self._every_s = every_s
        self._request_ids_kept = timedelta(seconds=request_ids_kept_s)
        self._log = log
        self._stopping = threading.Event()
        self._rhythm = threading.Thread(target=self._beat, name="house", daemon=True)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="house")

    def start(self) -> None:
        """Keep house now, and every so often from now on, while this scheduler leads."""
        self._rhythm.start()
        if self._leads():
            self._executor.submit(self.keep).result()

    def keep_soon(self) -> None:
        """Keep house as soon as what is being done has ended; return at once."""
        self._submit(self.keep)

    def look_after_soon(self, name: str) -> None:
        """Set a campaign's timers, and drop its candidate pool if it is archived; return at once."""
        self._submit(lambda: self._look_after(name))

    def stop(self) -> None:
        """Keep house no more; what is being done is not waited for."""
        self._stopping.set()

    def close(self) -> None:
        """Stop, and wait for the thread to end."""
        self.stop()
        if self._rhythm.ident is not None:
            self._rhythm.join()
        self._executor.shutdown()

    def keep(self) -> None:
        """Resume rounds, look after rules, take back stale tasks, drop candidate pools, forget old request ids.

        Request ids go by the machine's clock: one that jumps ahead by more than they are kept forgets them early.
        """
        if not self._leads():
            self._timers.pause()
            return
        try:
            self._resume_rounds()
            self._timers.align()
            self._withdraw_stale()
            with self._store.reading() as session:
                pending = campaigns.with_pending_drop(session)
            for name in pending:
                self.settle(name)
            with self._store.writing() as session:
                then = self._store.clock.now() - self._request_ids_kept
                requests.forget_before(session, then)
                streams.forget_before(session, then)
        except Unavailable as error:
            self._log.warning("housekeeping put off", error=error.message)

    def settle(self, name: str) -> None:
        """Drop the candidate pool of an archived campaign, once no round of it is left that could grow it again.

        Where that cannot be done now, `keep` tries again.
        """
        try:
            if self._has_unfinished_round(name):
                self._pool.nudge(name)  # ends it as failed
                return
            self._drop(name)
        except SealpoolError as error:
            self._log.warning("candidate pool still to be dropped", campaign=name, error=error.message)

    def _beat(self) -> None:
        # By the monotonic clock, not by the timers': one that is set back would put rounds that wait to sleep.
        while not self._stopping.wait(self._every_s):
            done = self._submit(self.keep)
            if done is not None:
                wait((done,))

    def _submit(self, work: Callable[[], None]) -> Future[None] | None:
        try:
            done = self._executor.submit(work)
        except RuntimeError:  # it is closed
            return None
        done.add_done_callback(self._report)
        return done

    def _report(self, done: Future[None]) -> None:
        fault = None if done.cancelled() else done.exception()
        if fault is not None and not self._stopping.is_set():
            self._log.error("housekeeping met a fault", exc_info=fault)

    def _resume_rounds(self) -> None:
        with self._store.reading() as session:
            names = set(rounds.unfinished_campaigns(session))
            names.update(self._perhaps_due(session))
        for name in sorted(names):
            self._pool.run(name)

    def _perhaps_due(self, session: Session) -> Iterator[str]:
        """Yield campaigns whose after_labels rule may ask for a round, found in a few queries for all of them.

        A kill between a label's commit and its rule would leave the rule asleep until the next label; and nobody tells
        the rule when tasks are withdrawn, or a stream asks the campaign's own oracle.
        """
        rows = [row for row in campaigns.all_by_name(session, include_archived=False) if _has_label_rule(row)]
        ids = [row.id for row in rows]
        last = rounds.last_of_each(session, ids)
        counts = tasks.counts(session, ids, now=self._store.clock.now())
        for_oracle = campaigns.with_work_for_oracle(session, ids)
        for row in rows:
            snapshot = last[row.id].snapshot if row.id in last else 0
            waits = counts[row.id].open + counts[row.id].leased > counts[row.id].review
            if row.last_sequence > snapshot or not waits or row.id in for_oracle:
                yield row.name

    def _withdraw_stale(self) -> None:
        with self._store.reading() as session:
            now = self._store.clock.now()
            rows = campaigns.all_by_name(session, include_archived=False)
            names = [row.name for row in rows if _has_stale_tasks(session, row, now=now)]
        for name in names:
            with self._store.writing() as session:
                campaign = campaigns.lock(session, name)
                now = self._store.clock.now()
                if _has_stale_tasks(session, campaign, now=now):
                    open_rounds = campaigns.spec_of(campaign).rule.open_rounds
                    stale_tasks.withdraw(session, campaign.id, open_rounds=open_rounds, now=now)

    def _look_after(self, name: str) -> None:
        try:
            self._timers.set_for(name)
            self.settle(name)
        except (NotFound, Unavailable) as error:
            self._log.warning("housekeeping put off", campaign=name, error=error.message)

    def _has_unfinished_round(self, name: str) -> bool:
        with self._store.reading() as session:
            return rounds.unfinished(session, campaigns.get(session, name).id) is not None

    def _drop(self, name: str) -> None:
        with self._store.reading() as session:
            campaign = campaigns.get(session, name)
        if not campaign.drop_pending:
            return
        try:
            self._index.drop_candidates(campaigns.spec_of(campaign).pool, name)
        except NotFound:
            self._log.info("pool is gone, and its candidate pools with it", campaign=name)
        with self._store.writing() as session:
            campaigns.lock(session, name).drop_pending = False


def _has_label_rule(campaign: Campaign) -> bool:
    return campaign.state == CampaignState.ACTIVE and campaigns.spec_of(campaign).rule.after_labels > 0


def _has_stale_tasks(session: Session, campaign: Campaign, *, now: datetime) -> bool:
    # Not while a round runs: what it picks depends on what was withdrawn, and after a kill it picks again.
    open_rounds = campaigns.spec_of(campaign).rule.open_rounds
    return (
        open_rounds > 0
        and rounds.unfinished(session, campaign.id) is None
        and stale_tasks.are_left(session, campaign.id, open_rounds=open_rounds, now=now)
    )
