"""What a pool is asked about its items."""

from collections.abc import Sequence

import numpy as np

from index_server.answers import Neighbors, Reading, read_rows, take
from index_server.candidates.state import NO_ROWS
from index_server.incoming import check_comparable
from index_server.index import PoolIndex
from index_server.merging import Caller
from index_server.pool_state import PoolState
from index_server.ports import Rows, Scores
from index_server.records import FloatMatrix, Records
from index_server.spec import PoolSpec
from sealpool.runtime.callers import NO_CALLER
from sealpool.types import ItemId, Vectors


class PoolReads:
    """Items by id, in order, at random and by nearness."""

    def __init__(self, state: PoolState) -> None:
        self._state = state

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

    def _vectors(self, index: PoolIndex, rows: Rows) -> FloatMatrix:
        with self._state.reading():
            return index.stored_vectors(rows)
