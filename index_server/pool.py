"""One pool: its store, its index and its candidate pools, changed together and read together."""

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from index_server.answers import Changed, Expansion, IndexNeighbourhood, Neighbors, Reading, read_rows, take
from index_server.candidates.book import CampaignBook, CampaignSize, CampaignView, Labels
from index_server.candidates.journal import Journal
from index_server.candidates.state import NO_ROWS, Reason
from index_server.graph.reachability import Reachability, reachable_share
from index_server.incoming import check_comparable
from index_server.index import IndexSettings, PoolIndex
from index_server.limits import Limits
from index_server.merging import Caller
from index_server.pool_graph import PoolGraph
from index_server.pool_state import PoolState
from index_server.ports import CandidatePolicy, PolicyOptions, Rows, Scores, Snapshot
from index_server.records import FloatMatrix, Records
from index_server.scoring import LinearModel, score_rows
from index_server.spec import PoolSpec
from index_server.store.engine_state import read_engine_state
from index_server.store.foreign import ForeignLanceStore
from index_server.store.lance_snapshot import LanceSnapshot
from index_server.store.lance_store import LanceStore
from index_server.store.snapshots import SnapshotInfo, write_snapshot
from index_server.store.watermarks import Watermarks
from index_server.upkeep import PoolUpkeep
from index_server.writing import PoolWriter
from sealpool.errors import FailedPrecondition, NotFound
from sealpool.runtime.callers import NO_CALLER
from sealpool.runtime.logs import Logger
from sealpool.types import ItemId, Vectors

_SCORED_ROWS: Final = 8192
_REACH_SEARCHES: Final = 20_000
"""Searches for an estimate of what can be reached: some seconds. With a complete graph they are look-ups."""
_REACH_SAMPLE: Final = 200
_REACH_BACKWARD: Final = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class UpkeepSettings:
    """See PoolUpkeep."""

    patience_s: float
    compaction_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredItems:
    """The best items by a linear model, at one version of the pool and of the candidate pool (0 for none)."""

    version: int
    candidate_version: int
    ids: list[ItemId]
    scores: Scores
    scored: int


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedReason:
    """Why an item is, or is not, a candidate. `source_id` is "" where none is known."""

    item_id: ItemId
    source_id: str
    reason: Reason


class Pool:
    """One pool. What it consists of and how that is kept in step, PoolState says; how it changes, PoolWriter."""

    def __init__(
        self, state: PoolState, *, upkeep: UpkeepSettings, on_change: Callable[["Pool"], None] = lambda _: None
    ) -> None:
        self._state = state
        # No cycle of references: a pool that was deleted would keep its memory until the collector comes.
        me = weakref.ref(self)

        def changed() -> None:
            pool = me()
            if pool is not None:
                on_change(pool)

        writer = self._writer = PoolWriter(state, on_change=changed)
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

    @property
    def spec(self) -> PoolSpec:
        """What the pool is."""
        return self._state.spec

    @property
    def failure(self) -> str:
        """Why the pool answers nothing any more, "" as long as it does."""
        return self._state.failure

    @property
    def version(self) -> int:
        """The present version."""
        return self._state.snapshot.version

    @property
    def size(self) -> int:
        """Items."""
        return len(self._state.index)

    @property
    def index(self) -> PoolIndex:
        """The index in use now."""
        return self._state.index

    @property
    def graph_items(self) -> int:
        """Items whose neighbours are known in the neighbour graph."""
        return 0 if self._state.graph is None else self._state.graph.known_items

    def campaign_sizes(self) -> dict[str, CampaignSize]:
        """Return how large each campaign's candidate pool is."""
        return self._state.campaigns.sizes()

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

    def read(self, ids: Sequence[ItemId], *, vectors: bool, payloads: bool, allow_missing: bool) -> Reading:
        """Return the items of `ids` in that order, as they are now.

        Raises
        ------
        NotFound
            The pool lacks one, unless `allow_missing`.
        """
        with self._state.reading():
            table = self._state.index.table
            rows = table.find(ids) if allow_missing else table.lookup(ids)
            rows = rows[rows >= 0]
            snapshot, addresses = self._state.snapshot, table.addresses_at(rows)
            if not vectors and not payloads:
                return Reading(version=snapshot.version, parts=iter([Records(ids=table.ids_at(rows))]))
        size = read_rows(self.spec.dimension, payloads=payloads)
        parts = take(snapshot, addresses, size, vectors=vectors, payloads=payloads)
        return Reading(version=snapshot.version, parts=self._state.while_open(parts))

    def scan(self, *, vectors: bool, payloads: bool) -> Reading:
        """Return all items in the pool's order, as they are now."""
        with self._state.reading():
            snapshot = self._state.snapshot
        parts = snapshot.scan(vectors=vectors, payloads=payloads)
        return Reading(version=snapshot.version, parts=self._state.while_open(parts))

    def sample(self, count: int, *, seed: int, campaign: str, exclude: Sequence[ItemId]) -> tuple[int, list[ItemId]]:
        """Draw `count` items uniformly without replacement, and return the pool's version and their ids.

        Neither candidates and labelled items of `campaign` ("" for none) nor `exclude` are drawn. The draw depends on
        the items in the pool's order, so it is the same after a restart.
        """
        with self._state.gate.read():
            taken = self._state.campaigns.taken(campaign) if campaign else NO_ROWS
            with self._state.reading():
                table = self._state.index.table
                eligible = table.live_mask()
                eligible[taken] = False
                eligible[self._known(exclude)] = False
                choices = np.flatnonzero(eligible)
                generator = np.random.default_rng(seed)
                drawn = generator.choice(choices, min(count, len(choices)), replace=False)
                return self.version, table.ids_at(drawn)

    def search(
        self, queries: Vectors, k: int, *, exclude: Sequence[ItemId], vectors: bool, caller: Caller = NO_CALLER
    ) -> Neighbors:
        """Return the k nearest items of each of `queries` (q, d), none of `exclude` among them."""
        check_comparable(self.spec, queries, field="vectors")
        with self._state.reading():
            found = self._state.index.search(queries, k, excluded=self._known(exclude), caller=caller)
            return self._neighbors(*found, vectors=vectors)

    def search_ids(
        self, ids: Sequence[ItemId], k: int, *, exclude: Sequence[ItemId], vectors: bool, caller: Caller = NO_CALLER
    ) -> Neighbors:
        """Return the k nearest items of each item, itself and `exclude` left out.

        Raises
        ------
        NotFound
            The pool lacks one of `ids`.
        """
        with self._state.reading():
            own = self._state.index.table.lookup(ids)
            excluded = self._known(exclude)
            if len(excluded):
                found = self._state.index.search_rows(own, k, excluded=excluded, caller=caller)
            else:
                found = self._nearest(own, k, caller=caller)
            return self._neighbors(*found, vectors=vectors)

    def expand(
        self,
        campaign: str,
        *,
        policy: CandidatePolicy,
        options: PolicyOptions,
        labels: Labels,
        held_version: int,
        vectors: bool,
        payloads: bool,
        caller: Caller = NO_CALLER,
    ) -> Expansion:
        """Tell labelled items of a campaign and get what that changed: see CampaignBook.expand for the errors.

        Raises
        ------
        FailedPrecondition
            The pool is empty.
        """
        with self._state.gate.read():
            neighbourhood = self._neighbourhood(caller)
            view = self._state.campaigns.expand(
                campaign,
                self._state.index.table,
                neighbourhood,
                policy=policy,
                options=options,
                labels=labels,
                held_version=held_version,
                pool_version=self.version,
            )
            return self._expansion(view, vectors=vectors, payloads=payloads, seconds=neighbourhood.seconds)

    def preview(
        self,
        campaign: str,
        *,
        policy: CandidatePolicy,
        options: PolicyOptions,
        labels: Labels,
        vectors: bool,
        payloads: bool,
        caller: Caller = NO_CALLER,
    ) -> Expansion:
        """Return what `expand` would, to a caller who holds the present version, and keep nothing of it."""
        with self._state.gate.read():
            neighbourhood = self._neighbourhood(caller)
            view = self._state.campaigns.preview(
                campaign,
                self._state.index.table,
                neighbourhood,
                policy=policy,
                options=options,
                labels=labels,
                pool_version=self.version,
            )
            return self._expansion(view, vectors=vectors, payloads=payloads, seconds=neighbourhood.seconds)

    def candidates(self, campaign: str, *, vectors: bool, payloads: bool) -> Expansion:
        """Return all candidates of a campaign; raise NotFound if it has no candidate pool."""
        with self._state.gate.read():
            self._state.check_open()
            view = self._state.campaigns.view(campaign, self._state.index.table)
            return self._expansion(view, vectors=vectors, payloads=payloads, seconds=0.0)

    def explain(self, campaign: str, ids: Sequence[ItemId]) -> tuple[int, list[NamedReason]]:
        """Return the pool's version and why each of `ids` is, or is not, a candidate.

        Raises
        ------
        NotFound
            The campaign has no candidate pool, or the pool lacks one of `ids`.
        """
        # Without the view: a campaign's lock is taken before it, and the gate keeps the table as it is.
        with self._state.gate.read():
            self._state.check_open()
            table = self._state.index.table
            rows = table.lookup(ids)
            reasons = self._state.campaigns.reasons(campaign, rows)
            sources = table.ids_at(np.array([max(reason.source, 0) for reason in reasons], np.int64))
            return self.version, [
                NamedReason(item_id=item_id, source_id=source if reason.source >= 0 else "", reason=reason)
                for item_id, source, reason in zip(ids, sources, reasons, strict=True)
            ]

    def score_candidates(
        self,
        campaign: str,
        model: LinearModel,
        strategy: str,
        count: int,
        *,
        positive_class: int,
        caller: Caller = NO_CALLER,
    ) -> ScoredItems:
        """Return the best candidates of a campaign by a linear model; raise NotFound if it has no candidate pool."""
        with self._state.gate.read():
            self._state.check_open()
            view = self._state.campaigns.view(campaign, self._state.index.table)
            rows = np.sort(view.difference.added)
            return self._scored(rows, view.version, model, strategy, count, positive_class, caller)

    def score_pool(
        self,
        campaign: str,
        model: LinearModel,
        strategy: str,
        count: int,
        *,
        positive_class: int,
        caller: Caller = NO_CALLER,
    ) -> ScoredItems:
        """Return the best items of the pool by a linear model, without those that `campaign` ("" for none) labelled."""
        with self._state.gate.read():
            self._state.check_open()
            table = self._state.index.table
            eligible = table.live_mask()
            version = 0
            if campaign:
                with contextlib.suppress(NotFound):  # a campaign without a candidate pool has labelled nothing here
                    view = self._state.campaigns.view(campaign, table)
                    eligible[view.labelled] = False
                    version = view.version
            return self._scored(np.flatnonzero(eligible), version, model, strategy, count, positive_class, caller)

    def reachability(self, campaign: str, k: int, *, seed: int, caller: Caller = NO_CALLER) -> tuple[int, Reachability]:
        """Return the pool's version and what share of it rounds of `campaign` could reach, by k neighbours an item.

        Raises
        ------
        NotFound
            The campaign has no candidate pool.
        FailedPrecondition
            The pool is empty.
        """
        state = self._state
        with state.gate.read():
            neighbourhood = self._neighbourhood(caller)
            seeds = state.campaigns.seeds(campaign)
            complete = state.graph is not None and k <= state.graph.neighbors and state.graph.known_items == self.size
            reached = reachable_share(
                lambda rows: neighbourhood.nearest(rows, k)[0],
                live=state.index.table.live_rows(),
                seeds=seeds,
                max_searches=self.size if complete else _REACH_SEARCHES,
                sample=_REACH_SAMPLE,
                max_backward=_REACH_BACKWARD,
                seed=seed,
            )
            state.campaigns.note_reachable(campaign, reached.share)
            return self.version, reached

    def drop_candidates(self, campaign: str) -> tuple[int, int]:
        """Forget a campaign's candidate pool; return the pool's version and how many candidates there were."""
        with self._state.gate.read():
            self._state.check_open()
            return self.version, self._state.campaigns.drop(campaign, pool_version=self.version)

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

    def _neighbourhood(self, caller: Caller) -> IndexNeighbourhood:
        with self._state.reading():
            if not len(self._state.index):
                raise FailedPrecondition(f"pool {self.spec.name!r} is empty: add items first", field="pool")
        # The gate alone keeps the items as they are. It may take long to search for many labels.
        return IndexNeighbourhood(self._state.index, self._state.reading, self._nearest, caller)

    def _nearest(self, rows: Rows, k: int, *, caller: Caller) -> tuple[Rows, Scores]:
        graph = self._state.graph
        if graph is not None and k <= graph.neighbors:
            return graph.nearest(rows, k, caller=caller)
        return self._state.index.search_rows(rows, k, caller=caller)

    def _known(self, ids: Sequence[ItemId]) -> Rows:
        if not ids:
            return NO_ROWS
        rows = self._state.index.table.find(ids)
        return rows[rows >= 0]

    def _neighbors(self, rows: Rows, scores: Scores, *, vectors: bool) -> Neighbors:
        found = rows >= 0
        flat = rows[found]
        return Neighbors(
            version=self.version,
            counts=found.sum(axis=1),
            ids=self._state.index.table.ids_at(flat),
            scores=scores[found],
            vectors=self._state.index.stored_vectors(flat) if vectors else None,
        )

    def _scored(
        self,
        rows: Rows,
        candidate_version: int,
        model: LinearModel,
        strategy: str,
        count: int,
        positive_class: int,
        caller: Caller,
    ) -> ScoredItems:
        best = score_rows(self._blocks(rows, caller), model, strategy, count, positive_class=positive_class)
        return ScoredItems(
            version=self.version,
            candidate_version=candidate_version,
            ids=self._state.index.table.ids_at(best.rows),
            scores=best.scores,
            scored=best.scored,
        )

    def _blocks(self, rows: Rows, caller: Caller) -> Iterator[tuple[Rows, FloatMatrix]]:
        for start in range(0, len(rows), _SCORED_ROWS):
            caller.check()
            part = rows[start : start + _SCORED_ROWS]
            yield part, self._vectors(self._state.index, part)

    def _expansion(self, view: CampaignView, *, vectors: bool, payloads: bool, seconds: float) -> Expansion:
        state = self._state
        with state.reading():
            parts = self._parts(state.index, state.snapshot, view.difference.added, vectors=vectors, payloads=payloads)
            return Expansion(
                version=self.version,
                pool_size=self.size,
                campaign=view,
                added=state.while_open(parts),
                direction=state.index.mean_direction(without=view.labelled),
                search_seconds=seconds,
            )

    def _parts(
        self, index: PoolIndex, snapshot: Snapshot, rows: Rows, *, vectors: bool, payloads: bool
    ) -> Iterator[Records]:
        """Return the items at `rows` of `index` with vectors from memory, and payloads from the store.

        Rows never move within an index and keep their ids and vectors when their items go, so they are read as they
        were, and to the last bit the same, whatever happens meanwhile. Addresses do move: they are read at once.
        """
        size = read_rows(self.spec.dimension, payloads=payloads)
        addresses = index.table.addresses_at(rows)

        def parts() -> Iterator[Records]:
            for start in range(0, len(rows), size):
                part = slice(start, start + size)
                taken = snapshot.take(addresses[part], vectors=False, payloads=True) if payloads else None
                yield Records(
                    ids=index.table.ids_at(rows[part]),
                    vectors=self._vectors(index, rows[part]) if vectors else None,
                    payloads=taken.payloads if taken else None,
                )

        return parts()

    def _vectors(self, index: PoolIndex, rows: Rows) -> FloatMatrix:
        with self._state.reading():
            return index.stored_vectors(rows)
