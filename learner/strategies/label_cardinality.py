"""Label cardinality inconsistency."""

import numpy as np
import torch

from learner.options import StrategyOptions
from learner.ports import ScoringContext
from learner.problem import Problem
from sealpool.vocabulary.strategies import Need


class LabelCardinality:
    """φ(i) = | #{c : p(c | i) > ½} − (1/m)·Σ_j |Y_j| |, Y_j the labels of labelled item j; in [0, c].

    For multi-label campaigns: an item for which more or fewer labels are predicted than labelled items have on average
    is likely predicted wrong. Without labelled items the mean is 0. Many items share a score, which the draws order.
    Li and Guo, Active learning with multi-label SVM classification, IJCAI 2013. Cost: O(c) an item, and O(m·c).
    """

    needs = frozenset({Need.MODEL, Need.CLASSES})
    density_over = None

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        pass

    def score(self, context: ScoringContext) -> torch.Tensor:
        """Return how far the predicted number of labels is from the mean."""
        p, labelled = context.probabilities, context.labelled
        mean = np.count_nonzero(labelled.targets) / max(1, len(labelled))
        return ((p > 0.5).to(p) @ p.new_ones(p.shape[1]) - mean).abs()
