"""Nearest neighbours, of vectors in memory or among all candidates, in blocks: no n × n matrix is held."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learner.clustering import Heartbeat, nothing
from learner.ports import CandidateView

_BLOCK_BYTES = 32 << 20
_SIMILARITIES_TOGETHER = 1 << 23  # float32: 32 MB
_PAIRS_TOGETHER = 1 << 21


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
        found = close.cpu().numpy()
        counts.append(np.count_nonzero(found, axis=1))  # torch's sum of bools takes half as long as the products
        total += int(counts[-1].sum())
        if total > limit:
            return None
        step = max(1, _PAIRS_TOGETHER // len(vectors))  # what is found takes eight bytes a pair until it is int32
        columns += [np.nonzero(found[at : at + step])[1].astype(np.int32) for at in range(0, len(found), step)]
    return Pairs(starts=np.cumsum(np.concatenate(counts)), columns=np.concatenate(columns))


def unit_rows(vectors: torch.Tensor) -> torch.Tensor:
    """Return vectors (n, d) at length 1; zero ones stay zero."""
    lengths = vectors.norm(dim=1, keepdim=True)
    return torch.where(lengths > 0, vectors / lengths.clamp_min(1e-30), torch.zeros_like(vectors))


def nearest_candidates(
    view: CandidateView, queries: torch.Tensor, count: int, own: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows (q, k) and similarities (q, k) of the k = min(count, n) candidates nearest to each query.

    Parameters
    ----------
    queries
        (q, d) of length 1 or 0.
    own
        (q,) rows of the queries themselves, which are not their own neighbours; k is at most n − 1 then.
    """
    together = max(0, min(count, len(view) - (own is not None)))
    best = torch.full((len(queries), 0), -2.0, device=view.device)
    rows = torch.empty(len(queries), 0, dtype=torch.int64, device=view.device)
    own_rows = None if own is None else torch.from_numpy(own).to(view.device)
    if len(queries) == 0:
        return np.empty((0, together), np.int64), np.empty((0, together), np.float32)
    step = max(1, _SIMILARITIES_TOGETHER // len(queries))
    for block, context in view.blocks():
        units = unit_rows(context.vectors)
        for start in range(0, len(units), step):
            similarities = queries @ units[start : start + step].T
            first = block.start + start
            if own_rows is not None:
                inside = (own_rows >= first) & (own_rows < first + similarities.shape[1])
                query, place = inside.nonzero(as_tuple=True)[0], (own_rows[inside] - first)
                similarities[query, place] = -2.0
            best, rows = _merged(best, rows, similarities, first, together)
    return rows.cpu().numpy(), best.clamp_min(0).cpu().numpy()


def _merged(
    best: torch.Tensor, rows: torch.Tensor, similarities: torch.Tensor, first: int, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `count` best of what was best (q, k) and of one more block (q, s), whose rows begin at `first`.

    Once k are known, most queries find nothing better in a block; only the others are sorted.
    """
    if best.shape[1] < count:
        changed = torch.arange(len(best), device=best.device)
        kept = min(count, best.shape[1] + similarities.shape[1])
        merged = torch.empty(len(best), kept, device=best.device)
        places = torch.empty(len(best), kept, dtype=torch.int64, device=best.device)
    else:
        if count == 0:
            return best, rows
        changed = (similarities.amax(dim=1) > best[:, -1]).nonzero()[:, 0]
        merged, places = best, rows
    if len(changed):
        found = similarities[changed].topk(min(count, similarities.shape[1]), dim=1)
        values = torch.cat([best[changed], found.values], dim=1)
        numbers = torch.cat([rows[changed], found.indices + first], dim=1)
        values, order = values.sort(dim=1, descending=True, stable=True)
        merged[changed] = values[:, :count]
        places[changed] = numbers.gather(1, order[:, :count])
    return merged, places


def _blocks(count: int, width: int) -> list[slice]:
    step = max(1, _BLOCK_BYTES // (4 * max(1, width)))
    return [slice(at, min(at + step, count)) for at in range(0, count, step)]
