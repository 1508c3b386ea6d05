"""Neighbours of many items in bounded memory."""

from collections.abc import Iterator
from typing import Final

from index_server.ports import Neighbourhood, Rows, Scores

BLOCK_NEIGHBORS: Final = 1 << 20
"""Neighbours asked for at once: 12 MiB. With k = 100 that is one search up to 10,000 items."""


def nearest_in_blocks(
    neighbourhood: Neighbourhood, rows: Rows, k: int, *, block_neighbors: int = BLOCK_NEIGHBORS
) -> Iterator[tuple[Rows, Rows, Scores]]:
    """Search for the neighbours of `rows`, so many at once that `block_neighbors` come back, but at least one.

    Yields
    ------
    block : (b,) int64
        The next of `rows`.
    neighbors : (b, k) int64
    scores : (b, k) float32
        As `Neighbourhood.nearest` returns them.
    """
    step = max(1, block_neighbors // k)
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        neighbors, scores = neighbourhood.nearest(block, k)
        yield block, neighbors, scores
