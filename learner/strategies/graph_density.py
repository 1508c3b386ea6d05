"""Density in the neighbour graph."""

import numpy as np
import torch
from numpy.typing import NDArray

from learner.clustering import fetch_units, still_wanted
from learner.neighbours import nearest_others
from learner.options import StrategyOptions
from learner.ports import Batch, CandidateView
from learner.problem import Problem
from learner.selection import round_scores
from sealpool.vocabulary.strategies import Need

_NEIGHBORS = 10
_MOST_ITEMS = 32_768
_CHUNK = 256


class GraphDensity:
    """The candidate of the highest mean edge weight in the neighbour graph, picks' neighbours discounted.

    Gra(i) = Σ_j W_ij / number of edges of i, W_ij = exp(−|x_i − x_j|_1 / 2σ²) for edges: j is among the 10 nearest of i
    or i among those of j. After a pick i, Gra(j) falls by Gra(i), if that is positive, for each neighbour j; labelled
    items are in the graph and discount their neighbours, by their own densities, before the first pick. Ebert, Fritz
    and Schiele, RALF: a reinforced active learning formulation for object class recognition, CVPR 2012. Here vectors
    have unit length, neighbours are nearest by Euclidean distance, weights take the Manhattan distance as the paper
    does, and 2σ² is its mean over the edges. A score is the density at the time of the pick.

    At most 32,768 candidates, drawn by the seed, and as many labelled items are looked at; when they are all picked,
    the others follow by draw, each with the last one's score. Cost: O(n²·d) of these n, in blocks.
    """

    needs = frozenset({Need.LABELLED})

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:  # noqa: ARG002 - the signature of all
        self._neighbors = options.neighbors or _NEIGHBORS

    def pick(self, view: CandidateView, count: int) -> Batch:
        """Return the picks."""
        count = min(count, len(view))
        if count == 0:
            return Batch(rows=np.empty(0, np.int64), scores=np.empty(0))
        looked_at = np.sort(np.random.default_rng(view.seed).permutation(len(view))[:_MOST_ITEMS])
        labelled = torch.nn.functional.normalize(view.labelled.vectors[:_MOST_ITEMS].float(), dim=1)
        units = torch.cat([fetch_units(view, looked_at), labelled])
        _, places = nearest_others(units, self._neighbors, heartbeat=lambda: still_wanted(view))
        edges = _edges(places.cpu().numpy())
        density = _densities(units, edges)
        _discount_labelled(density, edges, len(looked_at))
        chosen, scores = _greedy(density, edges, len(looked_at), min(count, len(looked_at)))
        rest = np.setdiff1d(np.arange(len(view)), looked_at)[: count - len(chosen)]
        return Batch(
            rows=np.concatenate([looked_at[chosen], rest]),
            scores=np.concatenate([scores, np.full(len(rest), scores[-1])]),
        )


def _edges(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the edges (2, e), each in both directions, in order of their first end."""
    size = len(places)
    ends = np.repeat(np.arange(size), places.shape[1])
    keys = np.unique(np.concatenate([ends * size + places.ravel(), places.ravel() * size + ends]))
    return np.stack([keys // size, keys % size])


def _densities(units: torch.Tensor, edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean weight (n,) of each item's edges; 0 for one without."""
    lengths = np.empty(edges.shape[1])
    step = _CHUNK * 256
    for at in range(0, len(lengths), step):
        ends = torch.from_numpy(edges[:, at : at + step]).to(units.device)
        lengths[at : at + step] = (units[ends[0]] - units[ends[1]]).abs_().sum(dim=1).double().cpu().numpy()
    width = lengths.mean() if len(lengths) else 0.0
    weights = np.exp(-lengths / width) if width > 0 else np.ones(len(lengths))
    degrees = np.bincount(edges[0], minlength=len(units))
    return np.bincount(edges[0], weights=weights, minlength=len(units)) / np.maximum(degrees, 1)


def _discount_labelled(density: NDArray[np.float64], edges: NDArray[np.int64], candidates: int) -> None:
    from_labelled = edges[0] >= candidates
    discount = density[edges[0][from_labelled]]
    density -= np.bincount(edges[1][from_labelled], weights=discount, minlength=len(density))


def _greedy(
    density: NDArray[np.float64], edges: NDArray[np.int64], candidates: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the places picked and their densities at the time. Equal densities, to 18 bits: the first."""
    starts = np.searchsorted(edges[0], np.arange(candidates + 1))
    left = density.copy()
    picked = np.zeros(candidates, np.bool_)
    chosen, scores = np.empty(count, np.int64), np.empty(count)
    for number in range(count):
        place = int(np.argmax(np.where(picked, -np.inf, round_scores(left[:candidates]))))
        chosen[number], scores[number] = place, left[place]
        picked[place] = True
        left[edges[1][starts[place] : starts[place + 1]]] -= max(0.0, left[place])
    return chosen, scores
