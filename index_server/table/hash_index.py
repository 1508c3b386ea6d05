"""A hash table from hashes to small numbers, in one NumPy array."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint32]
Numbers = NDArray[np.int64]

MAX_NUMBERS: Final = 2**32 - 1
_MAX_LOAD: Final = 0.75
_GROWTH: Final = 1.5
_MIN_SLOTS: Final = 256
_REMOVED: Final = np.uint64(1 << 32)
"""A hash without a number, whereas an empty slot is 0."""
_HASH_SHIFT: Final = np.uint64(32)
_NUMBER_MASK: Final = np.uint64(0xFFFFFFFF)


class HashIndex:
    """Finds the numbers (0 … 2³² − 2) that were put in under a 32-bit hash. What a number stands for, the owner knows.

    Open addressing with linear probing. A slot holds hash and number in 8 bytes; half to three quarters of the slots
    are taken, so a number takes 11 to 16 bytes. The slot of a removed number is used again by the next that passes, so
    that a number which is replaced under its hash again and again leaves no trail to be walked.

    Threads: reads by many at once, `insert` and `remove` by one, while nobody reads.
    """

    def __init__(self, *, expected: int = 0) -> None:
        self._slots = np.zeros(_slots_for(expected), np.uint64)
        self._taken = 0
        """Slots that are not empty, those of removed numbers too."""

    @property
    def nbytes(self) -> int:
        """Memory used."""
        return self._slots.nbytes

    def insert(self, hashes: Hashes, numbers: Numbers) -> None:
        """Put in `numbers` (n,) under `hashes` (n,), also where others are under the same."""
        count = self._taken + len(hashes)
        if count > _MAX_LOAD * len(self._slots):
            before = self._slots[self._slots & _NUMBER_MASK != 0]
            count = len(before) + len(hashes)
            if count > _MAX_LOAD * len(self._slots) / _GROWTH:
                self._slots = np.zeros(max(_slots_for(count), int(_GROWTH * len(self._slots))), np.uint64)
            else:
                self._slots.fill(0)  # most were removed
            self._taken = self._place(before)
        self._taken += self._place(_entries(hashes, numbers))

    def remove(self, hashes: Hashes, numbers: Numbers) -> None:
        """Take out `numbers` (n,) that were put in under `hashes` (n,); one that is not there is passed over."""
        entries = _entries(hashes, numbers)
        slots = self._home(hashes.astype(np.uint64))
        while len(entries):
            there = self._slots[slots] == entries
            self._slots[slots[there]] = _REMOVED
            on = ~there & (self._slots[slots] != 0)
            entries, slots = entries[on], (slots[on] + 1) % len(self._slots)

    def find(self, hashes: Hashes, matches: Callable[[Numbers, Numbers], NDArray[np.bool_]]) -> Numbers:
        """Return for each of `hashes` (n,) the number under it that `matches`, −1 where there is none.

        `matches(positions, numbers)` says for pairs of a position in `hashes` and a number whether that is the one.
        """
        found = np.full(len(hashes), -1, np.int64)
        positions = np.arange(len(hashes))
        wanted = hashes.astype(np.uint64)
        slots = self._home(wanted)
        while len(positions):
            entries = self._slots[slots]
            alike = np.flatnonzero((entries >> _HASH_SHIFT == wanted) & (entries & _NUMBER_MASK != 0))
            if len(alike):
                numbers = (entries[alike] & _NUMBER_MASK).astype(np.int64) - 1
                right = matches(positions[alike], numbers)
                found[positions[alike[right]]] = numbers[right]
            on = (entries != 0) & (found[positions] < 0)
            positions, wanted = positions[on], wanted[on]
            slots = (slots[on] + 1) % len(self._slots)
        return found

    def _home(self, hashes: NDArray[np.uint64]) -> Numbers:
        return ((hashes * np.uint64(len(self._slots))) >> _HASH_SHIFT).astype(np.int64)

    def _place(self, entries: NDArray[np.uint64]) -> int:
        """Put entries into slots, and return how many of these were empty before."""
        taken, slots = 0, self._home(entries >> _HASH_SHIFT)
        while len(entries):
            before = self._slots[slots]
            free = before & _NUMBER_MASK == 0
            self._slots[slots[free]] = entries[free]
            # Where several wanted one slot, the last write has it. No two entries are equal: numbers differ.
            on = self._slots[slots] != entries
            taken += int((before[~on] == 0).sum())
            entries = entries[on]
            slots = (slots[on] + 1) % len(self._slots)
        return taken


def _entries(hashes: Hashes, numbers: Numbers) -> NDArray[np.uint64]:
    entries: NDArray[np.uint64] = (hashes.astype(np.uint64) << _HASH_SHIFT) | (numbers + 1).astype(np.uint64)
    return entries


def _slots_for(count: int) -> int:
    return max(_MIN_SLOTS, int(count / _MAX_LOAD) + 1)
