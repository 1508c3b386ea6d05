"""Which of several schedulers on one database runs rounds, timers and housekeeping.

One leads, and all serve calls. A leader holds a lock that the database, or the system, frees when its holder dies;
the others try for it every second. Time plays no part beside that: leadership is as safe from clock steps as the
database's own sessions are, and pauses are taken by the monotonic clock.

A leader that lost the lock without noticing can do no harm: each taking of the lock begins an epoch in the database,
and whatever a round commits, it commits only while the epoch it began in still stands.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from scheduler.storage import leadership
from scheduler.storage.store import Store
from sealpool.errors import Unavailable
from sealpool.runtime.logs import Logger

EVERY_S = 1.0
STALE_AFTER_S = 5.0
"""After which a leader whose heartbeat hangs is none: below what it takes the database to let another lead."""
_SLICE_S = 0.1


class Lock(Protocol):
    """What at most one scheduler holds. Every method raises Unavailable where the lock's keeper is away.

    One thread takes, checks, hears and releases; any may tell.
    """

    def take(self) -> bool:
        """Try to become the holder, and return at once whether that came true."""
        ...

    def check(self) -> None:
        """Raise Unavailable unless the lock is still held."""
        ...

    def hear(self, timeout_s: float) -> Sequence[str]:
        """Return the names that followers told, as soon as there are any, and after `timeout_s` at most."""
        ...

    def tell(self, name: str) -> None:
        """Tell a name to the holder. It may be lost where the holder changes."""
        ...

    def release(self) -> None:
        """Give the lock up, if it is held, and all that was opened to try for it. Never raises."""
        ...


class Leader:
    """Leads where no other scheduler does.

    Parameters
    ----------
    lock
        What decides.
    holder
        How this process is called in the database and in logs.
    every_s
        Between two heartbeats of the leader, and two tries of a follower.
    """

    def __init__(self, *, store: Store, lock: Lock, holder: str, log: Logger, every_s: float = EVERY_S) -> None:
        self._store = store
        self._lock = lock
        self._holder = holder
        self._log = log
        self._every_s = every_s
        self._epoch: int | None = None
        self._holds = False
        self._heard_at = 0.0
        self._trouble = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leader", daemon=True)
        self._on_lead: Callable[[], None] = _nothing
        self._on_told: Callable[[str], None] = _ignore

    def epoch(self) -> int | None:
        """Return the epoch in which this scheduler leads; None while it follows. Any thread may ask."""
        epoch = self._epoch
        # A heartbeat that hangs tells nothing, and meanwhile another may have been let in.
        if epoch is None or time.monotonic() - self._heard_at > STALE_AFTER_S:
            return None
        return epoch

    def start(self, *, on_lead: Callable[[], None], on_told: Callable[[str], None]) -> None:
        """Try to lead now, and from now on whenever nobody does.

        Parameters
        ----------
        on_lead
            Called whenever this scheduler begins to lead. Like `on_told` it must return soon, since the heartbeat
            waits for it.
        on_told
            Called with the name of a campaign in which a follower began a round, took labels or changed a rule.
        """
        self._on_lead, self._on_told = on_lead, on_told
        self._try()
        self._thread.start()

    def tell(self, name: str) -> None:
        """Tell the leader to look after a campaign. What goes astray the leader finds by itself, a little later."""
        try:
            self._lock.tell(name)
        except Unavailable as error:
            self._log.warning("leader not told", campaign=name, error=error.message)

    def doubt(self, epoch: int) -> None:
        """Stop leading in `epoch`, because the database says that another has followed it; then try again."""
        if self._epoch == epoch:
            self._epoch = None

    def stop(self) -> None:
        """Stop leading; the next leader need not wait for this process to end."""
        self._epoch = None
        self._stopping.set()

    def close(self) -> None:
        """Stop, and wait until the lock is given up."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                if self._epoch is not None:
                    self._lead()
                    continue
                self._let_go()
                if not self._stopping.wait(self._every_s):
                    self._try()
        finally:  # after a fault of ours too: a lock that nobody gives up would let nobody lead
            self._epoch = None
            self._let_go()
            self._lock.release()

    def _let_go(self) -> None:
        if not self._holds:
            return
        self._holds = False
        self._lock.release()
        self._log.info("leadership given up", holder=self._holder)

    def _try(self) -> None:
        asked_at = time.monotonic()
        try:
            if not self._lock.take():
                self._trouble = ""
                return
            self._holds = True
            with self._store.writing() as session:
                epoch = leadership.begin_epoch(session, holder=self._holder, now=self._store.clock.now())
        except Unavailable as error:
            self._holds = False
            self._lock.release()
            if error.message != self._trouble:  # once, not every second
                self._log.warning("cannot try to lead", error=error.message)
            self._trouble = error.message
            return
        self._heard_at = asked_at
        self._epoch = epoch
        if self._stopping.is_set():
            self._epoch = None
            return
        self._log.info("leading", holder=self._holder, epoch=epoch)
        self._on_lead()

    def _lead(self) -> None:
        try:
            for name in self._lock.hear(_SLICE_S):
                self._on_told(name)
            asked_at = time.monotonic()
            if asked_at - self._heard_at >= self._every_s:
                self._lock.check()
                self._heard_at = asked_at
        except Unavailable as error:
            self._epoch = None
            self._log.warning("leadership lost", holder=self._holder, error=error.message)


def _nothing() -> None:
    return


def _ignore(_name: str) -> None:
    return
