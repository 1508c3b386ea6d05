"""The candidate pool of one campaign, as the sum of its changes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sealpool.types import ItemId


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One version of a candidate pool: what it changed against the one before.

    Parameters
    ----------
    version
        The version that it makes.
    pool_version
        Version of the pool that it was derived from.
    added
        Items that became candidates, and candidates whose vector or payload was replaced.
    removed
        Candidates that left, labelled or deleted.
    labelled
        Items that became known as labelled, candidates or not.
    expanded
        Labelled items that brought their neighbours.
    """

    version: int
    pool_version: int
    added: Sequence[ItemId]
    removed: Sequence[ItemId]
    labelled: Sequence[ItemId]
    expanded: Sequence[ItemId]


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """What a caller who holds `base_version` must take in to hold the present one; base 0: everything."""

    base_version: int
    added: list[ItemId]
    removed: list[ItemId]


class CandidatePool:
    """A campaign's candidates, made of changes alone: the same changes give the same pool, in the same order.

    Versions rise by one with each change, from `first_version`, where an earlier candidate pool of the same campaign
    ended: so no version ever means two things. No item is both a candidate and labelled, and a labelled item stays so.

    Not thread-safe.
    """

    def __init__(self, *, policy: str, first_version: int) -> None:
        self.policy = policy
        self._first_version = first_version
        self._changes: list[Change] = []
        self._members: dict[ItemId, None] = {}
        self._labelled: set[ItemId] = set()
        self._expanded: set[ItemId] = set()
        # When an item first came in, gone since or not: who holds an older version cannot hold it.
        self._entered: dict[ItemId, int] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, item_id: ItemId) -> bool:
        return item_id in self._members

    @property
    def version(self) -> int:
        """The present version."""
        return self._first_version + len(self._changes)

    @property
    def entered_count(self) -> int:
        """How many items ever were candidates."""
        return len(self._entered)

    @property
    def members(self) -> Iterable[ItemId]:
        """The candidates, in the order in which they came."""
        return self._members.keys()

    @property
    def labelled(self) -> Iterable[ItemId]:
        """Items told as labelled."""
        return self._labelled

    def is_labelled(self, item_id: ItemId) -> bool:
        """Whether the item was told as labelled."""
        return item_id in self._labelled

    def is_expanded(self, item_id: ItemId) -> bool:
        """Whether the item brought its neighbours already."""
        return item_id in self._expanded

    def grow(
        self,
        *,
        pool_version: int,
        newly_labelled: Sequence[ItemId],
        newly_expanded: Sequence[ItemId],
        proposed: Iterable[ItemId],
    ) -> Change | None:
        """Return the change that labels and proposed items make, without making it; None for none."""
        now_labelled = set(newly_labelled)
        added = [
            item_id
            for item_id in dict.fromkeys(proposed)
            if item_id not in self._members and item_id not in self._labelled and item_id not in now_labelled
        ]
        removed = [item_id for item_id in newly_labelled if item_id in self._members]
        if not added and not newly_labelled and not newly_expanded:
            return None
        return Change(
            version=self.version + 1,
            pool_version=pool_version,
            added=added,
            removed=removed,
            labelled=newly_labelled,
            expanded=newly_expanded,
        )

    def follow(self, *, pool_version: int, replaced: Iterable[ItemId], deleted: Iterable[ItemId]) -> Change | None:
        """Return the change that a change of the pool's items makes here, without making it; None for none."""
        added = [item_id for item_id in replaced if item_id in self._members]
        removed = [item_id for item_id in deleted if item_id in self._members]
        if not added and not removed:
            return None
        return Change(
            version=self.version + 1,
            pool_version=pool_version,
            added=added,
            removed=removed,
            labelled=(),
            expanded=(),
        )

    def apply(self, change: Change) -> None:
        """Make a change.

        Raises
        ------
        ValueError
            It is not the next one.
        """
        if change.version != self.version + 1:
            raise ValueError(f"change {change.version} does not follow version {self.version}")
        for item_id in change.removed:
            self._members.pop(item_id, None)
        for item_id in change.added:
            self._members.pop(item_id, None)  # a replaced item goes to the end
            self._members[item_id] = None
            self._entered.setdefault(item_id, change.version)
        self._labelled.update(change.labelled)
        self._expanded.update(change.expanded)
        self._changes.append(change)

    def since(self, held_version: int) -> Difference:
        """Return the difference from `held_version` to now, or everything if that version is not known here.

        Takes time by what changed since, not by how many candidates there are.
        """
        if not self._first_version < held_version <= self.version:
            return Difference(base_version=0, added=list(self._members), removed=[])
        changes = self._changes[held_version - self._first_version :]
        touched = dict.fromkeys(item_id for change in changes for item_id in change.added)
        left = dict.fromkeys(item_id for change in changes for item_id in change.removed)
        return Difference(
            base_version=held_version,
            added=[item_id for item_id in touched if item_id in self._members],
            removed=[i for i in left if i not in self._members and self._entered[i] <= held_version],
        )
