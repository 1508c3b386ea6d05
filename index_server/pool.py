"""One pool: its store, its index and its candidate pools, changed together and read together."""

import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from index_server.answers import Changed
from index_server.campaigning import PoolCampaigns
from index_server.candidates.book import CampaignBook
from index_server.candidates.journal import Journal
from index_server.index import IndexSettings, PoolIndex
from index_server.limits import Limits
from index_server.pool_graph import PoolGraph
from index_server.pool_state import PoolState
from index_server.records import Records
from index_server.spec import PoolSpec
from index_server.store.engine_state import read_engine_state
from index_server.store.foreign import ForeignLanceStore
from index_server.store.lance_snapshot import LanceSnapshot
from index_server.store.lance_store import LanceStore
from index_server.store.snapshots import SnapshotInfo, write_snapshot
from index_server.store.watermarks import Watermarks
from index_server.upkeep import PoolUpkeep
from index_server.writing import PoolWriter
from sealpool.errors import FailedPrecondition
from sealpool.runtime.logs import Logger
from sealpool.types import ItemId


@dataclass(frozen=True, kw_only=True, slots=True)
class UpkeepSettings:
    """See PoolWriter and PoolUpkeep."""

    quiet_s: float
    patience_s: float
    compaction_bytes: int


class Pool(PoolCampaigns):
    """One pool. What it consists of and how that is kept in step, PoolState says; how it changes, PoolWriter."""

    def __init__(
        self, state: PoolState, *, upkeep: UpkeepSettings, on_change: Callable[["Pool"], None] = lambda _: None
    ) -> None:
        super().__init__(state)
        # No cycle of references: a pool that was deleted would keep its memory until the collector comes.
        me = weakref.ref(self)

        def changed() -> None:
            pool = me()
            if pool is not None:
                on_change(pool)

        writer = self._writer = PoolWriter(state, quiet_s=upkeep.quiet_s, on_change=changed)
        self.upkeep = PoolUpkeep(
            state,
            busy=lambda: writer.is_busy,
            patience_s=upkeep.patience_s,
            compaction_bytes=upkeep.compaction_bytes,
        )

    @classmethod
    def load(
        cls,
        directory: Path,
        spec: PoolSpec,
        *,
        settings: IndexSettings,
        upkeep: UpkeepSettings,
        limits: Limits,
        watermarks: Watermarks,
        log: Logger,
        on_change: Callable[["Pool"], None] = lambda _: None,
        progress: Callable[[float], None] = lambda _: None,
    ) -> "Pool":
        """Read a pool from disk. `on_change` is called after each change: upkeep may be due.

        Raises
        ------
        SealpoolError, OSError, ValueError, RuntimeError
            It cannot be read.
        """
        store = LanceStore.open(directory) if spec.source is None else ForeignLanceStore.open(directory, spec)
        with ExitStack() as unless_loaded:
            unless_loaded.callback(store.close)
            snapshot = store.snapshot()
            index = PoolIndex.load(
                spec,
                settings,
                state=read_engine_state(directory / "engine.state"),
                addresses=snapshot.addresses(),
                items=((part.ids, part.vectors) for part in snapshot.items()),
                directory=directory,
                progress=progress,
            )
            unless_loaded.callback(index.close)
            journal = Journal(directory / "candidates.sqlite")
            unless_loaded.callback(journal.close)
            campaigns = CampaignBook(journal, index.table, pool_version=store.version, limits=limits)
            graph = PoolGraph.open(directory, index, store_version=store.version)
            if graph is not None:
                unless_loaded.callback(graph.close)
            state = PoolState(
                directory,
                spec,
                store=store,
                index=index,
                campaigns=campaigns,
                graph=graph,
                limits=limits,
                watermarks=watermarks,
                log=log,
            )
            pool = cls(state, upkeep=upkeep, on_change=on_change)
            unless_loaded.pop_all()
        return pool

    @classmethod
    def create(cls, directory: Path, spec: PoolSpec) -> None:
        """Put an empty pool's files into `directory`, synced; or what opens the data set that it is to be read from.

        Raises
        ------
        InvalidArgument
            That data set cannot be read or does not fit the pool.
        """
        if spec.source is None:
            LanceStore.create(directory, dimension=spec.dimension, vector_type=spec.vector_type)
        else:
            ForeignLanceStore.create(directory, spec)

    def upsert(self, batches: Iterable[Records]) -> Changed:
        """Add items or replace them, all batches as one change. An error that `batches` raise undoes all of it.

        Raises
        ------
        InvalidArgument
            An id is repeated, or a vector has another dimension, is not finite, too long, or has no direction.
        ResourceExhausted
            Too many rows, or the disk is full.
        """
        return self._writer.upsert(batches)

    def delete(self, ids: Sequence[ItemId]) -> Changed:
        """Delete items; those that the pool does not have are counted as missing."""
        return self._writer.delete(ids)

    def purge(self) -> None:
        """Return once nothing of deleted items is left in the pool's files; see PoolUpkeep.purge."""
        self.upkeep.purge()

    def write_snapshot(self, uri: str) -> tuple[SnapshotInfo, int]:
        """Write the pool as it is now to an empty place; return what was written, and the items.

        Raises
        ------
        FailedPrecondition
            The pool is read-only: its items are another system's to keep.
        AlreadyExists, ResourceExhausted, Unavailable
            See store.snapshots.write_snapshot.
        """
        with self._state.reading():
            snapshot = self._state.snapshot
        if not isinstance(snapshot, LanceSnapshot) or self.spec.source is not None:
            raise FailedPrecondition(f"pool {self.spec.name!r} is read-only: its items lie elsewhere", field="pool")
        return write_snapshot(self._state.directory, snapshot, uri), snapshot.count

    def begin_closing(self) -> None:
        """Let upkeep that is under way end early. The pool goes on answering until it is closed."""
        self._state.closing.set()

    def close(self) -> None:
        """Wait for what is under way, and let go of everything."""
        self._state.close()
        self.upkeep.close()
