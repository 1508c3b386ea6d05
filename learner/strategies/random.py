"""Random sampling."""

from collections.abc import Set as AbstractSet

import torch

from learner.options import StrategyOptions
from learner.ports import ScoringContext
from learner.problem import Problem
from sealpool.vocabulary.strategies import Need


class Random:
    """φ(i) = u_i, uniform on [0, 1), drawn by the seed and the item's id.

    The baseline of every study of active learning. Cost: O(1) an item.
    """

    needs: AbstractSet[Need] = frozenset()
    density_over = None

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        pass

    def score(self, context: ScoringContext) -> torch.Tensor:
        """Return the draws."""
        return context.draws
