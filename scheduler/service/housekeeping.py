"""What is left over, and is tried again regularly: rounds that wait, candidate pools to drop, old request ids."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from scheduler.ports import Index
from scheduler.rounds.pool import RoundPool
from scheduler.storage import campaigns, requests, rounds
from scheduler.storage.store import Store
from sealpool.errors import NotFound, SealpoolError, Unavailable
from sealpool.runtime.logs import Logger


class Housekeeper:
    """Does what could not be done when it was due.

    Parameters
    ----------
    align_timers
        Brings the timers in line with the campaigns.
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
        align_timers: Callable[[], None],
        every_s: float,
        request_ids_kept_s: float,
        log: Logger,
    ) -> None:
        self._store = store
        self._index = index
        self._pool = pool
        self._align_timers = align_timers
        self._every_s = every_s
        self._request_ids_kept = timedelta(seconds=request_ids_kept_s)
        self._log = log
        self._stopping = threading.Event()
        self._rhythm = threading.Thread(target=self._beat, name="house", daemon=True)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="house")

    def start(self) -> None:
        """Keep house now, and every so often from now on."""
        self.keep()
        self._rhythm.start()

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
        """Resume rounds, look after rules, drop archived campaigns' candidate pools, forget old request ids."""
        try:
            self._resume_rounds()
            self._align_timers()
            with self._store.reading() as session:
                pending = campaigns.with_pending_drop(session)
            for name in pending:
                self.settle(name)
            with self._store.writing() as session:
                requests.forget_before(session, self._store.clock.now() - self._request_ids_kept)
        except Unavailable as error:
            self._log.warning("housekeeping put off", error=error.message)

    def settle(self, name: str) -> None:
        """Drop the candidate pool of an archived campaign, once no round of it is left that could grow it again.

        Where that cannot be done now, `keep` tries again.
        """
        try:
            if self._has_unfinished_round(name):
                self._pool.run(name)  # ends it as failed
                return
            self._drop(name)
        except SealpoolError as error:
            self._log.warning("candidate pool still to be dropped", campaign=name, error=error.message)

    def _beat(self) -> None:
        # By the monotonic clock, not by the timers': one that is set back would put rounds that wait to sleep.
        while not self._stopping.wait(self._every_s):
            fault = self._executor.submit(self.keep).exception()
            if fault is not None and not self._stopping.is_set():
                self._log.error("housekeeping met a fault", exc_info=fault)

    def _resume_rounds(self) -> None:
        with self._store.reading() as session:
            names = set(rounds.unfinished_campaigns(session))
            # A kill between a label's commit and its rule would leave the rule asleep until the next label.
            names.update(
                campaign.name
                for campaign in campaigns.all_by_name(session, include_archived=False)
                if campaigns.spec_of(campaign).rule.after_labels
            )
        for name in sorted(names):
            self._pool.run(name)

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
