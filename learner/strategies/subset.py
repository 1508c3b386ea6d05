"""What strategies that pick in stages share: some rows as a view of their own, and the best of many scores."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from learner.ports import CandidateView, LabelledView, ScoringContext
from learner.problem import Problem

_BLOCK_ROWS = 8192


class Subset:
    """A CandidateView of `rows` (r,) of another; its own row i is row rows[i] of that.

    Holds no vectors: they are fetched from the other view as they are asked for.
    """

    def __init__(self, view: CandidateView, rows: NDArray[np.int64]) -> None:
        self._view = view
        self._rows = rows

    @property
    def problem(self) -> Problem:
        """The task and its classes."""
        return self._view.problem

    @property
    def device(self) -> torch.device:
        """Where everything is computed."""
        return self._view.device

    @property
    def seed(self) -> int:
        """Of whatever is drawn."""
        return self._view.seed

    @property
    def labelled(self) -> LabelledView:
        """The labelled set."""
        return self._view.labelled

    @property
    def draws(self) -> NDArray[np.float64]:
        """(r,) those of the other view."""
        return self._view.draws[self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def blocks(self) -> Iterator[tuple[slice, ScoringContext]]:
        """Yield the rows in blocks."""
        for start in range(0, len(self), _BLOCK_ROWS):
            block = slice(start, min(start + _BLOCK_ROWS, len(self)))
            yield block, self._view.at(self._rows[block])

    def at(self, rows: NDArray[np.int64]) -> ScoringContext:
        """Return some of the rows."""
        return self._view.at(self._rows[rows])


def best_rows(scores: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Return the positions (min(count, n),) of the largest scores, largest first; of equals the first."""
    count = min(count, len(scores))
    if count == 0:
        return np.empty(0, np.int64)
    threshold = np.partition(scores, len(scores) - count)[len(scores) - count]
    reached = np.flatnonzero(scores >= threshold)
    order: NDArray[np.int64] = reached[np.argsort(-scores[reached], kind="stable")[:count]]
    return order
