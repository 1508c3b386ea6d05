"""Contrastive active learning (CAL)."""

import torch
from torch.nn import functional

from learner.options import StrategyOptions
from learner.ports import LabelledView, ScoringContext
from learner.problem import Problem
from sealpool.vocabulary.strategies import Need

DEFAULT_NEIGHBORS = 10

_BLOCK_VALUES = 1 << 22
"""Distances held at once: 16 MB of float32."""
_LABELLED_AT_ONCE = 4096
"""A constant, so that which labelled items are met together does not depend on how candidates are fed."""
_TINY = torch.finfo(torch.float32).tiny
"""Least probability that is divided by: 0 would make the divergence infinite."""


class Cal:
    """φ(i) = 1/k · Σ_l KL(p_l ‖ p_i), l the k labelled items nearest to i, in nats, at least 0 and finite.

    High where the model says otherwise of an item than of the labelled items that it sees near it. Nearness is
    Euclidean distance of the model's features (of a linear model: the vectors); k = `neighbors`, 10 by default, or all
    labelled items where there are fewer. The model's probabilities of the labelled items are compared, not their
    classes. Probabilities below 1e-38 count as that. Multi-label: the mean over classes of the divergence of (p,
    1 − p). Without labelled items all scores are 0. Margatina et al., Active learning by acquiring contrastive
    examples, EMNLP 2021. Cost: O(n·m·h + n·k·c), in blocks of both candidates and labelled items.
    """

    needs = frozenset({Need.MODEL, Need.LABELLED})
    density_over = None

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:  # noqa: ARG002 - the signature of all
        self._neighbors = options.neighbors or DEFAULT_NEIGHBORS

    def score(self, context: ScoringContext) -> torch.Tensor:
        """Return the mean divergence of the neighbours' predictions from the candidate's."""
        probabilities, labelled = context.probabilities, context.labelled
        if len(labelled) == 0:
            return torch.zeros(len(probabilities), dtype=probabilities.dtype, device=probabilities.device)
        of_labelled = labelled.probabilities.to(probabilities.dtype)
        neighbors = _nearest(context.features, labelled, self._neighbors)
        score = _divergence(probabilities, of_labelled, neighbors)
        if context.problem.multilabel:
            score = (score + _divergence(1 - probabilities, 1 - of_labelled, neighbors)) / probabilities.shape[1]
        return score.clamp_min(0)  # rounding can take equal predictions below


def _divergence(p: torch.Tensor, of_labelled: torch.Tensor, neighbors: torch.Tensor) -> torch.Tensor:
    """Return (n,) mean over neighbours (n, k) of Σ_c q·log(q / p), q (m, c) the labelled items' predictions.

    As Σ q·log q, one number a labelled item, less Σ q̄·log p with q̄ the neighbours' mean: nothing of (n, k, c) is held.
    """
    own = torch.xlogy(of_labelled, of_labelled.clamp_min(_TINY)).sum(dim=1)
    mean = functional.embedding_bag(neighbors, of_labelled, mode="mean")
    return own[neighbors].mean(dim=1) - (mean * p.clamp_min(_TINY).log()).sum(dim=1)


def _nearest(features: torch.Tensor, labelled: LabelledView, count: int) -> torch.Tensor:
    """Return (n, min(count, m)) positions of the nearest labelled items."""
    others = labelled.features.to(features.dtype)
    squares = others.square().sum(dim=1)
    count = min(count, len(others))
    result = torch.empty(len(features), count, dtype=torch.int64, device=features.device)
    step = max(1, _BLOCK_VALUES // min(len(others), _LABELLED_AT_ONCE))
    for start in range(0, len(features), step):
        some = features[start : start + step]
        distances = torch.full((len(some), 0), torch.inf, dtype=features.dtype, device=features.device)
        positions = torch.empty(len(some), 0, dtype=torch.int64, device=features.device)
        for at in range(0, len(others), _LABELLED_AT_ONCE):
            part = slice(at, at + _LABELLED_AT_ONCE)
            # Less the square of the candidate's own length, which does not change their order.
            new = torch.addmm(squares[part], some, others[part].T, alpha=-2)
            found = new.topk(min(count, new.shape[1]), dim=1, largest=False)
            distances = torch.cat([distances, found.values], dim=1)
            positions = torch.cat([positions, found.indices + at], dim=1)
            distances, kept = distances.topk(min(count, distances.shape[1]), dim=1, largest=False)
            positions = positions.gather(1, kept)
        result[start : start + step] = positions
    return result
