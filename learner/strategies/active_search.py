"""Efficient non-myopic search."""

import numpy as np
import torch
from numpy.typing import NDArray

from learner.neighbours import nearest_candidates, unit_rows
from learner.options import StrategyOptions
from learner.ports import Batch, CandidateView
from learner.problem import Problem
from learner.strategies.most_likely_positive import positive_column
from sealpool.errors import InvalidArgument
from sealpool.vocabulary.strategies import Need

PRIOR = 0.1
"""γ, the probability of a candidate that nothing is known about; the paper's value."""

HORIZON = 1
"""The remaining budget is taken to be this many batches.

Of one that stays ten batches away whatever is spent, the end never comes near, and what is sure is put off for ever:
CLINC150, 2,000 candidates, 5 positives labelled and 5.75 more, two batches of 10: 1.5 of them found, instead of all.
"""

_NEIGHBORS = 50
_MOST_SIMILARITIES = 250_000_000
_MOST_CONSIDERED = 4096
_FEWEST_CONSIDERED = 1024


class ActiveSearch:
    """φ(i) = p(i) + E_y[the largest sum of p over t − 1 other candidates, once i is known to be y].

    The expected number of positives found with a remaining budget of t labels if all but the first were asked for at
    once: what an answer would teach counts, not the next find alone. Jiang et al., Efficient nonmyopic active search,
    ICML 2017. What remains of the campaign's budget is not known here; it is taken to be this batch: t = count, and one
    less after each pick.

    p is the paper's nearest-neighbour model on the items' vectors, p(i) = (γ + Σ_j w_ij y_j) / (1 + Σ_j w_ij), γ = 0.1,
    over the known items j that i is among the k nearest candidates of (`neighbors`, 50), w their cosine similarity,
    not below 0. (The paper looks for j among the k nearest of i; this way only the neighbours of labelled and
    considered items need to be found.) Within a batch, each pick is taken to be negative until its label comes, the
    pessimistic oracle of Jiang et al., Efficient nonmyopic batch active search, NeurIPS 2018, which spreads a batch.
    The score is φ when picked.

    All candidates are considered as picks up to 4,096; of more, the 4,096 of largest p (the first of equals), past
    61,000 candidates the 2.5·10⁸ / n of largest p, at least 1,024 and 4·count. Cost: O((m + considered)·n·d) once, then
    O(n + considered·k·log k) a pick. Memory: O(n) numbers, and (m + considered)·k.

    Raises
    ------
    InvalidArgument
        `positive_class` is none of the classes, or not given where the campaign is not binary; `neighbors` is negative.
    """

    needs = frozenset({Need.LABELLED, Need.CLASSES})

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        if options.neighbors < 0:
            raise InvalidArgument("header.strategy.neighbors", f"{options.neighbors} is negative")
        self._neighbors = options.neighbors or _NEIGHBORS
        self._column = positive_column(options.positive_class, problem)

    def pick(self, view: CandidateView, count: int) -> Batch:
        """Return the picks and the positives expected when each was picked."""
        count = min(count, len(view))
        search = _Search(view, self._positive(view), self._neighbors)
        most = max(min(_MOST_SIMILARITIES // max(1, len(view)), _MOST_CONSIDERED), _FEWEST_CONSIDERED, 4 * count)
        search.consider(most)
        rows, scores = np.empty(count, np.int64), np.empty(count)
        for place in range(count):
            view.at(np.empty(0, np.int64))  # raises where the caller has left
            expected = search.expected(HORIZON * count - place)
            best = int(np.argmax(expected >= expected.max() - 1e-9))
            rows[place], scores[place] = search.considered[best], expected[best]
            search.learn_negative(best)
        return Batch(rows=rows, scores=scores)

    def _positive(self, view: CandidateView) -> NDArray[np.bool_]:
        targets = view.labelled.targets
        positive: NDArray[np.bool_] = (
            targets[:, self._column].astype(np.bool_) if targets.ndim == 2 else targets == self._column
        )
        return positive


class _Search:
    """What is known of each candidate. `hits` and `weights` (n,) are Σ w y and Σ w; `open` (n,) is not picked yet."""

    def __init__(self, view: CandidateView, positive: NDArray[np.bool_], neighbors: int) -> None:
        self._view, self._neighbors = view, neighbors
        queries = unit_rows(view.labelled.vectors.to(torch.float32))
        rows, weights = nearest_candidates(view, queries, neighbors)
        self._weights, self._hits = np.zeros(len(view)), np.zeros(len(view))
        np.add.at(self._weights, rows, weights)
        np.add.at(self._hits, rows, weights * positive[:, None])
        self._open = np.ones(len(view), np.bool_)

    @property
    def chances(self) -> NDArray[np.float64]:
        """Return p (n,), −1 for what is picked."""
        return np.where(self._open, (PRIOR + self._hits) / (1 + self._weights), -1.0)

    def consider(self, most: int) -> None:
        """Choose the candidates that may be picked, and find their neighbours."""
        order = np.argsort(-self.chances, kind="stable")[:most]
        self.considered = np.sort(order)
        queries = unit_rows(self._view.at(self.considered).vectors) if len(order) else torch.empty(0, 0)
        self._near, self._near_weights = nearest_candidates(self._view, queries, self._neighbors, self.considered)

    def learn_negative(self, place: int) -> None:
        """Take a considered candidate as picked and negative."""
        self._open[self.considered[place]] = False
        self._weights[self._near[place]] += self._near_weights[place]

    def expected(self, budget: int) -> NDArray[np.float64]:
        """Return φ of the considered candidates, −inf for those picked."""
        chances = self.chances
        others = min(budget - 1, int(np.count_nonzero(self._open)) - 1)
        top = _Top(chances, others, self._near.shape[1] + 1)
        found = np.empty(len(self.considered))
        step = max(1, (1 << 20) // top.width)
        for start in range(0, len(found), step):
            some = slice(start, start + step)
            found[some] = self._expected_of(some, chances, top)
        found[~self._open[self.considered]] = -np.inf
        return found

    def _expected_of(self, some: slice, chances: NDArray[np.float64], top: "_Top") -> NDArray[np.float64]:
        own, near, added = self.considered[some], self._near[some], self._near_weights[some]
        changed = np.concatenate([own[:, None], near], axis=1)
        totals = 1 + self._weights[near] + added
        total = chances[own]
        for positive, chance in ((1, chances[own]), (0, 1 - chances[own])):
            after = (PRIOR + self._hits[near] + positive * added) / totals
            after = np.where(self._open[near], after, 0.0)  # what is picked cannot be found again
            total = total + chance * top.sum_after(changed, after)
        return total


class _Top:
    """Sums of the largest numbers, when a few of them are exchanged.

    Parameters
    ----------
    values
        (n,), −1 for what does not count.
    size
        How many are summed.
    exchanged
        The most that are exchanged at once.
    """

    def __init__(self, values: NDArray[np.float64], size: int, exchanged: int) -> None:
        kept = min(len(values), size + exchanged)
        first = np.argpartition(-values, kept - 1)[:kept] if kept else np.empty(0, np.int64)
        order = first[np.argsort(-values[first], kind="stable")]
        self._values = np.maximum(values, 0)
        self._rank = np.full(len(values), kept, np.int64)
        self._rank[order] = np.arange(kept)
        self._sums = np.concatenate([[0.0], self._values[order].cumsum()])
        self._kept, self._size = kept, max(0, size)
        self.width = exchanged

    def sum_after(self, changed: NDArray[np.int64], after: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (r,) the largest sums of `size`, with values at `changed` (r, a) gone and `after` (r, b) in.

        Largest over how many new values are taken; so many fewer are taken of the old ones that stay.
        """
        ranks = np.sort(self._rank[changed], axis=1)
        gone = np.take_along_axis(self._values[changed], np.argsort(self._rank[changed], axis=1, kind="stable"), axis=1)
        gone_sums = np.concatenate([np.zeros((len(changed), 1)), gone.cumsum(axis=1)], axis=1)
        # The j-th gone lies before the first q that stay where its rank less j is below q.
        before = ranks - np.arange(ranks.shape[1])
        new = -np.sort(-after, axis=1)
        new_sums = np.concatenate([np.zeros((len(after), 1)), new.cumsum(axis=1)], axis=1)
        best = np.zeros(len(changed))
        for taken in range(min(self._size, new.shape[1]) + 1):
            stay = self._size - taken
            passed = np.count_nonzero((before < stay) & (ranks < self._kept), axis=1)
            old = (
                self._sums[np.minimum(stay + passed, self._kept)]
                - np.take_along_axis(gone_sums, passed[:, None], axis=1)[:, 0]
            )
            np.maximum(best, old + new_sums[:, taken], out=best)
        return best
