"""Finds the lists of all items, a few at a time."""

import numpy as np

from index_server.graph.lists import Keys
from index_server.graph.neighbour_graph import NeighbourGraph
from index_server.graph.search import GraphSearch, oldest_usable

_BLOCK_KEYS = 1 << 16


class GraphBuilder:
    """Fills a graph from where it stands, whatever was built before: what is known is on disk.

    Lists too old to be used are found anew as well.

    Threads: one, holding the pool as it is during `step`.
    """

    def __init__(self, graph: NeighbourGraph, search: GraphSearch, *, max_tail: int) -> None:
        self._graph = graph
        self._search = search
        self._max_tail = max_tail
        self._next = 0

    def step(self, batch: int) -> int:
        """Find at most `batch` lists in one search; return how many, 0 when all are known.

        Raises
        ------
        ResourceExhausted
            The disk is full.
        """
        keys = self._due(batch)
        if len(keys):
            self._search.find(keys)
            if self._search.disk_full is not None:
                raise self._search.disk_full
        return len(keys)

    def _due(self, batch: int) -> Keys:
        """Return the next keys to find, going round once from where the last step ended."""
        oldest, count = oldest_usable(self._graph, self._max_tail), self._graph.key_count
        start = self._next if self._next < count else 0
        found: list[Keys] = []
        for first, last in ((start, count), (0, start)):
            for block in range(first, last, _BLOCK_KEYS):
                end = min(block + _BLOCK_KEYS, last)
                due = (self._graph.lists.as_of(block, end) < oldest) & ~self._graph.retired[block:end]
                found.append(np.flatnonzero(due)[: batch - sum(map(len, found))] + block)
                if sum(map(len, found)) == batch:
                    self._next = int(found[-1][-1]) + 1
                    return np.concatenate(found)
        return np.concatenate(found) if found else np.empty(0, np.int64)
