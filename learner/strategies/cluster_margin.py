"""Cluster-Margin."""

import numpy as np
from numpy.typing import NDArray

from learner.clustering import cluster_view
from learner.options import StrategyOptions
from learner.ports import Batch, CandidateView
from learner.problem import Problem
from learner.strategies.margin import Margin
from learner.strategies.subset import Subset, best_rows
from sealpool.vocabulary.strategies import Need

CANDIDATES_A_PICK = 10
MOST_CLUSTERS = 1000


class ClusterMargin:
    """The 10·b least margins, in clusters; one item a cluster in turn, the smallest cluster first, until b are picked.

    Within a cluster the draw decides, as in the paper; small clusters run out, and the round goes on among the others.
    Scores are `margin`'s, of each pick. The paper clusters the whole pool once, agglomeratively, which takes O(n²);
    here k-means (at unit length) groups the 10·b items alone, into `clusters` groups: b by default, ten items each as
    in the paper, and at most 1,000. A cluster's size is the number of these items in it. Citovsky et al., Batch active
    learning at scale, NeurIPS 2021. Cost: O(n·c), and clusters of ten times the batch.
    """

    needs = frozenset({Need.MODEL})

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        self._clusters = options.clusters
        self._margin = Margin(StrategyOptions(name="margin"), problem)

    def pick(self, view: CandidateView, count: int) -> Batch:
        """Return the picks in the order of the rounds."""
        count = min(count, len(view))
        margins = np.empty(len(view), np.float32)
        for block, context in view.blocks():
            margins[block] = self._margin.score(context).cpu().numpy()
        least = np.sort(best_rows(margins, CANDIDATES_A_PICK * count))
        if count == 0 or len(least) == count:
            rows = least[best_rows(margins[least], count)]
        else:
            clusters = self._clusters or min(count, MOST_CLUSTERS)
            groups = cluster_view(Subset(view, least), clusters, seed=view.seed).assignment
            rows = least[_in_turns(groups)[:count]]
        return Batch(rows=rows, scores=margins[rows].astype(np.float64))


def _in_turns(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of all items: the first of each group, the smallest group first, then the second of each."""
    numbers, sizes = np.unique(groups, return_counts=True)
    members = [np.flatnonzero(groups == number) for number in numbers[np.argsort(sizes, kind="stable")]]
    turns = np.concatenate([np.arange(len(some)) for some in members])
    order: NDArray[np.int64] = np.concatenate(members)[np.argsort(turns, kind="stable")]
    return order
