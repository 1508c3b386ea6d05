"""k-center, greedy."""

import numpy as np
import torch
from numpy.typing import NDArray

from learner.clustering import still_wanted
from learner.options import StrategyOptions
from learner.ports import Batch, CandidateView
from learner.problem import Problem
from learner.selection import round_scores
from sealpool.vocabulary.strategies import Need

_SET_BYTES = 16 << 20
_LEAST_SET = 1024
_BLOCK_BYTES = 32 << 20
_ORIGIN_ROWS = 1024

_SLACK = 2.0**-18
"""How far a product of float32 vectors may be off, as a share of the product of their lengths."""

_EQUAL = 1e-13
"""Squared distances below this share of the squared lengths are rounding of float64: the items are copies."""

_REFILLED_SHARE = 0.05
"""Of the candidates fetched singly before a pass over all of them is cheaper."""


class KCenter:
    """Each pick is the candidate farthest from all that is labelled or picked: argmax_i min_c |x_i − c|, greedily.

    Sener and Savarese, Active learning for convolutional neural networks: a core-set approach, ICLR 2018; Gonzalez,
    Clustering to minimize the maximum intercluster distance, TCS 38 (1985), who shows that the radius is at most twice
    the least possible. Euclidean distance of the vectors as they are; for unit vectors that is the order of cosine
    distance. A score is the distance at the time of the pick, so scores fall. With nothing labelled the first pick is
    the first by draw, as Gonzalez's is an arbitrary one, and takes the second's score.

    The picks are those of the full search, but few candidates are looked at for each. A distance to the nearest centre
    only falls as centres are added, so an old one is a bound; a working set of the candidates with the largest bounds
    is kept exact in float64, and refilled when its farthest falls below a bound outside. Where refilling does not end,
    one pass brings all bounds up to date: never more than one pass a pick. Equal distances, to
    18 bits, go to the first by draw. Cost: O(n·m·d) for the labelled items, then, where
    distances differ, far less than O(n·d) a pick; 21 bytes a candidate and 48 MB.
    """

    needs = frozenset({Need.LABELLED})

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        pass

    def pick(self, view: CandidateView, count: int) -> Batch:
        """Return the picks, farthest first."""
        count = min(count, len(view))
        rows, squares = np.empty(count, np.int64), np.zeros(count)
        if count == 0:
            return Batch(rows=rows, scores=squares)
        search = _FarthestFirst(view, count)
        begun = 0
        if not len(view.labelled):
            rows[0], begun = 0, 1
            search.add_first_centre()
        for number in range(begun, count):
            rows[number], squares[number] = search.next_farthest()
        if begun:
            squares[0] = squares[1] if count > 1 else search.largest()
        return Batch(rows=rows, scores=np.sqrt(squares))


class _FarthestFirst:
    """Candidates with bounds of their squared distances to the nearest centre.

    Vectors and centres are taken relative to an origin among them, so that data far from 0 keep their digits. In the
    working set, whose rows ascend, the bounds are exact. `_known` says how many centres a row's bound has been lowered
    by in float64; a pass lowers it further in float32, with slack, so that it stays a bound.
    """

    def __init__(self, view: CandidateView, count: int) -> None:
        self._view = view
        size = len(view)
        self._origin = view.at(np.arange(min(size, _ORIGIN_ROWS))).vectors.double().mean(dim=0)
        dimension = len(self._origin)
        labelled = view.labelled.vectors
        self._centres = torch.empty(len(labelled) + count, dimension, dtype=torch.float64, device=view.device)
        self._centres[: len(labelled)] = labelled.double() - self._origin
        self._centre_count = len(labelled)
        self._centres_of_pass = 0
        self._bounds = np.full(size, np.inf)
        self._known = np.zeros(size, np.int32)
        self._squares = np.zeros(size, np.float32)
        self._lengths = np.zeros(size, np.float32)
        self._picked = np.zeros(size, np.bool_)
        self._room = min(size, max(1, min(_SET_BYTES // max(1, 8 * dimension), max(_LEAST_SET, size // 16))))
        self._refilled = 0
        self._rows = np.empty(0, np.int64)
        self._vectors = torch.empty(0, dimension, dtype=torch.float64, device=view.device)
        self._own = torch.empty(0, dtype=torch.float64, device=view.device)
        self._outside = (np.inf, 0)
        if len(labelled):
            self._pass()
            self._refill()

    def add_first_centre(self) -> None:
        """Pick the first row, with nothing labelled."""
        vector = self._view.at(np.zeros(1, np.int64)).vectors[0].double() - self._origin
        self._append(vector)
        self._picked[0] = True
        self._pass()
        self._refill()

    def next_farthest(self) -> tuple[int, float]:
        """Pick the row farthest from all centres; return it and its squared distance, and make it a centre."""
        place, square = self._farthest()
        row = int(self._rows[place])
        self._picked[row] = True
        self._bounds[row] = -np.inf
        self._append(self._vectors[place].clone())
        self._bring_up_to_date()
        return row, square

    def largest(self) -> float:
        """Return the squared distance of the row that would be picked next; 0 if there is none."""
        return 0.0 if self._picked.all() else self._farthest()[1]

    def _farthest(self) -> tuple[int, float]:
        """Return the place in the working set of the farthest row and its squared distance, refilling as needed."""
        while True:
            squares = round_scores(self._bounds[self._rows])
            place = int(np.argmax(squares))
            bound, row = self._outside
            if (squares[place], -self._rows[place]) >= (bound, -row):
                return place, float(squares[place])
            still_wanted(self._view)
            pending = self._centre_count - self._centres_of_pass
            if pending and self._refilled + self._room > _REFILLED_SHARE * len(self._bounds):
                self._pass()
            self._refill()

    def _append(self, centre: torch.Tensor) -> None:
        self._centres[self._centre_count] = centre
        self._centre_count += 1

    def _refill(self) -> None:
        """Make the working set of the largest bounds, the first rows of equal ones, and bring it up to date."""
        order, self._outside = _largest(self._bounds, self._room)
        self._rows = np.sort(order)
        self._vectors = self._view.at(self._rows).vectors.double() - self._origin
        self._own = self._vectors.square().sum(dim=1)
        self._refilled += len(self._rows)
        self._bring_up_to_date()

    def _bring_up_to_date(self) -> None:
        """Lower the bounds of the working set by the centres that they do not know yet."""
        known = self._known[self._rows]
        order = np.argsort(known, kind="stable")
        alike = known[order[0]] == known[order[-1]]
        step = max(1, _BLOCK_BYTES // (8 * max(1, self._centre_count - int(known[order[0]]))))
        for at in range(0, len(order), step):
            first = int(known[order[at]])
            if first < self._centre_count:
                still_wanted(self._view)
                self._lower_exactly(slice(at, at + step) if alike else order[at : at + step], first)
        self._known[self._rows] = self._centre_count

    def _lower_exactly(self, places: NDArray[np.int64] | slice, first: int) -> None:
        """Lower the bounds of some of the working set by the centres from `first` on."""
        chosen = places if isinstance(places, slice) else torch.from_numpy(places).to(self._vectors.device)
        centres, own = self._centres[first : self._centre_count], self._own[chosen]
        products = torch.addmm(centres.square().sum(dim=1), self._vectors[chosen], centres.T, alpha=-2)
        squares = products.amin(dim=1) + own
        rows = self._rows[places]
        # What is left of nothing but rounding means a copy of a centre.
        squares = torch.where(squares > _EQUAL * own, squares, 0.0)
        self._bounds[rows] = np.minimum(self._bounds[rows], squares.cpu().numpy())

    def _pass(self) -> None:
        """Lower all bounds, with slack for float32, by the centres since the last pass."""
        centres = self._centres[self._centres_of_pass : self._centre_count].float()
        along = centres.double() @ self._origin
        for rows, block in self._view.blocks():
            if self._centres_of_pass == 0:
                self._measure(rows, block.vectors)
            step = max(1, _BLOCK_BYTES // (4 * len(centres)))
            for at in range(rows.start, rows.stop, step):
                part = slice(at, min(at + step, rows.stop))
                vectors = block.vectors[at - rows.start : part.stop - rows.start]
                self._lower_part(part, vectors, centres, along)
        self._bounds[self._picked] = -np.inf
        self._centres_of_pass = self._centre_count
        self._refilled = 0

    def _lower_part(self, rows: slice, vectors: torch.Tensor, centres: torch.Tensor, along: torch.Tensor) -> None:
        """Lower the bounds of consecutive rows; |x − c|² = |x|² + |c|² − 2x·c."""
        away = centres.square().sum(dim=1)
        least = torch.addmm(away + 2 * along.float(), vectors, centres.T, alpha=-2).amin(dim=1)
        own, farthest = self._squares[rows].astype(np.float64), float(away.max())
        slack = _SLACK * (own + farthest + 2 * self._lengths[rows] * farthest**0.5)
        squares = np.maximum(own + least.cpu().numpy(), 0) + slack
        self._bounds[rows] = np.minimum(self._bounds[rows], squares)

    def _measure(self, rows: slice, vectors: torch.Tensor) -> None:
        """Keep the squared length from the origin, and the length from 0, of consecutive rows."""
        origin = self._origin.float()
        step = max(1, _BLOCK_BYTES // (4 * max(1, vectors.shape[1])))
        for at in range(rows.start, rows.stop, step):
            part = vectors[at - rows.start : at - rows.start + step]
            place = slice(at, at + len(part))
            self._squares[place] = (part - origin).square_().sum(dim=1).cpu().numpy()
            self._lengths[place] = part.norm(dim=1).cpu().numpy()


def _largest(bounds: NDArray[np.float64], count: int) -> tuple[NDArray[np.int64], tuple[float, int]]:
    """Return the rows of the `count` largest bounds, the first rows of equal ones, and the largest bound left out.

    Of that, what it is, rounded, and its row: at least as large and as early as any other's.
    """
    if count >= len(bounds):
        return np.arange(len(bounds)), (-np.inf, 0)
    threshold = np.partition(bounds, len(bounds) - count)[len(bounds) - count]
    if threshold == -np.inf:
        chosen = np.flatnonzero(bounds > -np.inf)
        return chosen, (-np.inf, 0)
    reach = threshold * (1 - 2.0**-16)
    near = np.flatnonzero(bounds >= reach)
    rounded = round_scores(bounds[near])
    order = np.argsort(-rounded, kind="stable")
    if len(near) > count:
        return near[order[:count]], (float(rounded[order[count]]), int(near[order[count]]))
    return near, (float(reach), len(bounds))  # what is left out lies below
