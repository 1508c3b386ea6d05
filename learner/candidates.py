"""The candidates of a campaign, held here as they are at one version of the index server's candidate pool."""

from collections.abc import Iterable, Sequence
from typing import NewType

import numpy as np
from numpy.typing import NDArray

from learner.draws import Keys, keys_of
from learner.ports import CandidateUpdate
from sealpool.types import ItemId, Items, Vectors

Slot = NewType("Slot", int)
"""Where a candidate lies in the arrays of a `Candidates`. Changes with every update; never leaves the learner."""

_FIRST_CAPACITY = 1024
_BLOCK = 8192
"""Rows taken to float64 at once."""


class Candidates:
    """Ids and vectors of candidates in slots 0 to size − 1, in no particular order.

    Grows by doubling; the slots of removed items are taken by the last ones. One thread at a time.
    """

    def __init__(self) -> None:
        self.version = 0
        self._ids: list[ItemId] = []
        self._slot_of: dict[ItemId, Slot] = {}
        self._vectors: Vectors = np.empty((0, 0), np.float32)
        self._inverse_lengths: NDArray[np.float32] = np.empty(0, np.float32)
        self._keys: Keys = np.empty(0, np.uint64)
        self._direction_sum: NDArray[np.float64] = np.empty(0)
        self._changed: list[NDArray[np.int64]] = []

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def vectors(self) -> Vectors:
        """(n, d) float32, a view that the next update makes void."""
        return self._vectors[: len(self)]

    @property
    def inverse_lengths(self) -> NDArray[np.float32]:
        """(n,) float32: 1 / length of each vector, 0 for a zero vector."""
        return self._inverse_lengths[: len(self)]

    @property
    def keys(self) -> Keys:
        """(n,) uint64: learner.draws.keys_of the ids."""
        return self._keys[: len(self)]

    @property
    def direction(self) -> NDArray[np.float64]:
        """(d,) float64 mean unit vector; a zero vector counts as 0.

        In float32 its last bits would tell in what order items came.
        """
        return self._direction_sum / max(len(self), 1)

    @property
    def nbytes(self) -> int:
        """Memory of vectors and, about, of ids."""
        return self._vectors.nbytes + self._inverse_lengths.nbytes + self._keys.nbytes + 200 * len(self)

    def id_at(self, slot: Slot) -> ItemId:
        """Return the item that lies in a slot now."""
        return self._ids[slot]

    def slots_of(self, ids: Iterable[ItemId]) -> NDArray[np.int64]:
        """Return the slots of those of `ids` that are candidates."""
        found = [self._slot_of[item_id] for item_id in ids if item_id in self._slot_of]
        return np.array(found, np.int64)

    def take_changed_slots(self) -> NDArray[np.int64]:
        """Return the slots written since the last call of this, ascending. For a copy on another device."""
        changed, self._changed = self._changed, []
        slots = np.unique(np.concatenate(changed)) if changed else np.empty(0, np.int64)
        return slots[slots < len(self)]

    def apply(self, update: CandidateUpdate) -> None:
        """Go to the update's version. A base version of 0 voids what was held."""
        if update.base_version == 0:
            self._clear()
        # Removed first: an item that left and came back within the difference is in both lists.
        self._remove(update.removed)
        self._put(update.added)
        self.version = update.info.version

    def _clear(self) -> None:
        self._ids.clear()
        self._slot_of.clear()
        self._vectors = np.empty((0, 0), np.float32)
        self._inverse_lengths = np.empty(0, np.float32)
        self._keys = np.empty(0, np.uint64)
        self._direction_sum = np.empty(0)

    def _remove(self, ids: Sequence[ItemId]) -> None:
        gone = np.unique(self.slots_of(ids))
        if not len(gone):
            return
        self._direction_sum -= self._unit_sum(gone)
        size = len(self) - len(gone)
        for slot in gone.tolist():
            del self._slot_of[self._ids[slot]]
        # What stays beyond the new end moves into the holes below it, of which there are as many.
        holes = gone[gone < size]
        movers = np.setdiff1d(np.arange(size, len(self)), gone, assume_unique=True)
        for hole, mover in zip(holes.tolist(), movers.tolist(), strict=True):
            item_id = self._ids[mover]
            self._ids[hole] = item_id
            self._slot_of[item_id] = Slot(hole)
        del self._ids[size:]
        for array in (self._vectors, self._inverse_lengths, self._keys):
            array[holes] = array[movers]
        self._changed.append(holes)
        if not size:
            self._direction_sum[:] = 0

    def _unit_sum(self, slots: NDArray[np.int64]) -> NDArray[np.float64]:
        total = np.zeros(self._vectors.shape[1])
        for start in range(0, len(slots), _BLOCK):
            block = slots[start : start + _BLOCK]
            total += self._inverse_lengths[block].astype(np.float64) @ self._vectors[block].astype(np.float64)
        return total

    def _put(self, items: Items) -> None:
        if not len(items):
            return
        if items.vectors is None:
            raise AssertionError("candidates came without vectors")
        self._reserve(len(self) + len(items), items.vectors.shape[1])
        replaced = self.slots_of(items.ids)
        self._direction_sum -= self._unit_sum(replaced)
        slots = np.fromiter((self._slot_for(item_id) for item_id in items.ids), np.int64, len(items))
        lengths = np.sqrt(np.einsum("ij,ij->i", items.vectors, items.vectors, dtype=np.float64))
        self._vectors[slots] = items.vectors
        self._inverse_lengths[slots] = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        self._keys[slots] = keys_of(items.ids)
        self._direction_sum += self._unit_sum(slots)
        self._changed.append(slots)

    def _slot_for(self, item_id: ItemId) -> Slot:
        slot = self._slot_of.get(item_id)
        if slot is None:
            slot = self._slot_of[item_id] = Slot(len(self._ids))
            self._ids.append(item_id)
        return slot

    def _reserve(self, size: int, dimension: int) -> None:
        if self._vectors.shape[1] != dimension:  # the first items; later ones come from the same pool
            self._vectors = np.empty((0, dimension), np.float32)
            self._direction_sum = np.zeros(dimension)
        held = len(self._vectors)
        if size <= held:
            return
        extra = max(size, 2 * held, _FIRST_CAPACITY) - held
        self._vectors = np.concatenate([self._vectors, np.empty((extra, dimension), np.float32)])
        self._inverse_lengths = np.concatenate([self._inverse_lengths, np.empty(extra, np.float32)])
        self._keys = np.concatenate([self._keys, np.empty(extra, np.uint64)])
