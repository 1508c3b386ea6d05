"""Candidates and labelled items along one line a class, as threshold search sees them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learner.ports import CandidateView
from learner.problem import Problem

MOST_NUMBERS = 1 << 24
"""Candidates × lines that are held: 67 MB as float32, and as much again where they are put in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassLines:
    """One line a class, from least to most like it.

    Parameters
    ----------
    scores
        (l, n) float32 in [−1, 1], above 0 where the class is predicted: p_class less the largest other probability;
        multi-label: 2p − 1. A two-class problem has one line, because the other is its mirror image.
    labelled
        (l, m) the same of the labelled items.
    positive
        (l, m) bool, whether the labelled item has the class.
    """

    scores: NDArray[np.float32]
    labelled: NDArray[np.float32]
    positive: NDArray[np.bool_]

    @property
    def lines(self) -> int:
        """How many lines there are."""
        return len(self.scores)


def class_lines(view: CandidateView, *, at_least: int) -> ClassLines:
    """Return the lines of the first candidates, which are a uniform draw: all of them while they fit MOST_NUMBERS."""
    problem = view.problem
    lines = 1 if _two_classes(problem) else len(problem.classes)
    count = min(len(view), max(at_least, MOST_NUMBERS // lines))
    scores = np.empty((lines, count), np.float32)
    for rows, context in view.blocks():
        if rows.start >= count:
            break
        kept = slice(rows.start, min(rows.stop, count))
        scores[:, kept] = _scores(context.probabilities, problem)[: kept.stop - kept.start].T
    if len(view.labelled) == 0:
        return ClassLines(
            scores=scores, labelled=np.empty((lines, 0), np.float32), positive=np.empty((lines, 0), np.bool_)
        )
    targets = view.labelled.targets
    positive = targets.T if problem.multilabel else targets == np.arange(len(problem.classes))[:, None]
    return ClassLines(
        scores=scores,
        labelled=np.ascontiguousarray(_scores(view.labelled.probabilities, problem).T),
        positive=positive[-lines:].astype(np.bool_),
    )


def _two_classes(problem: Problem) -> bool:
    return not problem.multilabel and len(problem.classes) == 2


def _scores(probabilities: torch.Tensor, problem: Problem) -> NDArray[np.float32]:
    p = probabilities.to(torch.float32)
    if problem.multilabel:
        scores = 2 * p - 1
    elif p.shape[1] == 2:
        scores = p[:, 1:] - p[:, :1]
    else:
        first = p.topk(2, dim=1)
        others = first.values[:, :1].expand_as(p).scatter(1, first.indices[:, :1], first.values[:, 1:])
        scores = p - others
    numbers: NDArray[np.float32] = scores.cpu().numpy()
    return numbers
