"""What became of lists of neighbours since they were made."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index_server.graph.lists import NONE, Keys

Scores = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ListBatch:
    """Lists of `keys` (n,) as kept: neighbours and scores (n, width), made when there were `as_of` (n,) keys."""

    keys: Keys
    neighbors: Keys
    scores: Scores
    as_of: NDArray[np.int64]

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Whether a list holds all other items there were: (n,)."""
        complete: NDArray[np.bool_] = self.neighbors[:, -1] == NONE
        return complete

    def bounds(self, sign: int) -> Scores:
        """Return the score that an item must be strictly nearer than to be surely next to a list's: (n,)."""
        return np.where(self.complete, np.float32(sign * np.inf), self.scores[:, -1])


@dataclass(frozen=True, kw_only=True)
class Merged:
    """Lists as they are now.

    Parameters
    ----------
    neighbors, scores
        (n, width), to be kept. Retired neighbours stay where a list would otherwise be short, and seem complete.
    live_neighbors, live_scores
        (n, m) with m ≥ width, the live ones of them and of what did not fit, then `NONE`.
    complete
        Whether they are all other items: (n,).
    """

    neighbors: Keys
    scores: Scores
    live_neighbors: Keys
    live_scores: Scores
    complete: NDArray[np.bool_]

    def nearest(self, k: int) -> tuple[Keys, Scores, NDArray[np.bool_]]:
        """Return the first k live neighbours, their scores, and whether that is the answer."""
        nearest = self.live_neighbors[:, :k]
        return nearest, self.live_scores[:, :k], self.complete | (nearest[:, -1] != NONE)


def merge(batch: ListBatch, tail: Keys, tail_scores: Scores, *, retired: NDArray[np.bool_], sign: int) -> Merged:
    """Take the items of the `tail` (t,), with scores (n, t), into the lists, and retired ones out.

    Of the tail counts for each list what came after it was made and is strictly nearer than its bound.
    """
    width = batch.neighbors.shape[1]
    newer = (tail >= batch.as_of[:, None]) & (tail != batch.keys[:, None])
    newer &= (sign * tail_scores < sign * batch.bounds(sign)[:, None]) | batch.complete[:, None]
    new_keys, new_scores = _packed(newer, np.broadcast_to(tail, newer.shape), tail_scores)
    neighbors = np.concatenate([batch.neighbors, new_keys], axis=1)
    scores = np.concatenate([batch.scores, new_scores], axis=1)
    order = np.lexsort((neighbors, sign * scores, neighbors == NONE), axis=-1)
    neighbors, scores = np.take_along_axis(neighbors, order, -1), np.take_along_axis(scores, order, -1)
    live = (neighbors >= 0) & ~retired[np.maximum(neighbors, 0)]
    dead = (neighbors != NONE) & ~live
    # A full list stays full: of its dead entries go as many as live ones came.
    spare = np.where(batch.complete, neighbors.shape[1], newer.sum(axis=1))
    kept = live | (dead & (np.cumsum(dead, axis=1) > spare[:, None]))
    packed, packed_scores = _packed(kept, neighbors, scores, width=width)
    live_neighbors, live_scores = _packed(live, neighbors, scores, width=width)
    return Merged(
        neighbors=packed[:, :width],
        scores=packed_scores[:, :width],
        live_neighbors=live_neighbors,
        live_scores=live_scores,
        complete=batch.complete,
    )


def _packed(chosen: NDArray[np.bool_], keys: Keys, scores: Scores, *, width: int = 0) -> tuple[Keys, Scores]:
    """Return what is `chosen` of each row, in its order, then `NONE`: as wide as needed, at least `width`."""
    counts = chosen.sum(axis=1)
    shape = (len(chosen), max(width, int(counts.max(initial=0))))
    places = np.arange(shape[1]) < counts[:, None]
    packed_keys, packed_scores = np.full(shape, NONE, np.int64), np.zeros(shape, np.float32)
    packed_keys[places], packed_scores[places] = keys[chosen], scores[chosen]
    return packed_keys, packed_scores
