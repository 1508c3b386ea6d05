"""Variation ratios of a committee."""

import torch

from learner.options import StrategyOptions
from learner.ports import ScoringContext
from learner.problem import Problem
from learner.strategies.aggregate import aggregate_labels
from learner.strategies.vote_entropy import class_votes, label_votes
from sealpool.vocabulary.strategies import Need


class VariationRatios:
    """φ(i) = 1 − max_c V(c, i) / K, V(c, i) the samples whose most likely class for i is c; in [0, 1 − 1/min(K, c)].

    Multi-label: the share of samples that are of the minority about each label (p > ½ or not), aggregated. Freeman,
    Elementary applied statistics, 1965; for posterior samples Gal, Islam and Ghahramani, Deep Bayesian active learning
    with image data, ICML 2017. Cost: O(K·c) an item.
    """

    needs = frozenset({Need.MODEL, Need.SAMPLES})
    density_over = None

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        self._aggregate = options.aggregate
        self._multilabel = problem.multilabel

    def score(self, context: ScoringContext) -> torch.Tensor:
        """Return the share of samples that disagree with their majority."""
        samples = context.samples
        if self._multilabel:
            votes = label_votes(samples)
            return aggregate_labels(torch.minimum(votes, 1 - votes), self._aggregate)
        return 1 - class_votes(samples).amax(dim=1)
