"""Category vector inconsistency and ranking of scores."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from learner.options import StrategyOptions
from learner.ports import Batch, CandidateView
from learner.problem import Problem
from learner.selection import Scores, round_scores
from sealpool.vocabulary.strategies import Need

_MARGIN_BYTES = 128 << 20
_PAIRS = 1 << 20  # of label vectors compared at once: temporaries of 8 MiB each
_NO_ROWS = np.empty(0, np.int64)


class Cvirs:
    """φ(i) = s(i)·v(i): near to being decided otherwise, and of a label vector unlike those of the labelled items.

    For multi-label campaigns. s(i) = Σ_l #{j : |2p_jl − 1| > |2p_il − 1|} / (c·(n − 1)), in [0, 1], is Borda's count of
    the ranks of i's margins, label by label; equal margins have equal ranks. v(i) = (1/m)·Σ_j f(Ŷ_i, Y_j), in [0, 1],
    with Ŷ_i the labels of p > ½ and f the normalised entropy distance (2·H(Ŷ_i, Y_j) − H(Ŷ_i) − H(Y_j)) / H(Ŷ_i, Y_j),
    of the shares of the c labels that both have, one has, or none has; f is 1 where all c differ, and 0 where
    H(Ŷ_i, Y_j) is 0. Without labelled items v is 1.

    Reyes, Morell and Ventura, Effective active learning strategy for multi-label learning, Neurocomputing 273, 2018.
    Cost: O(n·c·log n), and O(c) for each pair of a labelled item and another predicted label vector in a block. Above
    32 million margins, the model is run once for every 32 million.
    """

    needs = frozenset({Need.MODEL, Need.LABELLED, Need.CLASSES})

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        pass

    def pick(self, view: CandidateView, count: int) -> Batch:
        """Return the best `count`."""
        size, classes = len(view), len(view.problem.classes)
        count = min(count, size)
        points, inconsistency = _points_and_inconsistency(view)
        scores = round_scores(points / (classes * max(1, size - 1)) * inconsistency)
        rows = np.argsort(-scores, kind="stable")[:count].astype(np.int64)
        return Batch(rows=rows, scores=scores[rows])


def _points_and_inconsistency(view: CandidateView) -> tuple[Scores, Scores]:
    """Return Borda's points and v, (n,) each."""
    size, classes = len(view), len(view.problem.classes)
    width = max(1, _MARGIN_BYTES // (4 * max(1, size)))
    points = torch.zeros(size, dtype=torch.int64, device=view.device)
    inconsistency, labelled = np.empty(size), _LabelledVectors(view)
    for first in range(0, classes, width):
        labels = slice(first, min(first + width, classes))
        margins = torch.empty(labels.stop - first, size, device=view.device)
        for rows, context in view.blocks():
            p = context.probabilities
            margins[:, rows] = (2 * p[:, labels] - 1).abs_().T
            if first == 0:
                inconsistency[rows] = labelled.inconsistency((p > 0.5).cpu().numpy())
        for margin in margins:
            view.at(_NO_ROWS)  # raises Cancelled when the caller has left
            points += _how_many_are_larger(margin)
    return points.cpu().numpy().astype(np.float64), inconsistency


def _how_many_are_larger(values: torch.Tensor) -> torch.Tensor:
    """Return for each of (n,) values how many are larger; half of the time of a binary search for each."""
    ordered, order = values.sort()
    ends = torch.cat([(ordered[1:] != ordered[:-1]).nonzero()[:, 0], order.new_tensor([len(values) - 1])])
    sizes = torch.diff(ends, prepend=ends.new_tensor([-1]))  # of each run of equal values
    return torch.empty_like(order).scatter_(0, order, torch.repeat_interleave(len(values) - 1 - ends, sizes))


class _LabelledVectors:
    """The label vectors of the labelled set, each once, with how often it occurs."""

    def __init__(self, view: CandidateView) -> None:
        vectors, counts = np.unique(view.labelled.targets, axis=0, return_counts=True)
        self._view = view
        self._vectors = torch.from_numpy(vectors).to(view.device, torch.float32)
        self._shares = torch.from_numpy(counts / max(1, counts.sum())).to(view.device)

    def inconsistency(self, predicted: NDArray[np.bool_]) -> Scores:
        """Return v (b,) of predicted label vectors (b, c); equal ones are looked at once."""
        if not len(self._vectors):
            return np.ones(len(predicted))
        distinct, inverse = _distinct(predicted)
        means = [self._mean_distance(part).cpu().numpy() for part in self._parts(predicted[distinct])]
        found: Scores = np.concatenate(means)[inverse]
        return found

    def _parts(self, predicted: NDArray[np.bool_]) -> Iterator[torch.Tensor]:
        rows = max(1, _PAIRS // len(self._vectors))
        for start in range(0, len(predicted), rows):
            self._view.at(_NO_ROWS)  # raises Cancelled when the caller has left
            yield torch.from_numpy(predicted[start : start + rows]).to(self._vectors)

    def _mean_distance(self, predicted: torch.Tensor) -> torch.Tensor:
        return _label_distance(predicted, self._vectors) @ self._shares


def _distinct(vectors: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each distinct row of (b, c) first is, and which of those each row is."""
    packed = np.packbits(vectors, axis=1)
    keys = packed.view(f"V{packed.shape[1]}")[:, 0]
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first.astype(np.int64), inverse.astype(np.int64)


def _label_distance(some: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return f (a, b), float64, of label vectors (a, c) and (b, c) of zeros and ones.

    Both entropies are sums of −x·ln x over shares x of the labels: whole numbers of c-ths, so a table holds the terms.
    """
    classes = some.shape[1]
    shares = torch.arange(classes + 1, dtype=torch.float64, device=some.device) / classes
    terms = torch.special.entr(shares)
    both = (some @ others.T).to(torch.int32)  # exact in float32
    sizes, other_sizes = some.sum(dim=1).to(torch.int32)[:, None], others.sum(dim=1).to(torch.int32)
    neither = both + (classes - other_sizes) - sizes
    joint = terms[both] + terms[sizes - both] + terms[other_sizes - both] + terms[neither]
    marginal = (terms[sizes] + terms[classes - sizes]) + (terms[other_sizes] + terms[classes - other_sizes])
    distance: torch.Tensor = ((2 * joint - marginal) / joint.clamp_min(1e-30)).clamp_(0, 1)
    return distance.masked_fill_(both + neither == 0, 1)
