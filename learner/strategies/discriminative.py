"""Discriminative active learning (DAL)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from learner.models.lbfgs import LinearFit, minimise
from learner.options import StrategyOptions
from learner.ports import Batch, CandidateView
from learner.problem import Problem
from learner.strategies.subset import best_rows
from sealpool.vocabulary.strategies import Need

SUB_BATCHES = 10
MOST_OF_A_SIDE = 10_000
"""Items of either side that the classifier is fitted to; more hardly move a direction in some hundred dimensions."""

_L2_SHARE = 0.01
_MAX_ITERATIONS = 50
_FETCH_ROWS = 8192


class Discriminative:
    """φ(i) = P(unlabelled | i): what tells itself apart from the labelled set most surely; in 10 sub-batches.

    A classifier of labelled against unlabelled is fitted on the vectors, the items of which it is surest that they are
    unlabelled are picked and join the labelled side, and the next tenth of the batch is picked with a classifier fitted
    anew. Scores are the probabilities at the time of the pick, so they compare within a sub-batch.

    The classifier is logistic regression (the paper's is a small network), l2 = 0.01 of the mean squared length, both
    sides counting equally. Each side is at most 10,000 items drawn anew for each fit; this batch's picks are all in.
    Without labelled items the first sub-batch is drawn at random, at φ = 1. The first of equals is picked. Gissin and
    Shalev-Shwartz, Discriminative active learning, arXiv 1907.06347, 2019. Cost: 10 fits of a binary classifier,
    O(10·n·d).
    """

    needs = frozenset({Need.LABELLED})

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        pass

    def pick(self, view: CandidateView, count: int) -> Batch:
        """Return the picks, sub-batch by sub-batch."""
        count = min(count, len(view))
        generator = np.random.default_rng(view.seed)
        rows, scores = np.empty(0, np.int64), np.empty(0, np.float64)
        for part in np.array_split(np.arange(count), min(SUB_BATCHES, count) or 1):
            outputs = _outputs(view, rows, generator)
            outputs[rows] = -np.inf
            new = best_rows(outputs, len(part))
            rows = np.concatenate([rows, new])
            scores = np.concatenate([scores, torch.sigmoid(torch.from_numpy(outputs[new]).double()).numpy()])
        return Batch(rows=rows, scores=scores)


def _outputs(view: CandidateView, picked: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.float32]:
    """Return (n,) log-odds of being unlabelled; infinity of all where nothing is labelled."""
    outputs = np.full(len(view), np.inf, np.float32)
    labelled = _labelled_side(view, picked, generator)
    unlabelled = np.setdiff1d(_drawn(len(view), generator), picked)
    if len(labelled) == 0 or len(unlabelled) == 0:
        return outputs
    fit = _fit(view, labelled, _vectors(view, unlabelled))
    weights, bias = fit.weights[:, 0].float(), float(fit.bias[0])
    for rows, context in view.blocks():
        outputs[rows] = (context.vectors @ weights + bias).cpu().numpy()
    return outputs


def _drawn(count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    return generator.choice(count, min(count, MOST_OF_A_SIDE), replace=False).astype(np.int64)


def _labelled_side(view: CandidateView, picked: NDArray[np.int64], generator: np.random.Generator) -> torch.Tensor:
    drawn = torch.from_numpy(_drawn(len(view.labelled), generator)).to(view.device)
    return torch.cat([view.labelled.vectors[drawn], _vectors(view, picked)])


def _vectors(view: CandidateView, rows: NDArray[np.int64]) -> torch.Tensor:
    return torch.cat([view.at(rows[at : at + _FETCH_ROWS]).vectors for at in range(0, len(rows) or 1, _FETCH_ROWS)])


def _fit(view: CandidateView, labelled: torch.Tensor, unlabelled: torch.Tensor) -> LinearFit:
    features = torch.cat([labelled, unlabelled]).double()
    targets = torch.arange(len(features), device=features.device) >= len(labelled)

    def cancelled() -> bool:
        view.at(np.empty(0, np.int64))  # raises Cancelled itself
        return False

    return minimise(
        features,
        _Sides(targets.double()[:, None]),
        l2=_L2_SHARE * float(features.square().sum(dim=1).mean()),
        max_iterations=_MAX_ITERATIONS,
        progress=lambda _iteration, _loss: None,
        cancelled=cancelled,
    )


class _Sides:
    """Cross-entropy of targets (n, 1) float64 of 0 and 1, both counting n/2 in all; a learner.models.lbfgs.Losses."""

    columns = 1

    def __init__(self, targets: torch.Tensor) -> None:
        self._targets = targets
        share = targets.mean()
        self._weights = torch.where(targets > 0, 0.5 / share, 0.5 / (1 - share))

    def value_and_gradient(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sum of losses and its gradient."""
        value = ((functional.softplus(z) - self._targets * z) * self._weights).sum()
        return value, (torch.sigmoid(z) - self._targets) * self._weights

    def curvature(self, z: torch.Tensor) -> torch.Tensor:
        """Return the second derivative of each item's loss."""
        p = torch.sigmoid(z)
        return (p * (1 - p) * self._weights)[:, 0]
