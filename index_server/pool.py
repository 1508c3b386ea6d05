"""One pool: its store, its index and its candidate pools, changed together and read together."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index_server.answers import Changed, Expansion, IndexNeighbourhood, Neighbors, Reading, read_rows, take
from index_server.candidates.book import CampaignBook, CampaignSize, CampaignView
from index_server.candidates.journal import Journal
from index_server.concurrency import ReadWriteLock
from index_server.incoming import check_comparable, receive
from index_server.index import Arrivals, IndexSettings, PoolIndex
from index_server.limits import Limits
from index_server.ports import Addresses, OutcomeUnknown, Rows, Snapshot, Store, Upload
from index_server.records import FloatMatrix, Records
from index_server.spec import PoolSpec
from index_server.store.engine_state import read_engine_state, write_engine_state
from index_server.store.lance_store import LanceStore
from sealpool.errors import FailedPrecondition, SealpoolError, Unavailable
from sealpool.runtime.logs import Logger
from sealpool.types import ItemId, Vectors

_STAGED_ROWS: Final = 128
"""Items that enter the engine between two searches. `hnsw` takes about a millisecond for each."""


class Pool:
    """One pool.

    Three locks, always taken in this order, with that of one campaign (in CampaignBook) before the last:

    1. `_writer`: one change of items at a time.
    2. `_gate`: candidate pools are read and grown by many; a change of items closes the gate from before it is written
       down until it is visible, so that a candidate pool is always derived from exactly one pool version.
    3. `_view`: table, index and snapshot are read by many, and exchanged for the next version's under the write lock,
       which is held for no more than that. New items enter the engine before, masked, and some at a time. A writer who
       waits holds up new readers, so nobody holds this lock for longer than one search, and an index is replaced only
       once expansions, which are many searches, have ended.

    After an error that leaves open whether a change happened, `failure` says so, and the pool answers nothing until it
    is loaded anew.
    """

    def __init__(
        self,
        spec: PoolSpec,
        *,
        store: Store,
        index: PoolIndex,
        campaigns: CampaignBook,
        state_path: Path,
        limits: Limits,
        log: Logger,
    ) -> None:
        self.spec = spec
        self.failure = ""
        self._store = store
        self._snapshot: Snapshot = store.snapshot()
        self._index = index
        self._campaigns = campaigns
        self._state_path = state_path
        self._limits = limits
        self._log = log
        self._writer = threading.Lock()
        self._gate = ReadWriteLock()
        self._view = ReadWriteLock()
        self._discard_due = False
        self._closed = False

    @classmethod
    def load(cls, directory: Path, spec: PoolSpec, *, settings: IndexSettings, limits: Limits, log: Logger) -> "Pool":
        """Read a pool from disk.

        Raises
        ------
        SealpoolError, OSError, ValueError, RuntimeError
            It cannot be read.
        """
        store = LanceStore.open(directory)
        snapshot = store.snapshot()
        state_path = directory / "engine.state"
        state = read_engine_state(state_path)
        index = PoolIndex.load(
            spec,
            settings,
            state=state,
            addresses=snapshot.addresses(),
            items=snapshot.scan(vectors=True, payloads=False),
        )
        campaigns = CampaignBook(Journal(directory / "candidates.sqlite"), pool_version=store.version, limits=limits)
        pool = cls(spec, store=store, index=index, campaigns=campaigns, state_path=state_path, limits=limits, log=log)
        pool._maintain()
        return pool

    @classmethod
    def create(cls, directory: Path, spec: PoolSpec) -> None:
        """Put an empty pool's files into `directory`, synced."""
        LanceStore.create(directory, dimension=spec.dimension, vector_type=spec.vector_type)

    @property
    def version(self) -> int:
        """The present version."""
        return self._snapshot.version

    @property
    def size(self) -> int:
        """Items."""
        return len(self._index)

    @property
    def index(self) -> PoolIndex:
        """The index in use now."""
        return self._index

    def campaign_sizes(self) -> dict[str, CampaignSize]:
        """Return how large each campaign's candidate pool is."""
        return self._campaigns.sizes()

    def upsert(self, batches: Iterable[Records]) -> Changed:
        """Add items or replace them, all batches as one change. An error that `batches` raise undoes all of it.

        Raises
        ------
        InvalidArgument
            An id is repeated, or a vector has another dimension, is not finite, too long, or has no direction.
        ResourceExhausted
            Too many rows, or the disk is full.
        """
        upload = self._store.begin()
        try:
            ids, vectors = receive(self.spec, batches, upload, max_rows=self._limits.max_upsert_rows)
            if not ids:
                return Changed(version=self.version)
            upload.finish()
            return self._change(upload, ids, vectors, deleted=[])
        finally:
            upload.abort()

    def delete(self, ids: Sequence[ItemId]) -> Changed:
        """Delete items; those that the pool does not have are counted as missing."""
        return self._change(None, [], [], deleted=ids)

    def read(self, ids: Sequence[ItemId], *, vectors: bool, payloads: bool, allow_missing: bool) -> Reading:
        """Return the items of `ids` in that order, as they are now.

        Raises
        ------
        NotFound
            The pool lacks one, unless `allow_missing`.
        """
        with self._reading():
            table = self._index.table
            rows = table.find(ids) if allow_missing else table.lookup(ids)
            rows = rows[rows >= 0]
            snapshot, addresses = self._snapshot, table.addresses_at(rows)
            if not vectors and not payloads:
                return Reading(version=snapshot.version, parts=iter([Records(ids=table.ids_at(rows))]))
        size = read_rows(self.spec.dimension, payloads=payloads)
        parts = take(snapshot, addresses, size, vectors=vectors, payloads=payloads)
        return Reading(version=snapshot.version, parts=self._while_open(parts))

    def scan(self, *, vectors: bool, payloads: bool) -> Reading:
        """Return all items in the pool's order, as they are now."""
        with self._reading():
            snapshot = self._snapshot
        parts = snapshot.scan(vectors=vectors, payloads=payloads)
        return Reading(version=snapshot.version, parts=self._while_open(parts))

    def sample(self, count: int, *, seed: int, campaign: str, exclude: Sequence[ItemId]) -> tuple[int, list[ItemId]]:
        """Draw `count` items uniformly without replacement, and return the pool's version and their ids.

        Neither candidates and labelled items of `campaign` ("" for none) nor `exclude` are drawn. The draw depends on
        the items in the pool's order, so it is the same after a restart.
        """
        with self._gate.read():
            taken = self._campaigns.taken(campaign) if campaign else []
            with self._reading():
                table = self._index.table
                eligible = table.live_mask()
                eligible[self._known([*taken, *exclude])] = False
                choices = np.flatnonzero(eligible)
                generator = np.random.default_rng(seed)
                drawn = generator.choice(choices, min(count, len(choices)), replace=False)
                return self.version, table.ids_at(drawn)

    def search(self, vectors: Vectors, k: int, *, exclude: Sequence[ItemId]) -> Neighbors:
        """Return the k nearest items of each of `vectors` (q, d), none of `exclude` among them."""
        check_comparable(self.spec, vectors, field="vectors")
        with self._reading():
            rows, scores = self._index.search(vectors, k, excluded=self._known(exclude))
            return self._neighbors(rows, scores)

    def search_ids(self, ids: Sequence[ItemId], k: int, *, exclude: Sequence[ItemId]) -> Neighbors:
        """Return the k nearest items of each item, itself and `exclude` left out.

        Raises
        ------
        NotFound
            The pool lacks one of `ids`.
        """
        with self._reading():
            own = self._index.table.lookup(ids)
            rows, scores = self._index.search_rows(own, k, excluded=self._known(exclude))
            return self._neighbors(rows, scores)

    def expand(
        self,
        campaign: str,
        *,
        policy: str,
        k: int,
        labelled: Sequence[ItemId],
        expand_from: Sequence[ItemId],
        held_version: int,
        vectors: bool,
        payloads: bool,
    ) -> Expansion:
        """Tell labelled items of a campaign and get what that changed: see CampaignBook.expand for the errors.

        Raises
        ------
        FailedPrecondition
            The pool is empty.
        """
        with self._gate.read():
            with self._reading():
                if not len(self._index):
                    raise FailedPrecondition(f"pool {self.spec.name!r} is empty: add items first", field="pool")
            # The gate alone keeps the items as they are. It may take long to search for many labels.
            neighbourhood = IndexNeighbourhood(self._index, self._reading)
            view = self._campaigns.expand(
                campaign,
                neighbourhood,
                policy=policy,
                k=k,
                labelled=labelled,
                expand_from=expand_from,
                held_version=held_version,
                pool_version=self.version,
            )
            with self._reading():
                direction = self._index.mean_direction(without=self._known(view.labelled))
                return self._expansion(
                    view, vectors=vectors, payloads=payloads, direction=direction, seconds=neighbourhood.seconds
                )

    def candidates(self, campaign: str, *, vectors: bool, payloads: bool) -> Expansion:
        """Return all candidates of a campaign; raise NotFound if it has no candidate pool."""
        with self._gate.read():
            self._check_open()
            view = self._campaigns.view(campaign)
            nowhere = np.zeros(self.spec.dimension, np.float32)
            with self._reading():
                return self._expansion(view, vectors=vectors, payloads=payloads, direction=nowhere, seconds=0.0)

    def drop_candidates(self, campaign: str) -> tuple[int, int]:
        """Forget a campaign's candidate pool; return the pool's version and how many candidates there were."""
        with self._gate.read():
            self._check_open()
            return self.version, self._campaigns.drop(campaign, pool_version=self.version)

    def close(self) -> None:
        """Wait for what is under way, and let go of everything."""
        with self._writer, self._gate.write(), self._view.write():
            self._closed = True
            self._campaigns.close()
            self._index.close()
            self._store.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Hold table, index and snapshot as they are."""
        with self._view.read():
            self._check_open()
            yield

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable(f"pool {self.spec.name!r} is being closed", field="pool")
        if self.failure:
            raise FailedPrecondition(f"pool {self.spec.name!r} cannot be used: {self.failure}", field="pool")

    def _while_open(self, parts: Iterator[Records]) -> Iterator[Records]:
        """Return `parts`, which are read from files that are gone once the pool is deleted."""
        try:
            yield from parts
        except (OSError, ValueError, RuntimeError):
            self._check_open()
            raise

    def _change(
        self,
        upload: Upload | None,
        ids: list[ItemId],
        vectors: list[FloatMatrix],
        *,
        deleted: Sequence[ItemId],
    ) -> Changed:
        """Commit new items and deletions and make them visible."""
        with self._writer:
            self._check_open()
            found = self._index.table.find(ids or deleted)
            gone = found[found >= 0]
            if not ids and not len(gone):
                return Changed(version=self.version, missing=len(deleted))
            try:
                arrivals = self._stage(vectors)
                with self._gate.write():
                    self._commit(upload, ids, arrivals, gone)
                version = self.version
            finally:
                self._maintain()  # also after a refusal, which leaves rows behind that nobody will ever see
        if ids:
            return Changed(version=version, inserted=len(ids) - len(gone), replaced=len(gone))
        return Changed(version=version, deleted=len(gone), missing=len(deleted) - len(gone))

    def _stage(self, vectors: Iterable[FloatMatrix]) -> Arrivals:
        """Let items into the engine, searches going on between a few and the next few."""
        arrivals = self._index.arrivals()
        for part in vectors:
            for start in range(0, len(part), _STAGED_ROWS):
                with self._view.write():
                    self._index.stage(arrivals, part[start : start + _STAGED_ROWS])
        return arrivals

    def _commit(self, upload: Upload | None, ids: list[ItemId], arrivals: Arrivals, gone: Rows) -> None:
        table = self._index.table
        affected = table.ids_at(gone)
        self._discard_failed()
        self._discard_due = True
        changes = self._campaigns.follow(
            pool_version=self._store.version + 1,
            replaced=affected if ids else (),
            deleted=() if ids else affected,
        )
        with self._failing_on(OutcomeUnknown, "a change of items"):
            self._store.commit(upload, table.addresses_at(gone))
        with self._failing_on(BaseException, "a change of items"):
            self._discard_due = False
            snapshot = self._store.snapshot()
            addresses = snapshot.addresses(last=len(ids))
            with self._view.write():
                self._index.remove(gone)
                self._index.publish(arrivals, ids, addresses)
                self._snapshot = snapshot
                self._campaigns.apply(changes)

    def _discard_failed(self) -> None:
        """Forget what was written down for a change that failed, before its pool version is used by another."""
        if self._discard_due:
            self._campaigns.discard(pool_version=self._store.version)
            self._discard_due = False

    @contextmanager
    def _failing_on(self, kind: type[BaseException], what: str) -> Iterator[None]:
        """Take the pool out of service if the block ends in such an error: memory and disk may not agree then."""
        try:
            yield
        except kind:
            self.failure = f"{what} failed in the middle; restart the index server to read the pool from disk again"
            self._log.error("pool failed", pool=self.spec.name, what=what)
            raise

    def _maintain(self) -> None:
        """Rebuild the index or compact the store where it is time.

        The call that brought it about has happened by now, and its answer does not depend on how this goes.
        """
        if self.failure:
            return
        try:
            self._maintain_index()
            self._maintain_store()
        except (SealpoolError, OSError, RuntimeError, ValueError, MemoryError) as error:
            self._log.warning("maintenance put off", pool=self.spec.name, reason=str(error) or type(error).__name__)

    def _maintain_index(self) -> None:
        # The writer lock keeps the index as it is while the other is built; searches go on.
        other = self._index.maintained()
        if other is None:
            return
        if other.state is not None and other.state is not self._index.state:
            write_engine_state(self._state_path, other.state)
        with self._gate.write(), self._view.write():
            before, self._index = self._index, other
        before.close()
        self._log.info(
            "index rebuilt", pool=self.spec.name, engine=other.engine.name, items=len(other), reason=other.choice.reason
        )

    def _maintain_store(self) -> None:
        if not self._store.wants_compaction():
            return
        self._discard_failed()
        with self._failing_on(OutcomeUnknown, "compaction"):
            self._store.compact()
        with self._failing_on(BaseException, "compaction"):
            snapshot = self._store.snapshot()
            addresses = snapshot.addresses()
            with self._gate.write(), self._view.write():
                self._index.table.move(addresses)
                self._snapshot = snapshot

    def _known(self, ids: Sequence[ItemId]) -> Rows:
        rows = self._index.table.find(ids)
        return rows[rows >= 0]

    def _neighbors(self, rows: Rows, scores: NDArray[np.float32]) -> Neighbors:
        found = rows >= 0
        return Neighbors(
            version=self.version,
            counts=found.sum(axis=1),
            ids=self._index.table.ids_at(rows[found]),
            scores=scores[found],
        )

    def _expansion(
        self, view: CampaignView, *, vectors: bool, payloads: bool, direction: NDArray[np.float32], seconds: float
    ) -> Expansion:
        added = self._index.table.lookup(view.difference.added)
        return Expansion(
            version=self.version,
            pool_size=self.size,
            campaign=view,
            added=self._while_open(self._added(self._index, self._snapshot, added, vectors=vectors, payloads=payloads)),
            direction=direction,
            search_seconds=seconds,
        )

    def _added(
        self, index: PoolIndex, snapshot: Snapshot, rows: Rows, *, vectors: bool, payloads: bool
    ) -> Iterator[Records]:
        """Return the items at `rows` of `index` with vectors from memory, and payloads from the store.

        Rows never move within an index and keep their vectors when their items go, so they are read as they were, and
        to the last bit the same, whatever happens meanwhile.
        """
        ids, addresses = index.table.ids_at(rows), index.table.addresses_at(rows)
        return self._parts(index, snapshot, rows, ids, addresses, vectors=vectors, payloads=payloads)

    def _parts(
        self,
        index: PoolIndex,
        snapshot: Snapshot,
        rows: Rows,
        ids: Sequence[ItemId],
        addresses: Addresses,
        *,
        vectors: bool,
        payloads: bool,
    ) -> Iterator[Records]:
        size = read_rows(self.spec.dimension, payloads=payloads)
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            yield Records(
                ids=ids[part],
                vectors=self._vectors(index, rows[part]) if vectors else None,
                payloads=snapshot.take(addresses[part], vectors=False, payloads=True).payloads if payloads else None,
            )

    def _vectors(self, index: PoolIndex, rows: Rows) -> FloatMatrix:
        with self._reading():
            return index.stored_vectors(rows)
