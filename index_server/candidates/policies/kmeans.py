"""k-means++ seeding: some items of a set that lie far from one another."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sealpool.types import Vectors

_BLOCK_ROWS: Final = 8192


def seed_positions(vectors: Vectors, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw up to `count` of `vectors` (n, d), the first uniformly and each other by its squared distance to the drawn.

    The D² sampling of Arthur and Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007, in float64.

    Returns
    -------
    (m,) int64: positions in the order drawn. Fewer than `count` where the vectors, equal ones counted once, are fewer:
    a copy of a drawn vector has distance 0 and is never drawn.
    """
    if not len(vectors):
        return np.empty(0, np.int64)
    drawn = [int(rng.integers(len(vectors)))]
    squares = _squared_distances(vectors, drawn[0])
    while len(drawn) < count and (total := squares.sum()) > 0:
        drawn.append(int(rng.choice(len(vectors), p=squares / total)))
        np.minimum(squares, _squared_distances(vectors, drawn[-1]), out=squares)
    return np.array(drawn, np.int64)


def _squared_distances(vectors: Vectors, position: int) -> NDArray[np.float64]:
    center = vectors[position].astype(np.float64)
    squares = np.empty(len(vectors))
    for start in range(0, len(vectors), _BLOCK_ROWS):
        gaps = vectors[start : start + _BLOCK_ROWS] - center
        np.einsum("nd,nd->n", gaps, gaps, out=squares[start : start + _BLOCK_ROWS])
    return squares
