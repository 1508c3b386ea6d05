"""Nearest neighbours by comparing with every vector, in NumPy and within bounded memory."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index_server.geometry import pair_scores
from index_server.ports import Rows
from index_server.spec import Metric
from sealpool.types import Vectors

BLOCK_BYTES: Final = 16 << 20

Reader = Callable[[Rows], Vectors]
"""Returns the vectors of rows: (n, d)."""


def exact_top(
    queries: Vectors,
    k: int,
    *,
    metric: Metric,
    size: int,
    read: Reader,
    kept: Callable[[Rows], NDArray[np.bool_]],
    own: Rows | None = None,
    reading: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> tuple[Rows, NDArray[np.float32]]:
    """Return the k nearest of rows 0 … `size` − 1 for each query, as `Engine.search` does, by float32 matrix products.

    Memory: 16 MiB of vectors at a time, and a score for each of them and each query.

    Parameters
    ----------
    queries
        (q, d).
    kept
        Says which rows count.
    own
        (q,), for each query a row that is left out of its answer.
    reading
        Held while one block of vectors is read, and not while it is compared.
    """
    sign = _sign(metric)
    best = np.full((len(queries), k), -1, np.int64)
    keys = np.full((len(queries), k), np.inf, np.float32)
    step = max(1, BLOCK_BYTES // (4 * queries.shape[1]))
    for start in range(0, size, step):
        rows = np.arange(start, min(start + step, size))
        with reading():
            rows = rows[kept(rows)]
            vectors = read(rows)
        found = sign * block_scores(metric, queries, vectors)
        if own is not None:
            found[rows[None, :] == own[:, None]] = np.inf
        best, keys = _merged(best, keys, rows, found, k)
    best[np.isinf(keys)] = -1
    return best, np.where(best < 0, np.float32(0), sign * keys)


def block_scores(metric: Metric, queries: Vectors, vectors: Vectors) -> NDArray[np.float32]:
    """Return the score of each query (q, d) with each of `vectors` (n, d): (q, n), squared distances under L2."""
    products: NDArray[np.float32] = queries @ vectors.T
    if metric is not Metric.L2:
        return products
    ours, theirs = np.einsum("qd,qd->q", queries, queries), np.einsum("nd,nd->n", vectors, vectors)
    squares: NDArray[np.float32] = np.maximum(ours[:, None] - 2 * products + theirs, 0)
    return squares


def rescored(
    queries: Vectors, k: int, candidates: Rows, *, metric: Metric, read: Reader
) -> tuple[Rows, NDArray[np.float32]]:
    """Return the k nearest of each query's `candidates` (q, c), −1 for none among them, by their true distances."""
    rows = np.full((len(queries), k), -1, np.int64)
    scores = np.zeros((len(queries), k), np.float32)
    width = candidates.shape[1]
    step = max(1, BLOCK_BYTES // (4 * width * queries.shape[1]))
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        found = candidates[block]
        neighbors = read(np.maximum(found, 0).reshape(-1)).reshape(*found.shape, -1)
        true = pair_scores(metric, queries[block], neighbors)
        if metric is Metric.L2:
            true = true**2
        keys = np.where(found < 0, np.float32(np.inf), _sign(metric) * true)
        order = np.lexsort((found, keys), axis=-1)[:, :k]
        rows[block, : min(k, width)] = np.take_along_axis(found, order, -1)
        scores[block, : min(k, width)] = np.take_along_axis(true, order, -1)
    scores[rows < 0] = 0
    return rows, scores


def _merged(
    best: Rows, keys: NDArray[np.float32], rows: Rows, found: NDArray[np.float32], k: int
) -> tuple[Rows, NDArray[np.float32]]:
    every = np.concatenate([best, np.broadcast_to(rows, found.shape)], axis=1)
    all_keys = np.concatenate([keys, found], axis=1)
    if all_keys.shape[1] > k:
        part = np.argpartition(all_keys, k - 1, axis=1)[:, :k]
        every, all_keys = np.take_along_axis(every, part, 1), np.take_along_axis(all_keys, part, 1)
    order = np.lexsort((every, all_keys), axis=-1)
    return np.take_along_axis(every, order, 1), np.take_along_axis(all_keys, order, 1)


def _sign(metric: Metric) -> int:
    """Return the factor that makes a lower score nearer."""
    return -1 if metric.higher_is_nearer else 1
