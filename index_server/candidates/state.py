"""The candidate pool of one campaign, as the sum of its changes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index_server.candidates.entries import Entries, EntryTable
from index_server.ports import Rows, Scores
from sealpool.types import ItemId

Classes = tuple[int, ...]
"""The classes of one labelled item."""

NO_ROWS: Final[Rows] = np.empty(0, np.int64)
NO_SCORES: Final[Scores] = np.empty(0, np.float32)


class Standing(IntEnum):
    """What an item is to a campaign."""

    OUTSIDE = 0
    CANDIDATE = 1
    LABELLED = 2
    LEFT = 3
    """It was a candidate, and gave way to others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """Items by id, and where they lie. `rows` (n,) has −1 for those that the pool does not have."""

    ids: Sequence[ItemId] = ()
    rows: Rows = field(default_factory=lambda: NO_ROWS)

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, mask: NDArray[np.bool_]) -> "Named":
        """Return those for which `mask` (n,) holds."""
        chosen = np.flatnonzero(mask)
        return Named(ids=[self.ids[position] for position in chosen.tolist()], rows=self.rows[chosen])


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
        Rows (n,) that became candidates, and candidates whose vector or payload was replaced.
    sources, scores
        Of `added`, (n,): the row that brought each, −1 for none, and how near it is, NaN for none.
    removed
        Candidates that left because they were labelled, or gave way.
    deleted
        Candidates that left because the pool lost them.
    labelled
        Items that became known as labelled, candidates or not, in the pool or not.
    classes
        Classes that were told, of these or of earlier labelled items.
    expanded
        Labelled items that brought their neighbours.
    ghosts
        Items that were added and that the pool has lost since: known when changes are read from disk.
    """

    version: int
    pool_version: int
    added: Rows = field(default_factory=lambda: NO_ROWS)
    sources: Rows = field(default_factory=lambda: NO_ROWS)
    scores: Scores = field(default_factory=lambda: NO_SCORES)
    removed: Named = field(default_factory=Named)
    deleted: Named = field(default_factory=Named)
    labelled: Named = field(default_factory=Named)
    classes: Sequence[tuple[ItemId, int, Classes]] = ()
    """Id, row (−1 where the pool does not have it) and classes."""
    expanded: Named = field(default_factory=Named)
    ghosts: Sequence[ItemId] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """What a caller who holds `base_version` must take in to hold the present one; base 0: everything."""

    base_version: int
    added: Rows
    removed: list[ItemId]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """Why an item is a candidate: `source` is the row that brought it (−1: none is known), `version` since when."""

    standing: Standing
    source: int
    score: float
    version: int


@dataclass(slots=True)
class _Absent:
    """A labelled item that the pool does not have, now or yet."""

    expanded: bool = False
    classes: Classes | None = None


@dataclass(frozen=True, slots=True)
class _Step:
    """What of a change must be known to tell later what it changed."""

    added: Entries
    removed: Sequence[ItemId]
    spans: NDArray[np.int64]
    """The version with which each of `removed` had come in: who holds an older one does not have it."""


class CandidatePool:
    """A campaign's candidates, made of changes alone: the same changes give the same pool, in the same order.

    Versions rise by one with each change, from `first_version`, where an earlier candidate pool of the same campaign
    ended: so no version ever means two things. No item is both a candidate and labelled, and a labelled item stays so,
    also while the pool does not have it.

    Not thread-safe.
    """

    def __init__(self, *, policy: str, first_version: int) -> None:
        self.policy = policy
        self._first_version = first_version
        self._steps: list[_Step] = []
        self._entries = EntryTable()
        self._size = 0
        self._entered = 0
        self._labelled: dict[int, None] = {}
        """Entries of labelled items in the order in which they were told."""
        self._classes: dict[int, Classes] = {}
        self._absent: dict[ItemId, _Absent] = {}
        self._ghosts: dict[ItemId, int] = {}

    def __len__(self) -> int:
        return self._size

    @property
    def version(self) -> int:
        """The present version."""
        return self._first_version + len(self._steps)

    @property
    def entered_count(self) -> int:
        """How often an item became a candidate."""
        return self._entered

    @property
    def labelled_count(self) -> int:
        """Items told as labelled, in the pool or not."""
        return len(self._labelled) + len(self._absent)

    def members(self) -> Rows:
        """Return the candidates, in the order in which they came."""
        return self._entries.rows[self._in_order(np.flatnonzero(self._entries.standing == Standing.CANDIDATE))]

    def labelled(self) -> Rows:
        """Return labelled items that the pool has, in the order in which they were told."""
        return self._entries.rows[np.fromiter(self._labelled, np.int64, len(self._labelled))]

    def classes(self) -> list[Classes | None]:
        """Return the classes of `labelled`, None where they were not told."""
        return [self._classes.get(entry) for entry in self._labelled]

    def is_labelled(self, items: Named) -> NDArray[np.bool_]:
        """Whether each item was told as labelled: (n,)."""
        absent = np.array([item_id in self._absent for item_id in items.ids], np.bool_)
        labelled: NDArray[np.bool_] = absent | (self.standing(items.rows) == Standing.LABELLED)
        return labelled

    def is_expanded(self, items: Named) -> NDArray[np.bool_]:
        """Whether each item brought its neighbours already: (n,)."""
        absent = [(known := self._absent.get(item_id)) is not None and known.expanded for item_id in items.ids]
        expanded: NDArray[np.bool_] = np.array(absent, np.bool_) | self._entries.at(self._entries.expanded, items.rows)
        return expanded

    def classes_of(self, item_id: ItemId, row: int) -> Classes | None:
        """Return the classes of an item that lies at `row`, −1 for nowhere; None where they were not told."""
        if item_id in self._absent:
            return self._absent[item_id].classes
        return self._classes.get(int(self._entries.find(np.array([row]))[0]))

    def standing(self, rows: Rows) -> NDArray[np.uint8]:
        """Return the Standing of `rows` (n,); OUTSIDE for −1."""
        return self._entries.at(self._entries.standing, rows)

    def reason(self, row: int) -> Reason:
        """Return why the item at `row` is, or is not, a candidate."""
        entry = int(self._entries.find(np.array([row]))[0])
        if entry < 0:
            return Reason(standing=Standing.OUTSIDE, source=-1, score=float("nan"), version=0)
        source = int(self._entries.sources[entry])
        return Reason(
            standing=Standing(int(self._entries.standing[entry])),
            source=int(self._entries.rows[source]) if source >= 0 else -1,
            score=float(self._entries.scores[entry]),
            version=int(self._entries.spans[entry]),
        )

    def candidate_scores(self, rows: Rows) -> Scores:
        """Return how near what brought each of `rows` (n,), all of them candidates, is to it."""
        return self._entries.scores[self._entries.find(rows)]

    def follow(self, *, pool_version: int, replaced: Named, deleted: Named) -> Change | None:
        """Return the change that a change of the pool's items makes here, without making it; None for none."""
        again = replaced.rows[self.standing(replaced.rows) == Standing.CANDIDATE]
        gone = deleted.where(self.standing(deleted.rows) == Standing.CANDIDATE)
        if not len(again) and not len(gone):
            return None
        return Change(
            version=self.version + 1,
            pool_version=pool_version,
            added=again,
            sources=np.full(len(again), -1),
            scores=np.full(len(again), np.nan, np.float32),
            deleted=gone,
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
        spans = [self._leave(change.removed, Standing.LEFT), self._leave(change.deleted, Standing.OUTSIDE)]
        self._label(change)
        added = self._add(change)
        ghosts = [item_id for item_id in change.ghosts if item_id not in self._ghosts]  # not those that were replaced
        self._ghosts.update(dict.fromkeys(ghosts, change.version))
        self._entered += len(ghosts)
        gone = [*change.removed.ids, *change.deleted.ids]
        self._steps.append(_Step(added, gone, np.concatenate(spans)))

    def replace(self, old: Rows, new: Rows) -> None:
        """Know the items at `old` (n,) by their `new` rows (n,) from now on."""
        self._entries.move(old, new)

    def lose(self, items: Named) -> None:
        """Take in that the pool has lost items; labelled ones are kept in mind by id."""
        entries = self._entries.find(items.rows)
        for position in np.flatnonzero(entries >= 0).tolist():
            entry = int(entries[position])
            if entry in self._labelled:
                del self._labelled[entry]
                self._absent[items.ids[position]] = _Absent(
                    bool(self._entries.expanded[entry]), self._classes.pop(entry, None)
                )
        self._entries.forget(items.rows)

    def regain(self, items: Named) -> None:
        """Take in that the pool has new items, some of which may have been labelled before."""
        if not self._absent:
            return
        for position, item_id in enumerate(items.ids):
            known = self._absent.pop(item_id, None)
            if known is not None:
                self._know_labelled(items.rows[position : position + 1], known)

    def renumber(self, new_rows: Rows) -> None:
        """Know all items by other rows: the one at row r lies at `new_rows[r]` from now on, −1 for nowhere."""
        self._entries.renumber(new_rows)

    def since(self, held_version: int, find: Callable[[Sequence[ItemId]], Rows]) -> Difference:
        """Return the difference from `held_version` to now, or everything if that version is not known here.

        Takes time by what changed since, not by how many candidates there are. `find` gives the rows of ids.
        """
        if not self._first_version < held_version <= self.version:
            return Difference(base_version=0, added=self.members(), removed=[])
        steps = self._steps[held_version - self._first_version :]
        touched = np.unique(np.concatenate([NO_ROWS, *(step.added for step in steps)]))
        touched = self._in_order(touched[self._entries.standing[touched] == Standing.CANDIDATE])
        left = {
            item_id: None
            for step in steps
            for item_id, span in zip(step.removed, step.spans.tolist(), strict=True)
            if span <= held_version
        }
        back = self.standing(find(list(left))) == Standing.CANDIDATE
        return Difference(
            base_version=held_version,
            added=self._entries.rows[touched],
            removed=[item_id for item_id, is_back in zip(left, back.tolist(), strict=True) if not is_back],
        )

    def _in_order(self, entries: Entries) -> Entries:
        return entries[np.argsort(self._entries.order[entries], kind="stable")]

    def _leave(self, items: Named, standing: Standing) -> NDArray[np.int64]:
        """Let candidates go; return the versions with which they had come in."""
        entries = self._entries.find(items.rows)
        known = entries >= 0
        spans = np.zeros(len(items), np.int64)
        spans[known] = self._entries.spans[entries[known]]
        for position in np.flatnonzero(~known).tolist():
            spans[position] = self._ghosts.pop(items.ids[position], 0)
        candidates = entries[known]
        candidates = candidates[self._entries.standing[candidates] == Standing.CANDIDATE]
        self._entries.standing[candidates] = standing
        self._size -= len(candidates)
        return spans

    def _label(self, change: Change) -> None:
        here = change.labelled.rows >= 0
        entries = self._entries.ensure(change.labelled.rows[here])
        self._entries.standing[entries] = Standing.LABELLED
        self._labelled.update(dict.fromkeys(entries.tolist()))
        for position in np.flatnonzero(~here).tolist():
            self._absent.setdefault(change.labelled.ids[position], _Absent())
        for item_id, row, classes in change.classes:
            entry = int(self._entries.find(np.array([row]))[0])
            if entry >= 0:
                self._classes[entry] = classes
            elif item_id in self._absent:
                self._absent[item_id].classes = classes
        here = change.expanded.rows >= 0
        self._entries.expanded[self._entries.ensure(change.expanded.rows[here])] = True
        for position in np.flatnonzero(~here).tolist():
            self._absent.setdefault(change.expanded.ids[position], _Absent()).expanded = True

    def _add(self, change: Change) -> Entries:
        entries = self._entries.ensure(change.added)
        new = self._entries.standing[entries] != Standing.CANDIDATE
        fresh = entries[new]
        self._entries.standing[fresh] = Standing.CANDIDATE
        self._entries.spans[fresh] = change.version
        sources, places = np.unique(change.sources[new], return_inverse=True)  # few bring many
        self._entries.sources[fresh] = self._entries.find(sources)[places]
        self._entries.scores[fresh] = change.scores[new]
        self._entries.to_end(entries)  # a replaced item goes to the end
        self._size += len(fresh)
        self._entered += len(fresh)
        return entries

    def _know_labelled(self, row: Rows, known: _Absent) -> None:
        entry = int(self._entries.ensure(row)[0])
        self._entries.standing[entry] = Standing.LABELLED
        self._entries.expanded[entry] = known.expanded
        self._labelled[entry] = None
        if known.classes is not None:
            self._classes[entry] = known.classes
