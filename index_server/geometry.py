"""Lengths, directions and scores of vectors."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from index_server.records import FloatMatrix
from index_server.spec import Metric
from sealpool.types import Vectors

_BLOCK_ROWS: Final = 512
_STEPS: Final = 2.0**20
"""Steps to one, of the fixed point in which directions are summed."""
_EXACT_TERMS: Final = 16
"""So many numbers of up to 2²⁰ steps have a sum below 2²⁴, which float32 holds exactly, whatever their order."""
_SAFE_SQUARES: Final = (1e-30, 1e30)
"""Between these a float32 sum of squares has lost nothing to overflow or underflow."""


def lengths_of(vectors: FloatMatrix) -> NDArray[np.float64]:
    """Return the Euclidean norm of each row: (n,) float64.

    Summed in float32, which is three times faster, but where squares are so large or small that they would suffer.
    """
    single = vectors.astype(np.float32, copy=False)
    with np.errstate(over="ignore", under="ignore"):
        squares = np.vecdot(single, single).astype(np.float64)
    low, high = _SAFE_SQUARES
    delicate = np.flatnonzero(~((squares > low) & (squares < high)))
    if len(delicate):
        squares[delicate] = np.einsum("ij,ij->i", single[delicate], single[delicate], dtype=np.float64)
    lengths: NDArray[np.float64] = np.sqrt(squares)
    return lengths


def unit_vectors(vectors: FloatMatrix, lengths: NDArray[np.float64], *, out: Vectors | None = None) -> Vectors:
    """Return `vectors` divided by their `lengths`: (n, d) float32, in `out` if given. Zero vectors stay zero."""
    single = vectors.astype(np.float32, copy=False)
    low, high = _SAFE_SQUARES
    safe = (lengths**2 > low) & (lengths**2 < high)
    factors = (1 / np.where(safe, lengths, 1.0)).astype(np.float32)
    units: Vectors = np.multiply(single, factors[:, None], out=out)
    delicate = np.flatnonzero(~safe & (lengths > 0))
    if len(delicate):
        units[delicate] = single[delicate].astype(np.float64) / lengths[delicate, None]
    return units


def pair_scores(metric: Metric, queries: Vectors, neighbors: Vectors) -> NDArray[np.float32]:
    """Return the score of each query with each of its own neighbours.

    Equal vectors get equal scores wherever they stand, which neither a matrix product nor FAISS promises: both round
    by the place in the block.

    Parameters
    ----------
    queries
        (q, d), unit vectors under cosine.
    neighbors
        (q, k, d), the same.

    Returns
    -------
    (q, k) float32: similarities, or Euclidean distances under L2.
    """
    if metric is Metric.L2:
        gaps = neighbors - queries[:, None, :]
        distances: NDArray[np.float32] = np.sqrt(np.vecdot(gaps, gaps))
        return distances
    scores: NDArray[np.float32] = np.vecdot(neighbors, queries[:, None, :])
    return scores


class DirectionSum:
    """The running sum of the directions of a set of vectors, from which the mean direction follows.

    Kept in fixed point (2⁻²⁰ a step, summed in int64), because a float sum depends on the order of its terms: a pool
    that was reloaded must give bit for bit the same mean as one that lived through additions and removals. A step's
    rounding is below that of float32 as soon as two dozen vectors are in the mean.
    """

    def __init__(self, dimension: int, *, metric: Metric) -> None:
        self.total = np.zeros(dimension, np.int64)
        self._metric = metric

    def add(self, vectors: Vectors) -> None:
        """Add the directions of `vectors` (n, d), which under cosine are unit vectors."""
        self.total += self._sum(vectors)

    def merge(self, other: "DirectionSum") -> None:
        """Add another set's sum."""
        self.total += other.total

    def remove(self, vectors: Vectors) -> None:
        """Take out the directions of `vectors` (n, d), bit for bit those that were added."""
        self.total -= self._sum(vectors)

    def mean(self, count: int, *, without: "DirectionSum") -> NDArray[np.float32]:
        """Return the mean unit vector of the `count` left without another set: (d,) float32, zero if none is left."""
        return ((self.total - without.total) / (_STEPS * max(count, 1))).astype(np.float32)

    def _sum(self, vectors: Vectors) -> NDArray[np.int64]:
        total = np.zeros(vectors.shape[1], np.int64)
        # One piece of memory for all blocks, small enough for the cache: taking it anew takes longer than the sum.
        room = np.empty((min(_BLOCK_ROWS, len(vectors)), vectors.shape[1]), np.float32)
        for start in range(0, len(vectors), _BLOCK_ROWS):
            block = vectors[start : start + _BLOCK_ROWS]
            steps = room[: len(block)]
            units = block if self._metric is Metric.COSINE else unit_vectors(block, lengths_of(block), out=steps)
            np.multiply(units, np.float32(_STEPS), out=steps)
            np.rint(steps, out=steps)
            whole = len(steps) // _EXACT_TERMS * _EXACT_TERMS
            partial = steps[:whole].reshape(_EXACT_TERMS, -1, steps.shape[1]).sum(axis=0)
            total += partial.astype(np.int64).sum(axis=0) + steps[whole:].astype(np.int64).sum(axis=0)
        return total
