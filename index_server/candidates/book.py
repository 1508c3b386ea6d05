"""The candidate pools of one pool, by campaign."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import numpy as np

from index_server.candidates.growth import News, grow
from index_server.candidates.journal import Journal, StoredCampaign, StoredChange
from index_server.candidates.state import NO_ROWS, CandidatePool, Change, Classes, Difference, Named, Reason
from index_server.limits import Limits
from index_server.ports import CandidatePolicy, Growth, Neighbourhood, PolicyOptions, Proposal, Rows
from index_server.table.item_table import ItemTable
from sealpool.errors import InvalidArgument, NotFound, ResourceExhausted
from sealpool.failpoint import reach
from sealpool.types import ItemId


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """What a caller tells of labelled items: `classes` parallel to `ids`, or empty; `expand_from` among `ids`."""

    ids: Sequence[ItemId]
    expand_from: Sequence[ItemId]
    classes: Sequence[Classes] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class CampaignView:
    """A candidate pool as it was at one moment. `labelled` are the rows of labelled items that the pool has."""

    version: int
    size: int
    labelled_count: int
    labelled: Rows
    difference: Difference


@dataclass(frozen=True, kw_only=True, slots=True)
class CampaignSize:
    """How many candidates a campaign has, and how often an item became one."""

    candidates: int
    entered: int
    reachable_share: float | None
    """Of the pool, as it was estimated last; None if it was not since the start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Following:
    """What a change of the pool's items means for its candidate pools: see `CampaignBook.follow`.

    Parameters
    ----------
    replaced, lost
        Items that lie elsewhere, and those that are gone, by the rows they had.
    moved_to
        The new rows of `replaced`.
    gained
        Items that the pool did not have.
    """

    replaced: Named = field(default_factory=Named)
    moved_to: Rows = field(default_factory=lambda: NO_ROWS)
    lost: Named = field(default_factory=Named)
    gained: Named = field(default_factory=Named)
    changes: Mapping[str, Change] = field(default_factory=dict)


class CampaignBook:
    """Keeps the candidate pools of one pool, and their journal in step.

    Threads: `expand`, `preview`, `view`, `taken`, `reasons`, `drop` and `sizes` by many at once, one at a time for each
    campaign; `follow`, `apply` and `renumber` by one, while none of the others runs: what they see of the pool must not
    move under them.
    """

    def __init__(self, journal: Journal, table: ItemTable, *, pool_version: int, limits: Limits) -> None:
        self._journal = journal
        self._limits = limits
        stored = journal.load(pool_version)
        self._pools = {name: _replayed(campaign, table) for name, campaign in stored.items() if campaign.policy}
        self._ended = {name: campaign.first_version for name, campaign in stored.items() if not campaign.policy}
        self._reachable: dict[str, float] = {}
        self._guard = threading.Lock()
        # Weakly, lest every name that a caller made up leave a lock behind: it lives as long as somebody uses it.
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()

    def sizes(self) -> dict[str, CampaignSize]:
        """Return how large each campaign's candidate pool is."""
        with self._guard:
            return {
                name: CampaignSize(
                    candidates=len(candidates),
                    entered=candidates.entered_count,
                    reachable_share=self._reachable.get(name),
                )
                for name, candidates in sorted(self._pools.items())
            }

    def expand(
        self,
        campaign: str,
        table: ItemTable,
        neighbourhood: Neighbourhood,
        *,
        policy: CandidatePolicy,
        options: PolicyOptions,
        labels: Labels,
        held_version: int,
        pool_version: int,
    ) -> CampaignView:
        """Take in labels, let the candidate pool grow, and return what changed since `held_version`.

        What is new is on disk before it is seen. Ids that were told before are not told again, and those that were
        expanded from before are not expanded again; one told before may be expanded now.

        Raises
        ------
        NotFound
            The pool lacks an expand_from id that was not expanded before.
        InvalidArgument
            The campaign began with another policy.
        ResourceExhausted
            There would be too many candidates or campaigns, or the disk is full.
        """
        with self._lock_of(campaign):
            begun = self._pools.get(campaign)
            # Not `or`: an empty candidate pool is one too.
            candidates = self._begin(campaign, policy.name) if begun is None else begun
            news = _news(candidates, table, neighbourhood, policy, options, labels, pool_version)
            change = grow(candidates, news, table.ids_at)
            self._check_size(candidates, change)
            reach("index.expand.before_record")
            if begun is None:
                self._journal.begin(campaign, candidates, change, table.arrow_ids_at, pool_version=pool_version)
            elif change is not None:
                self._journal.write({campaign: change}, table.arrow_ids_at, pool_version=pool_version)
            reach("index.expand.after_record")
            if change is not None:
                candidates.apply(change)
            with self._guard:
                self._pools[campaign] = candidates
                self._ended.pop(campaign, None)
            return _view(candidates, held_version, table)

    def preview(
        self,
        campaign: str,
        table: ItemTable,
        neighbourhood: Neighbourhood,
        *,
        policy: CandidatePolicy,
        options: PolicyOptions,
        labels: Labels,
        pool_version: int,
    ) -> CampaignView:
        """Return the view that `expand` would give to who holds the present version, and keep nothing of it."""
        with self._lock_of(campaign):
            begun = self._pools.get(campaign)
            first_version = self._ended.get(campaign, 0)
            candidates = CandidatePool(policy=policy.name, first_version=first_version) if begun is None else begun
            news = _news(candidates, table, neighbourhood, policy, options, labels, pool_version)
            change = grow(candidates, news, table.ids_at)
            added, removed = (NO_ROWS, []) if change is None else (change.added, list(change.removed.ids))
            return CampaignView(
                version=candidates.version,
                size=len(candidates),
                labelled_count=candidates.labelled_count,
                labelled=candidates.labelled(),
                difference=Difference(base_version=candidates.version, added=added, removed=removed),
            )

    def view(self, campaign: str, table: ItemTable) -> CampaignView:
        """Return a whole candidate pool; raise NotFound if the campaign has none."""
        with self._using(campaign) as candidates:
            return _view(candidates, 0, table)

    def reasons(self, campaign: str, rows: Rows) -> list[Reason]:
        """Return why the items at `rows` are, or are not, candidates; raise NotFound as `view`."""
        with self._using(campaign) as candidates:
            return [candidates.reason(row) for row in rows.tolist()]

    def seeds(self, campaign: str) -> Rows:
        """Return what a campaign grew from and to, its labelled items and candidates; raise NotFound as `view`."""
        with self._using(campaign) as candidates:
            return np.concatenate([candidates.labelled(), candidates.members()])

    def note_reachable(self, campaign: str, share: float) -> None:
        """Remember the share of the pool that a campaign can reach."""
        with self._guard:
            self._reachable[campaign] = share

    def taken(self, campaign: str) -> Rows:
        """Return the candidates and labelled items of a campaign; none if it has no candidate pool."""
        with self._lock_of(campaign):
            candidates = self._pools.get(campaign)
            if candidates is None:
                return NO_ROWS
            return np.concatenate([candidates.members(), candidates.labelled()])

    def drop(self, campaign: str, *, pool_version: int) -> int:
        """Forget a campaign's candidate pool; return how many candidates it had. Its versions are not used again."""
        with self._lock_of(campaign):
            candidates = self._pools.get(campaign)
            if candidates is None:
                return 0
            self._journal.drop(campaign, version=candidates.version, pool_version=pool_version)
            with self._guard:
                del self._pools[campaign]
                self._reachable.pop(campaign, None)
                self._ended[campaign] = candidates.version
            return len(candidates)

    def follow(self, table: ItemTable, *, pool_version: int, upserted: Named, new_rows: Rows, lost: Named) -> Following:
        """Return, and write down, what a change of items that will make `pool_version` changes in the candidate pools.

        It counts once the store has that version; `apply` it then, and `discard` otherwise.

        Parameters
        ----------
        upserted, new_rows
            Items by the rows that they have, −1 for none, and those that they will have, (n,) each.
        lost
            Items that are deleted.
        """
        if not self._pools:
            return Following()
        known = upserted.rows >= 0
        replaced = upserted.where(known)
        changes = {}
        for name, candidates in self._pools.items():
            change = candidates.follow(pool_version=pool_version, replaced=replaced, deleted=lost)
            if change is not None:
                changes[name] = change
        if changes:
            self._journal.write(changes, table.arrow_ids_at, pool_version=pool_version - 1)
        gained = Named(ids=upserted.ids, rows=new_rows).where(~known)
        return Following(replaced=replaced, moved_to=new_rows[known], lost=lost, gained=gained, changes=changes)

    def apply(self, following: Following) -> None:
        """Make changes that `follow` returned."""
        for name, candidates in self._pools.items():
            if name in following.changes:
                candidates.apply(following.changes[name])
            candidates.replace(following.replaced.rows, following.moved_to)
            candidates.lose(following.lost)
            candidates.regain(following.gained)

    def renumber(self, new_rows: Rows) -> None:
        """Know all items by other rows: the one at row r lies at `new_rows[r]`, −1 for nowhere."""
        for candidates in self._pools.values():
            candidates.renumber(new_rows)

    def discard(self, *, pool_version: int) -> None:
        """Forget changes that were written down for a pool version above `pool_version`, which did not come about."""
        self._journal.discard(pool_version=pool_version)

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _lock_of(self, campaign: str) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(campaign, threading.Lock())

    @contextmanager
    def _using(self, campaign: str) -> Iterator[CandidatePool]:
        with self._lock_of(campaign):
            candidates = self._pools.get(campaign)
            if candidates is None:
                raise NotFound("campaign", campaign)
            yield candidates

    def _begin(self, campaign: str, policy: str) -> CandidatePool:
        with self._guard:
            if len(self._pools) >= self._limits.max_campaigns:
                raise ResourceExhausted(
                    f"candidate pool of campaign {campaign!r}: one more",
                    limit=self._limits.max_campaigns,
                    setting="max_campaigns",
                )
            return CandidatePool(policy=policy, first_version=self._ended.get(campaign, 0))

    def _check_size(self, candidates: CandidatePool, change: Change | None) -> None:
        if change is None:
            return
        size = len(candidates) + len(change.added) - len(change.removed)
        if len(change.added) and size > self._limits.max_candidates:
            raise ResourceExhausted(
                f"candidate pool of {size:,} items", limit=self._limits.max_candidates, setting="max_candidates"
            )


def _news(
    candidates: CandidatePool,
    table: ItemTable,
    neighbourhood: Neighbourhood,
    policy: CandidatePolicy,
    options: PolicyOptions,
    labels: Labels,
    pool_version: int,
) -> News:
    """Return what of `labels` the candidate pool does not know, and what the policy proposes then."""
    if candidates.policy != policy.name:
        raise InvalidArgument("policy.name", f"{policy.name!r}, but the campaign began with {candidates.policy!r}")
    told = Named(ids=labels.ids, rows=table.find(labels.ids))
    new = told.where(~candidates.is_labelled(told))
    asked = Named(ids=labels.expand_from, rows=table.find(labels.expand_from))
    sources = asked.where(~candidates.is_expanded(asked))
    if (sources.rows < 0).any():
        raise NotFound("item", *sources.where(sources.rows < 0).ids, field="expand_from_ids")
    classes = [
        (item_id, row, tuple(of_item))
        for item_id, row, of_item in zip(told.ids, told.rows.tolist(), labels.classes, strict=bool(labels.classes))
        if candidates.classes_of(item_id, row) != tuple(of_item)
    ]
    something = len(new) or len(sources) or classes or policy.name == "full"
    return News(
        pool_version=pool_version,
        labelled=new,
        classes=classes,
        expanded=sources,
        proposal=policy.propose(neighbourhood, _growth(candidates, new, sources, classes, options))
        if something
        else Proposal(rows=NO_ROWS, sources=NO_ROWS, scores=np.empty(0, np.float32)),
        cap=options.max_candidates,
        higher_is_nearer=neighbourhood.metric.higher_is_nearer,
    )


def _growth(
    candidates: CandidatePool,
    new: Named,
    sources: Named,
    classes: Sequence[tuple[ItemId, int, Classes]],
    options: PolicyOptions,
) -> Growth:
    rows, known = candidates.labelled(), candidates.classes()
    told = {row: of_item for _, row, of_item in classes}
    here = new.rows[new.rows >= 0]
    labels = [told.get(row, of_item) for row, of_item in zip(rows.tolist(), known, strict=True)]
    labels += [told.get(row) for row in here.tolist()]
    return Growth(
        sources=sources.rows,
        labelled=np.concatenate([rows, here]),
        labels=labels,
        draw=candidates.version + 1,
        options=options,
    )


def _view(candidates: CandidatePool, held_version: int, table: ItemTable) -> CampaignView:
    return CampaignView(
        version=candidates.version,
        size=len(candidates),
        labelled_count=candidates.labelled_count,
        labelled=candidates.labelled(),
        difference=candidates.since(held_version, table.find),
    )


def _replayed(campaign: StoredCampaign, table: ItemTable) -> CandidatePool:
    candidates = CandidatePool(policy=campaign.policy, first_version=campaign.first_version)
    for stored in campaign.changes:
        candidates.apply(_change(stored, table))
    return candidates


def _change(stored: StoredChange, table: ItemTable) -> Change:
    def named(ids: Sequence[ItemId]) -> Named:
        return Named(ids=ids, rows=table.find(ids))

    added = named(stored.added)
    here = added.rows >= 0
    known_sources = sorted({source for source in stored.sources if source is not None})
    row_of: dict[ItemId | None, int] = dict(zip(known_sources, table.find(known_sources).tolist(), strict=True))
    classes = named(list(stored.classes))
    return Change(
        version=stored.version,
        pool_version=stored.pool_version,
        added=added.rows[here],
        sources=np.array([row_of.get(source, -1) for source in stored.sources], np.int64)[here],
        scores=stored.scores[here],
        removed=named(stored.removed),
        deleted=named(stored.deleted),
        labelled=named(stored.labelled),
        classes=[
            (item_id, row, stored.classes[item_id])
            for item_id, row in zip(classes.ids, classes.rows.tolist(), strict=True)
        ],
        expanded=named(stored.expanded),
        ghosts=added.where(~here).ids,
    )
