"""How much of the truth an approximate engine finds, and searching wider until that is enough."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index_server.engines.exact import exact_top, rescored
from index_server.engines.faiss_cpu import rounding_of
from index_server.ports import Engine, Rows
from index_server.spec import Metric
from sealpool.types import Vectors

NEIGHBORS: Final = 100
QUERIES: Final = 100
MAX_BREADTH: Final = 64.0
_BLOCK_ROWS: Final = 1 << 20

Reading = Callable[[], AbstractContextManager[object]]
"""Makes what is held while the engine is read: a pool's read lock, for one block of vectors or one search at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Truth:
    """Some items of a pool as queries, and how near the k-th nearest of the others truly is to each.

    Parameters
    ----------
    rows
        (q,), where the queries lie.
    queries
        (q, d).
    kth
        (q,), scores as `Engine.search` gives them.
    slack
        (q,), what two roundings of one score may differ by.
    k
        Neighbours; 0 in a pool of fewer than two items.
    """

    metric: Metric
    rows: Rows
    queries: Vectors
    kth: NDArray[np.float32]
    slack: NDArray[np.float32]
    k: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RecallReport:
    """What `tune` found: the share of the k nearest that `queries` queries found at that breadth, and if it was met."""

    recall: float
    k: int
    queries: int
    breadth: float
    met: bool


def sample_truth(
    engine: Engine,
    metric: Metric,
    *,
    seed: int,
    k: int = NEIGHBORS,
    queries: int = QUERIES,
    reading: Reading = nullcontext,
) -> Truth:
    """Draw items of the engine as queries, and find how far their k nearest lie, themselves left out, by comparing all.

    Rows added meanwhile do not count. Memory stays bounded, and `reading` is held for one block at a time.
    """
    size = engine.size
    rows = _draw(engine, size, queries, seed, reading)
    k = max(0, min(k, size - engine.removed - 1))
    with reading():
        vectors = engine.vectors(rows)
    if not k:
        return Truth(metric=metric, rows=rows, queries=vectors, kth=_zeros(rows), slack=_zeros(rows), k=0)
    found, scores = exact_top(
        vectors, k, metric=metric, size=size, read=engine.vectors, kept=engine.revealed, own=rows, reading=reading
    )
    # Items that were removed meanwhile may leave fewer than k: the farthest that is there is then the k-th.
    last = np.maximum((found >= 0).sum(axis=1) - 1, 0)
    kth = np.take_along_axis(scores, last[:, None], 1)[:, 0]
    return Truth(metric=metric, rows=rows, queries=vectors, kth=kth, slack=_slack(metric, vectors, kth), k=k)


def measure_recall(engine: Engine, truth: Truth, *, reading: Reading = nullcontext) -> float:
    """Return the share of the true k nearest that `engine` finds as it searches now; 1 where there are none to find.

    What lies as near as the k-th counts as found, whichever of equals it is.
    """
    if not truth.k or not len(truth.rows):
        return 1.0
    hits = 0
    step = max(1, (1 << 20) // (truth.k * truth.queries.shape[1]))
    for start in range(0, len(truth.rows), step):
        block = slice(start, start + step)
        with reading():
            found, _ = engine.search(truth.queries[block], truth.k + 1)
            near = _hits(engine, truth, block, found)
        hits += int(np.minimum(near, truth.k).sum())
    return hits / (truth.k * len(truth.rows))


def tune(
    engine: Engine,
    floor: float,
    *,
    metric: Metric,
    seed: int,
    k: int = NEIGHBORS,
    queries: int = QUERIES,
    max_breadth: float = MAX_BREADTH,
    reading: Reading = nullcontext,
) -> RecallReport:
    """Double the engine's breadth until it finds `floor` of the true nearest, or passes `max_breadth`, where it stays.

    Parameters
    ----------
    floor
        Share, 0 to 1.
    seed
        Of the draw of queries.
    k
        Neighbours, or all others in a smaller pool.
    reading
        Held while the engine is read, never for longer than one block of vectors or some searches take.
    """
    truth = sample_truth(engine, metric, seed=seed, k=k, queries=queries, reading=reading)
    recall = measure_recall(engine, truth, reading=reading)
    while recall < floor and 2 * engine.breadth <= max_breadth:
        engine.breadth = 2 * engine.breadth
        recall = measure_recall(engine, truth, reading=reading)
    return RecallReport(recall=recall, k=truth.k, queries=len(truth.rows), breadth=engine.breadth, met=recall >= floor)


def _draw(engine: Engine, size: int, count: int, seed: int, reading: Reading) -> Rows:
    """Return the rows of `count` items, or of all if there are fewer, drawn without replacement."""
    live = size - engine.removed
    places = np.sort(np.random.default_rng(seed).choice(live, min(count, live), replace=False)) if live else np.empty(0)
    drawn, passed = [], 0
    for start in range(0, size, _BLOCK_ROWS):
        rows = np.arange(start, min(start + _BLOCK_ROWS, size))
        with reading():
            rows = rows[engine.revealed(rows)]
        here = places[(places >= passed) & (places < passed + len(rows))] - passed
        drawn.append(rows[here.astype(np.int64)])
        passed += len(rows)
    return np.concatenate([np.empty(0, np.int64), *drawn])


def _hits(engine: Engine, truth: Truth, block: slice, found: Rows) -> NDArray[np.int64]:
    """Return how many of each query's rows, its own left out, lie as near as its k-th nearest."""
    others = np.where(found == truth.rows[block, None], -1, found)
    rows, scores = rescored(truth.queries[block], found.shape[1], others, metric=truth.metric, read=engine.vectors)
    kth, slack = truth.kth[block, None], truth.slack[block, None]
    near = scores >= kth - slack if truth.metric.higher_is_nearer else scores <= kth + slack
    hits: NDArray[np.int64] = (near & (rows >= 0)).sum(axis=1)
    return hits


def _slack(metric: Metric, queries: Vectors, kth: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(queries, axis=1)
    # Under L2, |q| + |x| ≤ 2·|q| + |q − x|.
    scale = (2 * lengths + np.sqrt(kth)) ** 2 if metric is Metric.L2 else np.maximum(lengths**2, np.abs(kth))
    slack: NDArray[np.float32] = (rounding_of(queries.shape[1]) * scale).astype(np.float32)
    return slack


def _zeros(rows: Rows) -> NDArray[np.float32]:
    return np.zeros(len(rows), np.float32)
