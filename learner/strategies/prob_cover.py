"""Most coverage within a radius."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from learner.clustering import fetch_units, k_means, still_wanted
from learner.neighbours import Pairs, most_similar, most_similar_of_another_group, pairs_within
from learner.options import StrategyOptions
from learner.ports import Batch, CandidateView
from learner.problem import Problem
from sealpool.vocabulary.strategies import Need

_MOST_ITEMS = 32_768
_MOST_PAIRS = 1 << 24
_PURITY = 0.95
_PURITY_ITEMS = 4096
_WIDEST = 2.0
_ROWS_TOGETHER = 256


class ProbCover:
    """Each pick is the candidate within whose radius most candidates lie that nothing labelled or picked covers yet.

    j is covered by i where 1 − cos(i, j) ≤ radius; a zero vector covers itself. Yehuda, Dekel, Hacohen and Weinshall,
    Active learning through a covering lens, NeurIPS 2022: greedy maximum coverage, at least 1 − 1/e of the best. A
    score is the share of the candidates looked at that the pick newly covers; when all are covered, the first by draw
    follow with 0.

    Radius 0: the largest at which 95 % of the candidates have none but their own k-means cluster within it, the
    paper's rule, with `clusters` clusters or as many as there are classes, on at most 4,096 candidates.

    At most 32,768 candidates, drawn by the seed, are looked at, and half of them, again and again, while more than 16.8
    million pairs (67 MB) lie within the radius. Cost: O(n²·d) of these n, in blocks, then O(pairs) for all picks.
    """

    needs = frozenset({Need.LABELLED})

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        self._radius = options.radius
        self._clusters = options.clusters or len(problem.classes)

    def pick(self, view: CandidateView, count: int) -> Batch:
        """Return the picks, most newly covered first."""
        count = min(count, len(view))
        if count == 0:
            return Batch(rows=np.empty(0, np.int64), scores=np.empty(0))
        rows = np.random.default_rng(view.seed).permutation(len(view))[:_MOST_ITEMS]
        units = fetch_units(view, rows)
        least = 1 - (self._radius or self._pure_radius(view, units[:_PURITY_ITEMS]))
        pairs = None
        while pairs is None:
            order = np.argsort(rows)  # the first of equals is the first by draw
            ordered = units[torch.from_numpy(order).to(units.device)]
            pairs = pairs_within(ordered, least, limit=_MOST_PAIRS, heartbeat=lambda: still_wanted(view))
            looked_at, rows, units = rows[order], rows[: len(rows) // 2], units[: len(rows) // 2]
        labelled = torch.nn.functional.normalize(view.labelled.vectors.float(), dim=1)
        covered = (
            most_similar(ordered, labelled).cpu().numpy() >= least if len(labelled) else np.zeros(len(order), bool)
        )
        places, gains = _greedy_cover(pairs, covered, min(count, len(looked_at)))
        rest = np.setdiff1d(np.arange(len(view)), looked_at)[: count - len(places)]
        scores = np.concatenate([gains / len(looked_at), np.zeros(len(rest))])
        return Batch(rows=np.concatenate([looked_at[places], rest]), scores=scores)

    def _pure_radius(self, view: CandidateView, units: torch.Tensor) -> float:
        """Return the largest radius at which the balls of 95 % of these items hold their own cluster's only."""
        groups = torch.from_numpy(k_means(units, self._clusters, seed=view.seed).assignment).to(units.device)
        if bool((groups == groups[0]).all()):
            return _WIDEST
        to_others = 1 - most_similar_of_another_group(units, groups, heartbeat=lambda: still_wanted(view))
        impure = math.floor((1 - _PURITY) * len(units) + 1e-9)
        nearest = float(np.sort(to_others.double().cpu().numpy())[impure])
        return max(nearest * (1 - 1e-5), 1e-6)


def _greedy_cover(pairs: Pairs, covered: NDArray[np.bool_], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places picked and how many each newly covers. Each item is struck from its neighbours' gains once."""
    size = len(covered)
    gains = np.diff(pairs.starts)
    for rows in np.array_split(np.flatnonzero(covered), 1 + np.count_nonzero(covered) // _ROWS_TOGETHER):
        gains -= np.bincount(pairs.of(rows), minlength=size)
    covered, open_to_picks = covered.copy(), np.ones(size, np.bool_)
    places, newly = np.empty(count, np.int64), np.empty(count, np.int64)
    for number in range(count):
        place = int(np.argmax(np.where(open_to_picks, gains, -1)))
        places[number], newly[number] = place, gains[place]
        open_to_picks[place] = False
        fresh = pairs.of(np.array([place]))
        fresh = fresh[~covered[fresh]]
        covered[fresh] = True
        gains -= np.bincount(pairs.of(fresh.astype(np.int64)), minlength=size)
    return places, newly
