"""DIRECT."""

import numpy as np
from numpy.typing import NDArray

from learner.options import StrategyOptions
from learner.ports import Batch, CandidateView
from learner.problem import Problem
from learner.strategies.class_lines import class_lines
from sealpool.vocabulary.strategies import Need


class Direct:
    """Candidates around the best threshold of each class against the rest; for imbalanced classes.

    For each class, items lie on a line by margin: its probability less the largest other one (multi-label: 2p − 1).
    The threshold is the gap between labelled items that classes them with fewest errors, which a few wrong labels do
    not move far; of equal gaps the one nearest to 0, where the model's own threshold lies. Nuggehalli, Zhang, Jain and
    Nowak, DIRECT: Deep active learning under imbalance and label noise, arXiv 2312.09196.

    Where it departs: the paper spends half of a batch inside the interval that can still hold the threshold, which it
    narrows with the labels as they come, and the other half around the threshold, the candidates of the nearest ranks.
    Here the labels of a batch come together, so all of it is spent around the threshold: each class takes candidates
    from the middle one of its gap outwards, above and below in turn, and the next batch narrows the gap. Classes share
    the batch alike, as in the paper: they take turns, those with fewest labelled items first. The score is 1 − |margin|
    on the line that an item was picked from, in [0, 1].

    Cost: O(c·n·log n + c·m·log m). Memory: 4 bytes a candidate and class up to 67 MB, and 9 a candidate; beyond it,
    picks come from a uniform draw of the candidates.
    """

    needs = frozenset({Need.MODEL, Need.LABELLED, Need.CLASSES})

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        pass

    def pick(self, view: CandidateView, count: int) -> Batch:
        """Return the picks and one minus the size of their margins."""
        lines = class_lines(view, at_least=count)
        count = min(count, lines.scores.shape[1])
        turns = np.argsort(lines.positive.sum(axis=1), kind="stable")
        offers = [
            _outwards(lines.scores[line], best_gap(lines.labelled[line], lines.positive[line]), count) for line in turns
        ]
        picked = _by_turns(offers, count)
        scores = np.array([1 - abs(float(lines.scores[turns[turn], row])) for row, turn in picked])
        return Batch(rows=np.array([row for row, _ in picked], np.int64), scores=scores)


def best_gap(scores: NDArray[np.float32], positive: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the two neighbouring labelled scores (−inf, inf at the ends) that the best threshold lies between.

    Without two classes among the labels, both are 0: the model's own threshold.
    """
    if positive.all() or not positive.any():
        return 0.0, 0.0
    values, place = np.unique(scores.astype(np.float64), return_inverse=True)
    positives = np.bincount(place, weights=positive, minlength=len(values))
    negatives = np.bincount(place, weights=~positive, minlength=len(values))
    errors = np.concatenate([[0], positives.cumsum()]) + np.concatenate([negatives[::-1].cumsum()[::-1], [0]])
    edges = np.concatenate([[-np.inf], values, [np.inf]])
    low, high = edges[:-1], edges[1:]
    distance = np.maximum(0, np.maximum(low, -high))
    best = int(np.lexsort((distance, errors))[0])
    return float(low[best]), float(high[best])


def _outwards(scores: NDArray[np.float32], gap: tuple[float, float], count: int) -> NDArray[np.int64]:
    """Return the first `count` rows in the order in which they are offered, from the middle of the gap."""
    order = np.argsort(scores, kind="stable")
    low, high = np.count_nonzero(scores <= gap[0]), np.count_nonzero(scores < gap[1])
    middle = (low + high) // 2
    above, below = order[middle : middle + count], order[max(0, middle - count) : middle][::-1]
    both = min(len(above), len(below))
    turns = np.stack([above[:both], below[:both]], axis=1).ravel()
    offered: NDArray[np.int64] = np.concatenate([turns, above[both:], below[both:]])[:count]
    return offered


def _by_turns(offers: list[NDArray[np.int64]], count: int) -> list[tuple[int, int]]:
    """Return `count` distinct rows, each offer's next one in turn, and whose turn it was."""
    picked: dict[int, int] = {}
    nexts = [iter(offer.tolist()) for offer in offers]
    while len(picked) < count:
        for turn, rows in enumerate(nexts):
            row = next((row for row in rows if row not in picked), None)
            if row is not None and len(picked) < count:
                picked[row] = turn
    return list(picked.items())
