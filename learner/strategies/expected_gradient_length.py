"""Expected gradient length of the last layer."""

import torch

from learner.options import StrategyOptions
from learner.ports import ScoringContext
from learner.problem import Problem
from sealpool.vocabulary.strategies import Need


class ExpectedGradientLength:
    """φ(i) = Σ_y p(y | i)·‖∇ ℓ(i, y)‖ = Σ_y p_y·‖p − e_y‖·√(‖h‖² + 1), ≥ 0.

    The gradient is that of the log-loss in the weights and biases of the last, linear layer: (p − e_y)·[h; 1]ᵀ, where h
    is what the layer sees and e_y the y-th unit vector. Multi-label: each label is a logistic regression of its own,
    whose gradient p − y times [h; 1] has the expected length 2·p·(1 − p)·√(‖h‖² + 1), and these are summed over labels.
    Settles, Craven and Ray, Multiple-instance active learning, NeurIPS 2007. Cost: O(c + h) an item.
    """

    needs = frozenset({Need.MODEL})
    density_over = None

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        pass

    def score(self, context: ScoringContext) -> torch.Tensor:
        """Return the expected length."""
        p = context.probabilities
        error = 2 * (p * (1 - p)).sum(dim=1) if context.problem.multilabel else _expected_error(p)
        length: torch.Tensor = torch.linalg.vector_norm(context.features, dim=1)
        return error * (length.square() + 1).sqrt()


def _expected_error(p: torch.Tensor) -> torch.Tensor:
    """Return Σ_y p_y·‖p − e_y‖, (n,).

    ‖p − e_y‖² = ‖p‖² − 2·p_y + 1 would lose half of the digits of a p_y near 1, so the largest is taken apart.
    """
    first = p.max(dim=1, keepdim=True)
    others = p.scatter(1, first.indices, 0)
    squares, largest = (others * others).sum(dim=1, keepdim=True), first.values
    length = (squares + largest.square() + 1 - 2 * others).sqrt_()
    return (others * length).sum(dim=1) + (largest * ((1 - largest).square() + squares).sqrt())[:, 0]
