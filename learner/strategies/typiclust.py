"""Typical items of clusters without labels."""

import numpy as np
import torch
from numpy.typing import NDArray

from learner.clustering import Clusters, assign, cluster_view, fetch_units, still_wanted
from learner.neighbours import nearest_others
from learner.options import StrategyOptions
from learner.ports import Batch, CandidateView, LabelledView
from learner.problem import Problem
from sealpool.vocabulary.strategies import Need

_NEIGHBORS = 20
_MOST_CLUSTERS = 500
_SMALL_CLUSTER = 5
_MOST_MEMBERS = 4096
_SOFTENING = 1e-5


class TypiClust:
    """The most typical candidate of the largest of the clusters with fewest labels, cluster by cluster.

    Typicality of i is 1 / (10⁻⁵ + mean Euclidean distance to the 20 candidates nearest to i in its cluster, at unit
    length; fewer in smaller clusters). Clusters: k-means with as many as labelled items and picks together, at most
    500, or `clusters`. Each pick goes to the cluster with the fewest labelled items and picks, of those to the largest;
    clusters of fewer than 5 candidates come last of all. Hacohen, Dekel and Weinshall, Active learning on a budget:
    opposite strategies suit high and low budgets, ICML 2022, who cluster self-supervised features. A score is the
    typicality, which neither labels nor earlier picks change. Of a cluster of more than 4,096 candidates, those nearest
    to its centre alone are looked at. Cost: O(n·(m + b)·d), one pass over the candidates, and all distances within each
    cluster picked from.
    """

    needs = frozenset({Need.LABELLED})

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:  # noqa: ARG002 - the signature of all
        self._neighbors = options.neighbors or _NEIGHBORS
        self._clusters = options.clusters

    def pick(self, view: CandidateView, count: int) -> Batch:
        """Return the picks; their scores are not in order."""
        count = min(count, len(view))
        wanted = self._clusters or min(len(view.labelled) + count, _MOST_CLUSTERS)
        if count == 0:
            return Batch(rows=np.empty(0, np.int64), scores=np.empty(0))
        found = cluster_view(view, wanted, seed=view.seed)
        covered = _labels_of_clusters(view.labelled, found.centres)
        sizes = np.bincount(found.assignment, minlength=len(covered))
        small, left = sizes < _SMALL_CLUSTER, sizes.copy()
        ranked: dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        rows, scores = np.empty(count, np.int64), np.empty(count)
        for number in range(count):
            cluster = int(np.lexsort((-sizes, covered, small, left == 0))[0])
            if cluster not in ranked:
                ranked[cluster] = self._ranked(view, found, cluster)
            place = sizes[cluster] - left[cluster]
            rows[number], scores[number] = ranked[cluster][0][place], ranked[cluster][1][place]
            covered[cluster] += 1
            left[cluster] -= 1
        return Batch(rows=rows, scores=scores)

    def _ranked(
        self, view: CandidateView, found: Clusters, cluster: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return a cluster's candidates, most typical first, and their typicality; 0 for those not looked at."""
        members = np.flatnonzero(found.assignment == cluster)
        by_distance = members[np.argsort(found.squared_distances[members], kind="stable")]
        near, far = np.sort(by_distance[:_MOST_MEMBERS]), by_distance[_MOST_MEMBERS:]
        distances, _ = nearest_others(fetch_units(view, near), self._neighbors, heartbeat=lambda: still_wanted(view))
        typicality = 1 / (_SOFTENING + _means(distances))
        order = np.argsort(-typicality, kind="stable")
        return np.concatenate([near[order], far]), np.concatenate([typicality[order], np.zeros(len(far))])


def _means(distances: torch.Tensor) -> NDArray[np.float64]:
    if distances.shape[1] == 0:
        return np.zeros(len(distances))
    means: NDArray[np.float64] = distances.double().mean(dim=1).cpu().numpy()
    return means


def _labels_of_clusters(labelled: LabelledView, centres: torch.Tensor) -> NDArray[np.int64]:
    """Return how many labelled items (k,) lie nearest to each centre."""
    if not len(labelled):
        return np.zeros(len(centres), np.int64)
    units = torch.nn.functional.normalize(labelled.vectors.float(), dim=1)
    nearest, _ = assign(units, centres)
    return np.bincount(nearest.cpu().numpy(), minlength=len(centres))
