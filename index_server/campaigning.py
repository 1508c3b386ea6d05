"""What campaigns ask of a pool."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from index_server.answers import Expansion, IndexNeighbourhood, read_rows
from index_server.candidates.book import CampaignSize, CampaignView, Labels
from index_server.candidates.state import Reason
from index_server.graph.reachability import Reachability, reachable_share
from index_server.index import PoolIndex
from index_server.merging import Caller
from index_server.ports import CandidatePolicy, PolicyOptions, Rows, Scores, Snapshot
from index_server.reading import PoolReads
from index_server.records import FloatMatrix, Records
from index_server.scoring import LinearModel, score_rows
from sealpool.errors import FailedPrecondition
from sealpool.runtime.callers import NO_CALLER
from sealpool.types import ItemId

_SCORED_ROWS: Final = 8192
_REACH_SEARCHES: Final = 20_000
"""Searches for an estimate of what can be reached: some seconds. With a complete graph they are look-ups."""
_REACH_SAMPLE: Final = 200
_REACH_BACKWARD: Final = 200


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


class PoolCampaigns(PoolReads):
    """Candidate pools: grown, looked at, explained, scored and dropped."""

    def campaign_sizes(self) -> dict[str, CampaignSize]:
        """Return how large each campaign's candidate pool is."""
        return self._state.campaigns.sizes()

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

    def _neighbourhood(self, caller: Caller) -> IndexNeighbourhood:
        with self._state.reading():
            if not len(self._state.index):
                raise FailedPrecondition(f"pool {self.spec.name!r} is empty: add items first", field="pool")
        # The gate alone keeps the items as they are. It may take long to search for many labels.
        return IndexNeighbourhood(self._state.index, self._state.reading, self._nearest, caller)

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
