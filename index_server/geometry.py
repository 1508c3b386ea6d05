"""Lengths, directions and scores of vectors."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from index_server.records import FloatMatrix
from index_server.spec import Metric
from sealpool.types import Vectors

_BLOCK_ROWS: Final = 8192
_FIXED_POINT: Final = 2.0**32


def lengths_of(vectors: FloatMatrix) -> NDArray[np.float64]:
    """Return the Euclidean norm of each row: (n,) float64, where squares of float32 cannot overflow."""
    lengths: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return lengths


def unit_vectors(vectors: FloatMatrix, lengths: NDArray[np.float64]) -> Vectors:
    """Return `vectors` divided by their `lengths`: (n, d) float32. Zero vectors stay zero."""
    units = np.empty(vectors.shape, np.float32)
    divisors = np.where(lengths > 0, lengths, 1.0)[:, None]
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        units[block] = vectors[block].astype(np.float64) / divisors[block]
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
        distances: NDArray[np.float32] = np.sqrt(np.einsum("qkd,qkd->qk", gaps, gaps))
        return distances
    scores: NDArray[np.float32] = np.einsum("qd,qkd->qk", queries, neighbors)
    return scores


class DirectionSum:
    """The running sum of the unit vectors of a set, from which the mean direction follows.

    Kept in fixed point (2⁻³² a unit, int64: room for 2³¹ items), because a float sum depends on the order of its terms:
    a pool that was reloaded must give bit for bit the same mean as one that lived through additions and removals.
    """

    def __init__(self, dimension: int) -> None:
        self.total = np.zeros(dimension, np.int64)

    def add(self, vectors: Vectors) -> None:
        """Add the directions of `vectors` (n, d)."""
        self.total += _fixed_point_sum(vectors)

    def merge(self, other: "DirectionSum") -> None:
        """Add another set's sum."""
        self.total += other.total

    def remove(self, vectors: Vectors) -> None:
        """Take out the directions of `vectors` (n, d), bit for bit those that were added."""
        self.total -= _fixed_point_sum(vectors)

    def mean(self, count: int, *, without: "DirectionSum") -> NDArray[np.float32]:
        """Return the mean unit vector of the `count` left without another set: (d,) float32, zero if none is left."""
        return ((self.total - without.total) / (_FIXED_POINT * max(count, 1))).astype(np.float32)


def _fixed_point_sum(vectors: Vectors) -> NDArray[np.int64]:
    total = np.zeros(vectors.shape[1], np.int64)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = vectors[start : start + _BLOCK_ROWS]
        lengths = lengths_of(block)
        scale = _FIXED_POINT / np.where(lengths > 0, lengths, 1.0)
        total += np.rint(block * scale[:, None]).astype(np.int64).sum(axis=0)
    return total
