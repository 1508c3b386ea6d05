"""The candidates of a campaign, held here as they are at one version of the index server's candidate pool."""

from collections.abc import Iterable, Sequence
from typing import NewType, TypeVar

import numpy as np
from numpy.typing import NDArray

from learner.draws import Keys, keys_of
from learner.index_port import CandidateUpdate
from sealpool.types import ItemId, Items, Vectors

_Number = TypeVar("_Number", bound=np.generic)

Slot = NewType("Slot", int)
"""Where a candidate lies in the arrays of a `Candidates`. Changes with every update; never leaves the learner."""

_FIRST_CAPACITY = 1024
_ENTRY_BYTES = 200
_TEXT_BYTES = 60
"""What an id with its two places, and a text beside its characters, takes, about."""
_BLOCK = 1024
"""Rows taken to float64 at once."""


class Candidates:
    """Ids and vectors of candidates in slots 0 to size − 1, in no particular order.

    Grows by doubling; the slots of removed items are taken by the last ones. One thread at a time.

    Parameters
    ----------
    with_texts
        Whether the items' texts are kept beside their vectors.
    limit_bytes
        Past which the vectors are let go: `streamed`. They are then to be read from the index server.
    """

    def __init__(self, *, with_texts: bool = False, limit_bytes: int | None = None) -> None:
        self.version = 0
        self.with_texts = with_texts
        self.streamed = False
        self._limit = limit_bytes
        self._texts: list[str] = []
        self._ids: list[ItemId] = []
        self._slot_of: dict[ItemId, Slot] = {}
        self._vectors: Vectors = np.empty((0, 0), np.float32)
        self._inverse_lengths: NDArray[np.float32] = np.empty(0, np.float32)
        self._keys: Keys = np.empty(0, np.uint64)
        self._direction_sum: NDArray[np.float64] = np.empty(0)
        self._text_bytes = 0
        self._changed: list[NDArray[np.int64]] = []

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def dimension(self) -> int:
        """Of the vectors; 0 before the first came."""
        return int(self._vectors.shape[1])

    @property
    def vectors(self) -> Vectors:
        """(n, d) float32, a view that the next update makes void. Not where `streamed`."""
        return self._vectors[: len(self)]

    @property
    def texts(self) -> Sequence[str]:
        """(n) texts, where they are kept."""
        return self._texts

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
        """(d,) float64 mean unit vector; a zero vector counts as 0. Not where `streamed`.

        In float32 its last bits would tell in what order items came.
        """
        return self._direction_sum / max(len(self), 1)

    @property
    def nbytes(self) -> int:
        """Memory of vectors and, about, of ids and texts."""
        arrays = self._vectors.nbytes + self._inverse_lengths.nbytes + self._keys.nbytes
        return arrays + _ENTRY_BYTES * len(self) + self._text_bytes

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

    def forget(self, ids: Sequence[ItemId]) -> None:
        """Drop items that the pool has lost. The index server will tell of them with the next update."""
        self._remove(ids)

    def _clear(self) -> None:
        self.streamed = False
        self._texts.clear()
        self._text_bytes = 0
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
        self._text_bytes -= sum(_TEXT_BYTES + len(self._texts[slot]) for slot in gone.tolist() if self.with_texts)
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
            if self.with_texts:
                self._texts[hole] = self._texts[mover]
        del self._ids[size:], self._texts[size:]
        for array in (self._vectors, self._inverse_lengths, self._keys):
            if len(array):  # streamed vectors have no rows
                array[holes] = array[movers]
        self._changed.append(holes)
        if not size:
            self._direction_sum[:] = 0

    def _unit_sum(self, slots: NDArray[np.int64]) -> NDArray[np.float64]:
        total = np.zeros(self._vectors.shape[1])
        if self.streamed:
            return total
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
        if not self.streamed:
            self._vectors[slots] = items.vectors
        self._put_texts(items, slots)
        self._inverse_lengths[slots] = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        self._keys[slots] = keys_of(items.ids)
        self._direction_sum += self._unit_sum(slots)
        self._changed.append(slots)

    def _put_texts(self, items: Items, slots: NDArray[np.int64]) -> None:
        if not self.with_texts:
            return
        if items.payloads is None:
            raise AssertionError("candidates came without texts")
        new = len(self) - len(self._texts)
        self._texts += [""] * new
        self._text_bytes += _TEXT_BYTES * new
        for slot, payload in zip(slots.tolist(), items.payloads, strict=True):
            self._text_bytes += len(payload.text) - len(self._texts[slot])
            self._texts[slot] = payload.text

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
        if self._limit is not None and size * dimension * 4 > self._limit:
            self.streamed = True
            self._vectors = np.empty((0, dimension), np.float32)
            self._changed.clear()
        held = len(self._keys)
        if size <= held:
            return
        # Twice as many each time, but no more than fit: one more would be let go with all the others.
        extra = max(size, min(2 * held, self._most(dimension, size)), _FIRST_CAPACITY) - held
        if not self.streamed:
            self._vectors = _with_room(self._vectors, held + extra)
        self._inverse_lengths = _with_room(self._inverse_lengths, held + extra)
        self._keys = _with_room(self._keys, held + extra)

    def _most(self, dimension: int, size: int) -> int:
        return max(size, self._limit // (4 * dimension)) if self._limit is not None else 2 * size


def _with_room(array: NDArray[_Number], rows: int) -> NDArray[_Number]:
    """Return a copy with room for `rows` rows. Room that is not written to takes no memory yet."""
    larger = np.empty((rows, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger
