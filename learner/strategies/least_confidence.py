"""Least confidence."""

import torch

from learner.ports import ScoringContext, StrategyOptions
from learner.problem import Problem


class LeastConfidence:
    """φ(i) = 1 − max_c p(c | i), in [0, 1 − 1/c].

    Multi-label: the mean over classes of 1 − max(p, 1 − p). Lewis and Gale, A sequential algorithm for training text
    classifiers, SIGIR 1994. Cost: O(c) an item.
    """

    density_over = None

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        pass

    def score(self, context: ScoringContext) -> torch.Tensor:
        """Return one minus the probability of the predicted class."""
        p = context.probabilities
        if context.problem.multilabel:
            return torch.minimum(p, 1 - p).mean(dim=1)
        return 1 - p.amax(dim=1)
