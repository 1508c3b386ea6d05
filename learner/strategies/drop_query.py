"""DropQuery."""

import numpy as np
import torch
from numpy.typing import NDArray

from learner.clustering import Clusters, cluster_view
from learner.options import StrategyOptions
from learner.ports import Batch, CandidateView, ScoringContext
from learner.problem import Problem
from learner.strategies.margin import Margin
from learner.strategies.subset import Subset, best_rows
from sealpool.vocabulary.strategies import Need

MASKS = 3
RATE = 0.75
_SETS = 64
"""Sets of masks, of which an item's draw chooses one: 64 · 3 masks of d entries are little, n · 3 would be thrice the
vectors."""
_BLOCK_ROWS = 4096


class DropQuery:
    """Items whose prediction changes under dropout; of as many clusters of these as picks, the nearest to each centre.

    Of each item's vector 75 % of the entries are set to 0 and the others multiplied by 4, M = 3 times; it is uncertain
    when more than half of the three predictions differ from that on the whole vector. (For multi-label, a prediction
    is the set of labels of p > ½.) Uncertain items are clustered by k-means at unit length. Where that gives too few,
    the batch is filled by number of changed predictions, then by `margin`. A score is the number of changed predictions
    plus half of `margin`'s score, in [0, 3.5].

    The paper draws each item's masks anew. Here an item's draw chooses one of 64 sets of three, so what it gets is a
    function of its id and the seed, and nothing but the sets is held. A model that reads texts has no vector to drop
    from: FailedPrecondition. Gupte et al., Revisiting active learning in the era of vision foundation models, TMLR
    2024. Cost: O(n·d·c) a mask, and clusters of those that change.
    """

    needs = frozenset({Need.MODEL})

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:  # noqa: ARG002 - the signature of all
        self._margin = Margin(StrategyOptions(name="margin"), problem)

    def pick(self, view: CandidateView, count: int) -> Batch:
        """Return the nearest of each cluster, the surest to have changed first; then those that fill the batch."""
        scores = self._scores(view)
        uncertain = np.flatnonzero(np.floor(scores) > MASKS / 2)
        rows = np.empty(0, np.int64)
        if len(uncertain) > count > 0:
            clusters = cluster_view(Subset(view, uncertain), count, seed=view.seed)
            rows = uncertain[_nearest_members(clusters)]
        rows = rows[best_rows(scores[rows], count)]
        others = scores.copy()
        others[rows] = -np.inf
        rows = np.concatenate([rows, best_rows(others, min(count, len(view)) - len(rows))])
        return Batch(rows=rows, scores=scores[rows])

    def _scores(self, view: CandidateView) -> NDArray[np.float64]:
        """Return (n,) changed predictions plus half a margin score, which is at most 1."""
        scores = np.empty(len(view), np.float64)
        sets: torch.Tensor | None = None
        for rows, context in view.blocks():
            if sets is None:
                sets = draw_masks(context.vectors.shape[1], view.seed).to(context.vectors)
            changes = _changes(view, rows, context, sets)
            scores[rows] = (changes + self._margin.score(context).double() / 2).cpu().numpy()
        return scores


def draw_masks(dimension: int, seed: int) -> torch.Tensor:
    """Return (64, 3, d) float32: 0 with probability 75 %, else 4."""
    kept = np.random.default_rng(seed).random((_SETS, MASKS, dimension)) >= RATE
    return torch.from_numpy((kept / (1 - RATE)).astype(np.float32))


def _changes(view: CandidateView, rows: slice, context: ScoringContext, sets: torch.Tensor) -> torch.Tensor:
    """Return (n,) how many of the predictions on masked vectors differ."""
    multilabel = context.problem.multilabel
    chosen = torch.from_numpy((view.draws[rows] * _SETS).astype(np.int64)).to(sets.device)
    usual = _prediction(context.probabilities, multilabel)
    changes = torch.zeros(len(usual), dtype=torch.float64, device=usual.device)
    for start in range(0, len(usual), _BLOCK_ROWS):
        some = slice(start, start + _BLOCK_ROWS)
        for mask in range(MASKS):
            masked = context.vectors[some] * sets[chosen[some], mask]
            changed = _prediction(context.predict(masked), multilabel) != usual[some]
            changes[some] += changed.any(dim=1) if multilabel else changed
    return changes


def _prediction(probabilities: torch.Tensor, multilabel: bool) -> torch.Tensor:
    """Return the class (n,), or for multi-label which classes (n, c)."""
    return probabilities > 0.5 if multilabel else probabilities.argmax(dim=1)


def _nearest_members(clusters: Clusters) -> NDArray[np.int64]:
    """Return the position nearest to each centre that is anyone's nearest; the first of equals."""
    order = np.lexsort((clusters.squared_distances, clusters.assignment))
    _, first = np.unique(clusters.assignment[order], return_index=True)
    nearest: NDArray[np.int64] = order[first]
    return nearest
