"""Smallest margin."""

import torch

from learner.ports import ScoringContext, StrategyOptions
from learner.problem import Problem


class Margin:
    """φ(i) = 1 − (p_1 − p_2), p_1 ≥ p_2 the two largest probabilities of i, in [0, 1].

    One minus the margin, so that a small margin scores high. Multi-label: the mean over classes of 1 − |2p − 1|.
    Scheffer, Decomain and Wrobel, Active hidden Markov models for information extraction, IDA 2001. Cost: O(c) an
    item.
    """

    density_over = None

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        pass

    def score(self, context: ScoringContext) -> torch.Tensor:
        """Return one minus the margin."""
        p = context.probabilities
        if context.problem.multilabel:
            return 1 - (2 * p - 1).abs().mean(dim=1)
        first = p.max(dim=1, keepdim=True)
        second = p.scatter(1, first.indices, -1).amax(dim=1)  # a fifth of the time of topk
        return 1 - (first.values[:, 0] - second)
