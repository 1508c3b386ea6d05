"""Propagate: labels for a whole pool, spread from its labelled items over the graph of nearest neighbours."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learner.index_port import Index
from learner.metrics import LearnerMetrics
from learner.neighbour_graph import pool_ids, read_edges
from learner.pools import usable_pool
from learner.ports import CancelCheck
from learner.predicting import answer_rows
from learner.problem import Problem, check_labels
from learner.spreading import Spread, normalised_graph, spread
from learner.waiting import TrainingQueue
from sealpool.errors import FailedPrecondition, ResourceExhausted
from sealpool.types import ItemId, LabelledItems

_ID_BYTES = 160
"""An id, its place in a list and in a dictionary, about."""
_EDGE_BYTES = 180
"""An edge while the graph is put together, both ways of it: measured 180 at 400,000 items and k = 10."""
_MATRICES = 5
"""Copies of F, about, while it is iterated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PropagateOrder:
    """What is to be spread: the header of Propagate, with defaults filled in."""

    pool: str
    problem: Problem
    k: int
    alpha: float
    max_iterations: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PropagatedChunk:
    """Probabilities (n, c) float32 and mass (n,) float32 of some items, in the pool's order."""

    ids: Sequence[ItemId]
    probabilities: NDArray[np.float32]
    mass: NDArray[np.float32]
    pool_version: int
    iterations: int


class Propagator:
    """Spreads labels over pools. Safe to share between threads.

    Parameters
    ----------
    queue
        That of the trainings: a graph waits there for its turn.
    memory_bytes
        What one graph may take, as estimated before it is read.
    """

    def __init__(
        self,
        index: Index,
        *,
        queue: TrainingQueue,
        device: torch.device,
        metrics: LearnerMetrics,
        memory_bytes: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._index = index
        self._queue = queue
        self._device = device
        self._metrics = metrics
        self._memory_bytes = memory_bytes
        self._clock = clock

    def propagate(
        self, order: PropagateOrder, examples: LabelledItems, *, cancelled: CancelCheck
    ) -> Iterator[PropagatedChunk]:
        """Yield the probabilities of every item of the pool, in its order.

        Same pool, order, examples and device kind: same answer. Examples that the pool no longer has are left out. A
        labelled item has probabilities like any other: what its neighbours say counts too.

        Raises
        ------
        InvalidArgument
            Labels that do not fit the task; a k that the index server does not take.
        NotFound
            There is no such pool.
        FailedPrecondition
            None of the examples is in the pool.
        ResourceExhausted
            The graph would take more memory than it may, or too many trainings wait.
        Cancelled
            The caller left.
        """
        check_labels(order.problem, examples.labels)
        pool = usable_pool(self._index, order.pool)
        needed = graph_bytes(pool.size, order.k, len(order.problem.classes))
        if needed > self._memory_bytes:
            what = f"a graph of {pool.size:,} items, {order.k:,} neighbours each, and {len(order.problem.classes):,} "
            raise ResourceExhausted(
                f"{what}classes, about {needed:,} bytes,", limit=self._memory_bytes, setting="propagation_memory_bytes"
            )
        with self._queue.turn(needed, lambda _: None, cancelled):
            ids = pool_ids(self._index, pool.spec.name, cancelled)
            labelled, targets = _given(order, ids, examples)
            begun = self._clock()
            edges = read_edges(self._index, pool, ids, k=order.k, cancelled=cancelled)
            graph = normalised_graph(edges.rows, edges.columns, edges.weights, len(ids), device=self._device)
            del edges
            read = self._clock()
            self._metrics.observe("graph", read - begun)
            found = spread(
                graph,
                labelled.to(self._device),
                targets.to(self._device),
                multilabel=order.problem.multilabel,
                alpha=order.alpha,
                max_iterations=order.max_iterations,
                cancelled=cancelled,
            )
            self._metrics.observe("propagate", self._clock() - read)
        yield from _chunks(order.problem, ids, found, pool.version)


def graph_bytes(items: int, k: int, classes: int) -> int:
    """Return about how many bytes it takes to spread labels over a pool."""
    return items * (_ID_BYTES + _EDGE_BYTES * min(k, items) + 4 * _MATRICES * (classes + 1))


def _given(order: PropagateOrder, ids: Sequence[ItemId], examples: LabelledItems) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows of the labelled items (m,), ascending, and which classes they have (m, c) float32."""
    labels = dict(zip(examples.ids, examples.labels, strict=True))
    rows = [row for row, item_id in enumerate(ids) if item_id in labels]
    if not rows:
        raise FailedPrecondition(f"none of the {len(examples):,} examples is in pool {order.pool!r}")
    targets = torch.zeros(len(rows), len(order.problem.classes))
    for place, row in enumerate(rows):
        targets[place, list(labels[ids[row]])] = 1
    return torch.tensor(rows), targets


def _chunks(problem: Problem, ids: Sequence[ItemId], found: Spread, pool_version: int) -> Iterator[PropagatedChunk]:
    equal = 0.5 if problem.multilabel else 1 / len(problem.classes)
    rows = answer_rows(len(problem.classes))
    for start in range(0, len(ids), rows):
        some = slice(start, start + rows)
        mass = found.mass[some]
        yield PropagatedChunk(
            ids=ids[some],
            probabilities=np.where(mass[:, None] > 0, found.shares[some], np.float32(equal)),
            mass=mass,
            pool_version=pool_version,
            iterations=found.iterations,
        )
