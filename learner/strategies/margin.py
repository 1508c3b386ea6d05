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
            return 1 - (2 * p - 1).abs().double().mean(dim=1)
        largest = p.topk(2, dim=1).values.double()
        return 1 - (largest[:, 0] - largest[:, 1])
