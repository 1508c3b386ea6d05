"""Which rows of an engine may be found."""

import numpy as np
from numpy.typing import NDArray

from index_server.ports import Rows

Bits = NDArray[np.uint8]
"""A bit a row, the lowest of a byte first, as FAISS's IDSelectorBitmap reads them."""


class RowMask:
    """Which rows are not removed, one bit each."""

    def __init__(self) -> None:
        self._bits = np.zeros(0, np.uint8)
        self.size = 0
        self.removed = 0

    def append(self, count: int) -> None:
        """Add `count` rows, marked as removed until they are revealed."""
        needed = (self.size + count + 7) // 8
        if needed > len(self._bits):
            grown = np.zeros(max(needed, len(self._bits) * 3 // 2), np.uint8)
            grown[: len(self._bits)] = self._bits
            self._bits = grown
        self.size += count
        self.removed += count

    def reveal(self, rows: Rows) -> None:
        """Mark rows, each given once, as not removed."""
        self.removed -= len(rows) - len(self._kept(rows))
        _set(self._bits, rows)

    def remove(self, rows: Rows) -> None:
        """Mark rows as removed."""
        rows = np.unique(rows)
        self.removed += len(self._kept(rows))
        _clear(self._bits, rows)

    def contains(self, rows: Rows) -> NDArray[np.bool_]:
        """Say which of `rows`, all of them added, are not removed."""
        return selected(self._bits, rows)

    def without(self, excluded: Rows | None) -> tuple[Bits | None, int]:
        """Return the bits less `excluded` (None if every row counts), and how many rows count."""
        left = self.size - self.removed
        if excluded is not None and len(excluded):
            kept = self._kept(np.unique(excluded))
            if len(kept):
                bits = self._bits.copy()
                _clear(bits, kept)
                return bits, left - len(kept)
        return (self._bits if self.removed else None), left

    @property
    def nbytes(self) -> int:
        """Memory used."""
        return self._bits.nbytes

    def _kept(self, rows: Rows) -> Rows:
        kept: Rows = rows[selected(self._bits, rows)]
        return kept


def selected(bits: Bits | None, rows: Rows) -> NDArray[np.bool_]:
    """Say which of `rows` (any shape) have their bit set, all under None; −1 never has."""
    if bits is None:
        return rows >= 0
    kept: NDArray[np.bool_] = (rows >= 0) & ((bits[rows >> 3] >> (rows & 7).astype(np.uint8)) & 1 == 1)
    return kept


def _set(bits: Bits, rows: Rows) -> None:
    np.bitwise_or.at(bits, rows >> 3, np.left_shift(1, rows & 7).astype(np.uint8))


def _clear(bits: Bits, rows: Rows) -> None:
    np.bitwise_and.at(bits, rows >> 3, (255 - np.left_shift(1, rows & 7)).astype(np.uint8))
