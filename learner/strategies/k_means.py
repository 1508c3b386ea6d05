"""One item of each cluster."""

import numpy as np

from learner.clustering import cluster_view
from learner.options import StrategyOptions
from learner.ports import Batch, CandidateView
from learner.problem import Problem
from sealpool.vocabulary.strategies import Need


class KMeans:
    """The candidate nearest to the centre of each of b clusters of the candidates at unit length.

    Zhu, Wang, Yao and Tsou, Active learning with sampling by uncertainty and density, COLING 2008; Yuan, Lin and
    Boyd-Graber, Cold-start active learning through self-supervised language modeling, EMNLP 2020. Largest cluster
    first; a score is the share of the candidates that are in the cluster. Where fewer than b items are distinct, others
    follow, nearest to their centres first, with score 0. Cost: O(n·b·d), one pass over the candidates.
    """

    needs: frozenset[Need] = frozenset()

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        pass

    def pick(self, view: CandidateView, count: int) -> Batch:
        """Return the picks, that of the largest cluster first."""
        count = min(count, len(view))
        if count == 0:
            return Batch(rows=np.empty(0, np.int64), scores=np.empty(0))
        found = cluster_view(view, count, seed=view.seed)
        nearest_first = np.argsort(found.squared_distances, kind="stable")
        clusters, places = np.unique(found.assignment[nearest_first], return_index=True)
        sizes = np.bincount(found.assignment)[clusters]
        order = np.argsort(-sizes, kind="stable")
        chosen = nearest_first[places[order]]
        rest = nearest_first[~np.isin(nearest_first, chosen)][: count - len(chosen)]
        scores = np.concatenate([sizes[order] / len(view), np.zeros(len(rest))])
        return Batch(rows=np.concatenate([chosen, rest]), scores=scores)
