"""Divergence of a committee from its consensus."""

import torch

from learner.options import StrategyOptions
from learner.ports import ScoringContext
from learner.problem import Problem
from learner.strategies.bald import disagreement
from sealpool.vocabulary.strategies import Need


class ConsensusKL:
    """φ(i) = (1/K)·Σ_k KL(p_k(· | i) ‖ p̄(· | i)), p̄ = (1/K)·Σ_k p_k, in nats; in [0, ln min(K, c)].

    The committee is the K posterior samples. It is the same number as `bald`, which came to it by another way; both
    names are in use. Multi-label: the divergence of each label's p against 1 − p, aggregated. McCallum and Nigam,
    Employing EM and pool-based active learning for text classification, ICML 1998. Cost: O(K·c) an item.
    """

    needs = frozenset({Need.MODEL, Need.SAMPLES})
    density_over = None

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        self._aggregate = options.aggregate
        self._problem = problem

    def score(self, context: ScoringContext) -> torch.Tensor:
        """Return the mean divergence from the consensus."""
        return disagreement(context.samples, self._problem, self._aggregate)
