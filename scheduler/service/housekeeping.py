"""What is left over, and is tried again regularly: rounds that wait, candidate pools to drop, old request ids."""

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
    request_ids_kept_s
        After which time request ids are forgotten.
    """

    def __init__(self, *, store: Store, index: Index, pool: RoundPool, request_ids_kept_s: float, log: Logger) -> None:
        self._store = store
        self._index = index
        self._pool = pool
        self._request_ids_kept = timedelta(seconds=request_ids_kept_s)
        self._log = log

    def keep(self) -> None:
        """Resume rounds, look after label rules, drop archived campaigns' candidate pools, forget old request ids."""
        try:
            self._resume_rounds()
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
