"""Nearest neighbours among vectors in memory, in blocks: no n × n matrix is held."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learner.clustering import Heartbeat, nothing

_BLOCK_BYTES = 32 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Pairs of vectors close to each other, compressed by row: those of i are columns[starts[i] : starts[i + 1]].

    Parameters
    ----------
    starts
        (n + 1,) int64.
    columns
        int32, ascending within a row.
    """

    starts: NDArray[np.int64]
    columns: NDArray[np.int32]

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the columns of some rows, one row's after another's."""
        if not len(rows):
            return self.columns[:0]
        return np.concatenate([self.columns[self.starts[row] : self.starts[row + 1]] for row in rows])


def nearest_others(
    vectors: torch.Tensor, count: int, *, heartbeat: Heartbeat = nothing
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Euclidean distances and places (n, k) of each vector's k nearest others, nearest first.

    k = min(count, n − 1). Found by matrix products in float32; the distances are then taken from the differences. Cost:
    O(n²·d).
    """
    kept = min(count, len(vectors) - 1)
    distances = torch.zeros(len(vectors), max(0, kept), device=vectors.device)
    places = torch.zeros(len(vectors), max(0, kept), dtype=torch.int64, device=vectors.device)
    if kept < 1:
        return distances, places
    half_squares = vectors.square().sum(dim=1) / 2
    for rows in _blocks(len(vectors), max(len(vectors), kept * vectors.shape[1])):
        heartbeat()
        halves = torch.addmm(half_squares, vectors[rows], vectors.T, alpha=-1)
        own = torch.arange(rows.start, rows.stop, device=vectors.device)
        halves[own - rows.start, own] = torch.inf
        found = halves.topk(kept, dim=1, largest=False, sorted=False).indices.sort(dim=1).values
        away = (vectors[rows][:, None, :] - vectors[found]).square_().sum(dim=2).sqrt_()
        distances[rows], order = away.sort(dim=1, stable=True)
        places[rows] = found.gather(1, order)
    return distances, places


def most_similar(vectors: torch.Tensor, others: torch.Tensor, *, heartbeat: Heartbeat = nothing) -> torch.Tensor:
    """Return (n,) the largest dot product of each vector with the others; −∞ where there are none."""
    best = torch.full((len(vectors),), -torch.inf, device=vectors.device)
    if len(others):
        for rows in _blocks(len(vectors), len(others)):
            heartbeat()
            best[rows] = (vectors[rows] @ others.T).amax(dim=1)
    return best


def most_similar_of_another_group(
    vectors: torch.Tensor, groups: torch.Tensor, *, heartbeat: Heartbeat = nothing
) -> torch.Tensor:
    """Return (n,) the largest dot product of each vector with one of another group; −1 where there is but one group."""
    best = torch.full((len(vectors),), -1.0, device=vectors.device)
    for rows in _blocks(len(vectors), len(vectors)):
        heartbeat()
        products = vectors[rows] @ vectors.T
        best[rows] = products.masked_fill_(groups[rows][:, None] == groups, -1.0).amax(dim=1)
    return best


def pairs_within(vectors: torch.Tensor, least: float, *, limit: int, heartbeat: Heartbeat = nothing) -> Pairs | None:
    """Return all pairs whose dot product is at least `least`, each vector with itself; None if more than `limit`."""
    counts, columns, total = [np.zeros(1, np.int64)], [np.empty(0, np.int32)], 0
    for rows in _blocks(len(vectors), len(vectors)):
        heartbeat()
        close = vectors[rows] @ vectors.T >= least
        own = torch.arange(rows.start, rows.stop, device=vectors.device)
        close[own - rows.start, own] = True
        counts.append(close.sum(dim=1).cpu().numpy())
        total += int(counts[-1].sum())
        if total > limit:
            return None
        columns.append(close.nonzero()[:, 1].int().cpu().numpy())
    return Pairs(starts=np.cumsum(np.concatenate(counts)), columns=np.concatenate(columns))


def _blocks(count: int, width: int) -> list[slice]:
    step = max(1, _BLOCK_BYTES // (4 * max(1, width)))
    return [slice(at, min(at + step, count)) for at in range(0, count, step)]
