"""The candidate pools of one pool, by campaign."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from index_server.candidates.journal import Journal
from index_server.candidates.policies import POLICIES
from index_server.candidates.state import CandidatePool, Change, Difference
from index_server.limits import Limits
from index_server.ports import Neighbourhood
from sealpool.errors import InvalidArgument, NotFound, ResourceExhausted
from sealpool.failpoint import reach
from sealpool.types import ItemId


@dataclass(frozen=True, kw_only=True, slots=True)
class CampaignView:
    """A candidate pool as it was at one moment."""

    version: int
    size: int
    labelled: Sequence[ItemId]
    difference: Difference


@dataclass(frozen=True, kw_only=True, slots=True)
class CampaignSize:
    """How many candidates a campaign has, and how many it ever had."""

    candidates: int
    entered: int


class CampaignBook:
    """Keeps the candidate pools of one pool, and their journal in step.

    Threads: `expand`, `view`, `taken`, `drop` and `sizes` by many at once, one at a time for each campaign; `follow`
    and `apply` by one, while none of the others runs: what they see of the pool must not move under them.
    """

    def __init__(self, journal: Journal, *, pool_version: int, limits: Limits) -> None:
        self._journal = journal
        self._limits = limits
        self._pools, self._ended = journal.load(pool_version)
        self._guard = threading.Lock()
        # Weakly, lest every name that a caller made up leave a lock behind: it lives as long as somebody uses it.
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()

    def sizes(self) -> dict[str, CampaignSize]:
        """Return how large each campaign's candidate pool is."""
        with self._guard:
            return {
                name: CampaignSize(candidates=len(candidates), entered=candidates.entered_count)
                for name, candidates in sorted(self._pools.items())
            }

    def expand(
        self,
        campaign: str,
        neighbourhood: Neighbourhood,
        *,
        policy: str,
        k: int,
        labelled: Sequence[ItemId],
        expand_from: Sequence[ItemId],
        held_version: int,
        pool_version: int,
    ) -> CampaignView:
        """Take in labels, let the candidate pool grow from `expand_from`, and return what changed since `held_version`.

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
            candidates = self._begin(campaign, policy) if begun is None else begun
            if candidates.policy != policy:
                raise InvalidArgument("policy.name", f"{policy!r}, but the campaign began with {candidates.policy!r}")
            new = [item_id for item_id in labelled if not candidates.is_labelled(item_id)]
            sources = [item_id for item_id in expand_from if not candidates.is_expanded(item_id)]
            neighbourhood.require(sources)
            change = candidates.grow(
                pool_version=pool_version,
                newly_labelled=new,
                newly_expanded=sources,
                proposed=POLICIES[policy].propose(neighbourhood, sources, k=k),
            )
            self._check_size(candidates, change)
            reach("index.expand.before_record")
            if begun is None:
                self._journal.begin(campaign, candidates, change, pool_version=pool_version)
            elif change is not None:
                self._journal.write({campaign: change}, pool_version=pool_version)
            reach("index.expand.after_record")
            if change is not None:
                candidates.apply(change)
            with self._guard:
                self._pools[campaign] = candidates
                self._ended.pop(campaign, None)
            return _view(candidates, held_version)

    def view(self, campaign: str) -> CampaignView:
        """Return a whole candidate pool; raise NotFound if the campaign has none."""
        with self._lock_of(campaign):
            candidates = self._pools.get(campaign)
            if candidates is None:
                raise NotFound("campaign", campaign)
            return _view(candidates, 0)

    def taken(self, campaign: str) -> list[ItemId]:
        """Return the candidates and labelled items of a campaign; none if it has no candidate pool."""
        with self._lock_of(campaign):
            candidates = self._pools.get(campaign)
            return [] if candidates is None else [*candidates.members, *candidates.labelled]

    def drop(self, campaign: str, *, pool_version: int) -> int:
        """Forget a campaign's candidate pool; return how many candidates it had. Its versions are not used again."""
        with self._lock_of(campaign):
            candidates = self._pools.get(campaign)
            if candidates is None:
                return 0
            self._journal.drop(campaign, version=candidates.version, pool_version=pool_version)
            with self._guard:
                del self._pools[campaign]
                self._ended[campaign] = candidates.version
            return len(candidates)

    def follow(self, *, pool_version: int, replaced: Sequence[ItemId], deleted: Sequence[ItemId]) -> dict[str, Change]:
        """Return, and write down, what a change of items that will make `pool_version` changes in the candidate pools.

        It counts once the store has that version; `apply` it then, and `discard` otherwise.
        """
        changes = {}
        for name, candidates in self._pools.items():
            change = candidates.follow(pool_version=pool_version, replaced=replaced, deleted=deleted)
            if change is not None:
                changes[name] = change
        if changes:
            self._journal.write(changes, pool_version=pool_version - 1)
        return changes

    def apply(self, changes: Mapping[str, Change]) -> None:
        """Make changes that `follow` returned."""
        for name, change in changes.items():
            self._pools[name].apply(change)

    def discard(self, *, pool_version: int) -> None:
        """Forget changes that were written down for a pool version above `pool_version`, which did not come about."""
        self._journal.discard(pool_version=pool_version)

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _lock_of(self, campaign: str) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(campaign, threading.Lock())

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
        if change.added and size > self._limits.max_candidates:
            raise ResourceExhausted(
                f"candidate pool of {size:,} items", limit=self._limits.max_candidates, setting="max_candidates"
            )


def _view(candidates: CandidatePool, held_version: int) -> CampaignView:
    return CampaignView(
        version=candidates.version,
        size=len(candidates),
        labelled=list(candidates.labelled),
        difference=candidates.since(held_version),
    )
