"""Least confidence."""

import torch

from learner.options import StrategyOptions
from learner.ports import ScoringContext
from learner.problem import Problem
from learner.strategies.aggregate import aggregate_labels
from sealpool.vocabulary.strategies import Need


class LeastConfidence:
    """φ(i) = 1 − max_c p(c | i), in [0, 1 − 1/c].

    Multi-label: 1 − max(p, 1 − p) of each label, aggregated. Lewis and Gale, A sequential algorithm for training text
    classifiers, SIGIR 1994. Cost: O(c) an item.
    """

    needs = frozenset({Need.MODEL})
    density_over = None

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        self._aggregate = options.aggregate
        self._multilabel = problem.multilabel

    def score(self, context: ScoringContext) -> torch.Tensor:
        """Return one minus the probability of the predicted class."""
        p = context.probabilities
        if self._multilabel:
            return aggregate_labels(torch.minimum(p, 1 - p), self._aggregate)
        return 1 - p.amax(dim=1)
