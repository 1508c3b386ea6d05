"""Nearest neighbours out of the graph where it knows them, and by searching where it does not."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from index_server.graph.lists import NONE, Keys
from index_server.graph.merging import ListBatch, merge
from index_server.graph.neighbour_graph import NeighbourGraph
from sealpool.errors import ResourceExhausted

Scores = NDArray[np.float32]
Search = Callable[[Keys, int], tuple[Keys, Scores]]
"""The k nearest live items of each of some keys, itself left out: neighbours and scores, each (n, k), nearest first and
equal ones by key, −1 where there are fewer."""
ScoreTail = Callable[[Keys, Keys, Scores], Scores]
"""The scores of keys (n,) with items of the tail (t,): (n, t). The third is a bound for each key (n,): of pairs that
are not strictly nearer than it, any score will do that is not either."""


class GraphSearch:
    """Answers as the search would, from what the graph keeps.

    A list tells the nearest of the items that were there when it was made: what is not in it is not nearer than its
    last entry. Since then items went, and leave the list; others came, the *tail*, and take their place in it if they
    are strictly nearer than that entry (on a tie the older item comes first, and one may be unlisted). What is left
    is the beginning of the true list. If it is at least k long, or the list held all items, it is the answer;
    otherwise the item is searched anew. Either way the list is kept again. So answers are those of the search, if the
    search is exact; with one that is not, those of the moment when the list was made.

    Threads: many at once, each holding the pool as it is: no `apply` from the call's beginning to its end.

    Parameters
    ----------
    max_tail
        Items that came since a list was made, above which it is searched anew. Scoring them costs n·t products.
    """

    def __init__(
        self, graph: NeighbourGraph, *, search: Search, score_tail: ScoreTail, higher_is_nearer: bool, max_tail: int
    ) -> None:
        self._graph = graph
        self._search = search
        self._score_tail = score_tail
        self._sign = -1 if higher_is_nearer else 1
        self._max_tail = max_tail
        self.disk_full: ResourceExhausted | None = None
        """Why the last list that was found could not be kept; None if it was. The answers do not depend on it."""

    def nearest(self, keys: Keys, k: int) -> tuple[Keys, Scores]:
        """Return the k nearest live items of `keys` (n,), live ones and none twice, nearest first.

        Returns
        -------
        neighbors : (n, k) int64
            −1 where there are fewer.
        scores : (n, k) float32
            0 where there is no neighbour.
        """
        if k > self._graph.neighbors:
            return self._search(keys, k)
        neighbors, scores = np.full((len(keys), k), NONE, np.int64), np.zeros((len(keys), k), np.float32)
        listed, kept, as_of = self._graph.lists.look_up(keys)
        if (as_of == 0).any():
            self._graph.lists.forget_damaged(keys[as_of == 0])
        usable = np.flatnonzero((as_of > 0) & (as_of >= oldest_usable(self._graph, self._max_tail)))
        answered = np.zeros(len(keys), np.bool_)
        if len(usable):
            batch = ListBatch(keys=keys[usable], neighbors=listed[usable], scores=kept[usable], as_of=as_of[usable])
            neighbors[usable], scores[usable], answered[usable] = self._from_lists(batch, k)
        rest = np.flatnonzero(~answered)
        if len(rest):
            found, found_scores = self.find(keys[rest])
            neighbors[rest], scores[rest] = found[:, :k], found_scores[:, :k]
        return neighbors, np.where(neighbors < 0, np.float32(0), scores)

    def find(self, keys: Keys) -> tuple[Keys, Scores]:
        """Search whole lists of `keys` anew, and keep them if the disk has room."""
        found, scores = self._search(keys, self._graph.lists.width)
        self._keep(keys, found, scores)
        return found, scores

    def _from_lists(self, batch: ListBatch, k: int) -> tuple[Keys, Scores, NDArray[np.bool_]]:
        """Return neighbours and scores (n, k), and for which keys they are right."""
        oldest = int(batch.as_of.min())
        tail = self._graph.live_keys(oldest)
        tail_scores = (
            self._score_tail(batch.keys, tail, batch.bounds(self._sign))
            if len(tail)
            else np.empty((len(batch.keys), 0), np.float32)
        )
        merged = merge(batch, tail, tail_scores, retired=self._graph.retired, sign=self._sign)
        outdated = np.flatnonzero(batch.as_of < self._graph.key_count)
        self._keep(batch.keys[outdated], merged.neighbors[outdated], merged.scores[outdated])
        return merged.nearest(k)

    def _keep(self, keys: Keys, neighbors: Keys, scores: Scores) -> None:
        try:
            self._graph.lists.put(keys, neighbors, scores, self._graph.key_count)
        except ResourceExhausted as error:
            self.disk_full = error
        else:
            self.disk_full = None


def oldest_usable(graph: NeighbourGraph, max_tail: int) -> int:
    """Return the smallest `as_of` after which at most `max_tail` live items came."""
    last = graph.last_live_keys(max_tail + 1)
    return int(last[0]) + 1 if len(last) > max_tail else 1
