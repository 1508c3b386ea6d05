"""The vectors that are measured on, made anew from a seed wherever they are needed."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from sealpool.types import ItemId, Vectors

ITEMS_A_CENTRE: Final = 1000
"""So a million items have 1,000 centres, and pools of other sizes are as dense: with fewer items to a centre than
neighbours asked for, the last neighbours would be any of other clusters, which no index finds cheaply."""
SPREAD: Final = 1.0
"""Standard deviation about a centre, where the centres' own is 1: clusters overlap, and neighbours are not trivial."""
_BLOCK_ROWS: Final = 65_536


def gaussian_mixture(items: int, dimension: int, *, seed: int = 0) -> Vectors:
    """Return unit vectors (items, dimension) float32 of a mixture of Gaussians, ITEMS_A_CENTRE of each in the mean."""
    count = max(1, round(items / ITEMS_A_CENTRE))
    # Never default_rng(seed) and default_rng([seed, 0]) beside each other: NumPy makes them the same stream.
    centres = np.random.default_rng([seed, 1]).standard_normal((count, dimension), np.float32)
    vectors = np.empty((items, dimension), np.float32)
    for start in range(0, items, _BLOCK_ROWS):
        rows = min(_BLOCK_ROWS, items - start)
        random = np.random.default_rng([seed, 2, start])
        block = SPREAD * random.standard_normal((rows, dimension), np.float32)
        block += centres[random.integers(0, count, rows)]
        vectors[start : start + rows] = to_unit(block)
    return vectors


def tiled(base: Vectors, items: int, *, noise: float, seed: int = 0) -> Vectors:
    """Return `items` unit vectors: those of `base` (unit vectors), again and again, each copy with noise of its own.

    The first copy is as it is. `noise` is the length of what is added to a vector of length 1, in the mean.
    """
    vectors = np.resize(base, (items, base.shape[1]))
    scale = np.float32(noise / np.sqrt(base.shape[1]))
    # A stream of its own: noise drawn as `base` was would only make its vectors longer.
    random = np.random.default_rng([seed, 3])
    for start in range(len(base), items, _BLOCK_ROWS):
        block = vectors[start : start + _BLOCK_ROWS]
        block += scale * random.standard_normal(block.shape, np.float32)
        vectors[start : start + _BLOCK_ROWS] = to_unit(block)
    return vectors


def random_projection(vectors: Vectors, dimension: int, *, seed: int = 0) -> Vectors:
    """Return `vectors` in the first `dimension` axes of a random orthogonal basis, made unit length again."""
    square = np.random.default_rng(seed).standard_normal((vectors.shape[1], vectors.shape[1]))
    basis = np.linalg.qr(square)[0][:, :dimension].astype(np.float32)
    return to_unit(vectors @ basis)


def to_unit(vectors: Vectors) -> Vectors:
    """Return vectors of length 1."""
    units: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units


def item_ids(items: int) -> list[ItemId]:
    """Return ids as people have them: not the row's number alone, and not in an order that helps."""
    return [ItemId(f"item-{row * 7_919 % 1_000_003:07d}-{row:08x}") for row in range(items)]


def draws(items: int, count: int, times: int, *, seed: int = 0) -> list[list[int]]:
    """Return `times` draws of `count` different rows each; no row is in two draws while there are enough."""
    rows = np.random.default_rng(seed).permutation(items)
    return [
        np.take(rows, range(start, start + count), mode="wrap").tolist() for start in range(0, times * count, count)
    ]


def ids_of(ids: Sequence[ItemId], rows: Sequence[int]) -> list[ItemId]:
    """Return the ids at `rows`."""
    return [ids[row] for row in rows]
