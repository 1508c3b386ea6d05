"""Confidence ratio."""

import torch

from learner.options import StrategyOptions
from learner.ports import ScoringContext
from learner.problem import Problem
from learner.strategies.aggregate import aggregate_labels
from learner.strategies.margin import two_largest
from sealpool.vocabulary.strategies import Need


class Ratio:
    """φ(i) = p_2 / p_1, p_1 ≥ p_2 the two largest probabilities of i, in [0, 1].

    It orders items as the difference of the two largest log-probabilities does. Multi-label: min(p, 1 − p) over
    max(p, 1 − p) of each label, aggregated. Settles, Active learning literature survey, TR 1648, University of
    Wisconsin–Madison, 2009. Cost: O(c) an item.
    """

    needs = frozenset({Need.MODEL})
    density_over = None

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        self._aggregate = options.aggregate
        self._multilabel = problem.multilabel

    def score(self, context: ScoringContext) -> torch.Tensor:
        """Return the second largest probability over the largest."""
        p = context.probabilities
        if self._multilabel:
            return aggregate_labels(torch.minimum(p, 1 - p) / torch.maximum(p, 1 - p), self._aggregate)
        first, second = two_largest(p)
        return second / first
