"""What a pool consists of, and the locks that keep it in step."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index_server.candidates.book import CampaignBook
from index_server.concurrency import ReadWriteLock
from index_server.index import PoolIndex
from index_server.limits import Limits
from index_server.pool_graph import PoolGraph
from index_server.ports import Snapshot, Store
from index_server.records import Records
from index_server.spec import PoolSpec
from index_server.store.watermarks import Watermarks
from sealpool.errors import FailedPrecondition, Unavailable
from sealpool.runtime.logs import Logger


class PoolState:
    """One pool's store, index and candidate pools.

    Three locks, always taken in this order, with that of one campaign (in CampaignBook) before the last:

    1. `writer`: one change of items at a time.
    2. `gate`: candidate pools are read and grown by many; a change of items closes the gate from before it is written
       down until it is visible, so that a candidate pool is always derived from exactly one pool version.
    3. `view`: table, index and snapshot are read by many, and exchanged for the next version's under the write lock,
       which is held for no more than that. New items enter the engine before, masked, and some at a time. A writer who
       waits holds up new readers, so nobody holds this lock for longer than one search, and an index is replaced only
       once expansions, which are many searches, have ended.

    After an error that leaves open whether a change happened, `failure` says so, and the pool answers nothing until it
    is loaded anew.
    """

    def __init__(
        self,
        directory: Path,
        spec: PoolSpec,
        *,
        store: Store,
        index: PoolIndex,
        campaigns: CampaignBook,
        graph: PoolGraph | None,
        limits: Limits,
        watermarks: Watermarks,
        log: Logger,
    ) -> None:
        self.directory = directory
        self.spec = spec
        self.store = store
        self.snapshot: Snapshot = store.snapshot()
        self.index = index
        self.campaigns = campaigns
        self.graph = graph
        self.limits = limits
        self.watermarks = watermarks
        self.log = log
        self.failure = ""
        self.closing = threading.Event()
        self.writer = threading.Lock()
        self.gate = ReadWriteLock()
        self.view = ReadWriteLock()
        self._discard_due = False
        self._closed = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold table, index and snapshot as they are."""
        with self.view.read():
            self.check_open()
            yield

    def check_open(self) -> None:
        """Raise Unavailable once the pool is closed, FailedPrecondition once it failed."""
        if self._closed:
            raise Unavailable(f"pool {self.spec.name!r} is being closed", field="pool")
        if self.failure:
            raise FailedPrecondition(f"pool {self.spec.name!r} cannot be used: {self.failure}", field="pool")

    def while_open(self, parts: Iterator[Records]) -> Iterator[Records]:
        """Return `parts`, which are read from files that are gone once the pool is deleted."""
        try:
            yield from parts
        except (OSError, ValueError, RuntimeError):
            self.check_open()
            raise

    @contextmanager
    def failing_on(self, kind: type[BaseException], what: str) -> Iterator[None]:
        """Take the pool out of service if the block ends in such an error: memory and disk may not agree then."""
        try:
            yield
        except kind:
            self.failure = f"{what} failed in the middle; restart the index server to read the pool from disk again"
            self.log.exception("pool failed", pool=self.spec.name, what=what)
            raise

    @contextmanager
    def following_up(self) -> Iterator[None]:
        """Enclose what is written down for the pool's next version until the store has it.

        Where an earlier change failed there, what it left is forgotten first, before its version is used by another.
        """
        self.discard_failed()
        self._discard_due = True
        yield
        self._discard_due = False

    def discard_failed(self) -> None:
        """Forget what was written down for a change that failed."""
        if self._discard_due:
            self.campaigns.discard(pool_version=self.store.version)
            if self.graph is not None:
                self.graph.discard(self.store.version)
            self._discard_due = False

    def close(self) -> None:
        """Wait for what is under way, and let go of everything."""
        self.closing.set()
        with self.writer, self.gate.write(), self.view.write():
            self._closed = True
            self.campaigns.close()
            if self.graph is not None:
                self.graph.close()
            self.index.close()
            self.store.close()
