"""Bayesian active learning by disagreement."""

from collections.abc import Callable

import torch

from learner.options import Aggregate, StrategyOptions
from learner.ports import ScoringContext
from learner.problem import Problem
from learner.strategies.aggregate import aggregate_labels
from sealpool.vocabulary.strategies import Need


class Bald:
    """φ(i) = H(p̄(· | i)) − (1/K)·Σ_k H(p_k(· | i)), p̄ = (1/K)·Σ_k p_k, in nats; in [0, ln min(K, c)].

    The mutual information of the item's label and the model's parameters, estimated from K posterior samples. It equals
    the mean of KL(p_k ‖ p̄), and so is taken: the difference of the two entropies loses all digits where samples nearly
    agree. Multi-label: the information in each label, aggregated. Houlsby et al., Bayesian active learning for
    classification and preference learning, arXiv 1112.5745, 2011. Cost: O(K·c) an item.
    """

    needs = frozenset({Need.MODEL, Need.SAMPLES})
    density_over = None

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        self._aggregate = options.aggregate
        self._problem = problem

    def score(self, context: ScoringContext) -> torch.Tensor:
        """Return the mutual information."""
        return disagreement(context.samples, self._problem, self._aggregate)


def disagreement(samples: torch.Tensor, problem: Problem, aggregate: Aggregate) -> torch.Tensor:
    """Return the mean divergence (n,) of posterior samples (K, n, c) from their mean, not negative."""
    divergence = _divergence(samples, torch.Tensor.positive)
    if problem.multilabel:
        divergence += _divergence(samples, _complement)
        return aggregate_labels(divergence.clamp_min_(0), aggregate)
    return (divergence @ divergence.new_ones(divergence.shape[1])).clamp_min_(0)


def _complement(sample: torch.Tensor) -> torch.Tensor:
    return 1 - sample


def _divergence(samples: torch.Tensor, probability: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return each class's part (n, c) of the mean of KL(p_k ‖ p̄), p_k = `probability` of sample k.

    Each sample adds p_k·ln(1 + δ) − (p_k − p̄), δ = (p_k − p̄) / p̄, which is never negative: what is taken away sums to
    0 over the samples, and with it go the terms of first order, whose rounding would hide the rest. Sample by sample,
    so that nothing as large as all of them is held.
    """
    kind, total = torch.finfo(samples.dtype), torch.zeros_like(samples[0])
    for sample in samples:
        total += probability(sample)
    mean = total / len(samples)
    inverse = mean.clamp_min(kind.tiny).reciprocal_()
    total.zero_()
    for p in map(probability, samples):
        difference = p - mean
        # A p of 0, or one that vanishes beside the mean, must not give ln 0.
        delta = (difference * inverse).clamp_min_(kind.eps / 2 - 1)
        total += delta.log1p_().mul_(p).sub_(difference)
    return total.div_(len(samples))
