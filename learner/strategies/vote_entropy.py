"""Vote entropy of a committee."""

import torch

from learner.options import StrategyOptions
from learner.ports import ScoringContext
from learner.problem import Problem
from learner.strategies.aggregate import aggregate_labels
from learner.strategies.entropy import binary_entropy, entropy_of
from sealpool.vocabulary.strategies import Need


class VoteEntropy:
    """φ(i) = −Σ_c (V(c, i) / K)·ln(V(c, i) / K), V(c, i) the samples whose most likely class for i is c.

    In nats, in [0, ln min(K, c)]. The committee is the K posterior samples. Multi-label: each sample votes for or
    against each label (p > ½), and the entropy of each label's votes is aggregated. Dagan and Engelson,
    Committee-based sampling for training probabilistic classifiers, ICML 1995, there divided by ln min(K, c), which
    orders alike. Cost: O(K·c) an item.
    """

    needs = frozenset({Need.MODEL, Need.SAMPLES})
    density_over = None

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        self._aggregate = options.aggregate
        self._multilabel = problem.multilabel

    def score(self, context: ScoringContext) -> torch.Tensor:
        """Return the entropy of the votes."""
        samples = context.samples
        if self._multilabel:
            return aggregate_labels(binary_entropy(label_votes(samples)), self._aggregate)
        return entropy_of(class_votes(samples))


def class_votes(samples: torch.Tensor) -> torch.Tensor:
    """Return the share of samples (K, n, c) whose most likely class is each class, (n, c); the first of equals."""
    votes = torch.zeros_like(samples[0])
    one = votes.new_ones(len(votes), 1)
    for sample in samples:  # sample by sample: nothing as large as all of them is held
        votes.scatter_add_(1, sample.max(dim=1, keepdim=True).indices, one)
    return votes / len(samples)


def label_votes(samples: torch.Tensor) -> torch.Tensor:
    """Return the share of samples (K, n, c) that hold each label more likely than not, (n, c)."""
    votes = torch.zeros_like(samples[0])
    for sample in samples:
        votes += sample > 0.5
    return votes / len(samples)
