"""GALAXY."""

import heapq
from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from learner.options import StrategyOptions
from learner.ports import Batch, CandidateView
from learner.problem import Problem
from learner.strategies.class_lines import ClassLines, class_lines
from sealpool.vocabulary.strategies import Need


class Galaxy:
    """Bisection between oppositely labelled neighbours on one line a class, then candidates around the cuts.

    For each class, candidates and labelled items lie on a line by margin: its probability less the largest other one
    (multi-label: 2p − 1). Where two labelled neighbours on a line differ in having the class, the cut lies between
    them. The shortest such stretch over all lines is halved: its middle candidate is the next pick (S², the shortest of
    the shortest paths). Once all stretches are used up, the candidates nearest to the cuts, in places along the line,
    are the rest of the batch, as in the paper's graphs of higher order. Zhang, Katz-Samuels and Nowak, GALAXY:
    Graph-based active learning at the extreme, ICML 2022.

    Where it departs: the paper halves with the label of each pick. Here the labels of a batch come together, so a pick
    is taken to have the classes that the model predicts until then. A line whose labelled items are all of one kind is
    cut at margin 0, where the prediction turns; the authors' code draws at random there. Their margin takes the largest
    of all probabilities, so that items predicted as a class all have margin 0 on its line and go by their probability
    of it; their code takes the lines in turn, not the shortest stretch of all. Between equal stretches or distances the
    first class wins. The score is 1 − |margin| on the line that an item was picked from, in [0, 1].

    Cost: O(c·n·log n), O(c·(m + b)) a pick. Memory: 8 bytes a candidate and class up to 134 MB; beyond it, picks come
    from a uniform draw of the candidates.
    """

    needs = frozenset({Need.MODEL, Need.LABELLED, Need.CLASSES})

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        pass

    def pick(self, view: CandidateView, count: int) -> Batch:
        """Return the picks and one minus the size of their margins."""
        lines = class_lines(view, at_least=count)
        count = min(count, lines.scores.shape[1])
        picked = _bisected(view, [_Line(lines, number) for number in range(lines.lines)], count)
        rows = np.array([row for row, _ in picked], np.int64)
        scores = np.array([1 - abs(float(lines.scores[line, row])) for row, line in picked])
        return Batch(rows=rows, scores=scores)


class _Line:
    """One class's line: items by score, candidates before labelled items of the same score.

    `places` of what is labelled or picked, ascending, with `kinds` beside them. What is held of the candidates is their
    order alone, four bytes each beside their scores.
    """

    def __init__(self, lines: ClassLines, number: int) -> None:
        self._scores = lines.scores[number]
        self._order = np.argsort(self._scores, kind="stable").astype(np.int32)
        order = np.argsort(lines.labelled[number], kind="stable")
        self._labelled = lines.labelled[number, order]
        ordered = self._scores[self._order]
        self._labelled_places = np.searchsorted(ordered, self._labelled, "right") + np.arange(len(order))
        self._length = len(self._order) + len(order)
        self.places, self.kinds = self._labelled_places, lines.positive[number, order]
        self._known = set(self.places.tolist())
        self._middle = int(np.searchsorted(ordered, 0, "right") + np.searchsorted(self._labelled, 0, "right"))

    def _row(self, place: int) -> int:
        return int(self._order[place - np.searchsorted(self._labelled_places, place)])

    def _place(self, row: int) -> int:
        score = self._scores[row]
        rank = bisect_left(self._order, (score, row), key=lambda other: (self._scores[other], other))
        return rank + int(np.searchsorted(self._labelled, score))

    def shortest(self) -> tuple[int, int]:
        """Return the length of the shortest stretch of candidates with a cut and its middle row; length 0 if none."""
        lengths = np.diff(self.places) - 1
        lengths = np.where((self.kinds[1:] != self.kinds[:-1]) & (lengths > 0), lengths, self._length)
        if len(lengths) == 0 or lengths.min() == self._length:
            return 0, -1
        stretch = int(np.argmin(lengths))
        return int(lengths[stretch]), self._row(int(self.places[stretch] + (lengths[stretch] + 1) // 2))

    def take(self, row: int) -> None:
        """Let a candidate be known, of the kind that is predicted."""
        place = self._place(row)
        where = int(np.searchsorted(self.places, place))
        self.places = np.insert(self.places, where, place)
        self.kinds = np.insert(self.kinds, where, self._scores[row] > 0)
        self._known.add(place)

    def cuts(self) -> NDArray[np.int64]:
        """Return where cuts are: each lies before the place named."""
        found: NDArray[np.int64] = self.places[1:][self.kinds[1:] != self.kinds[:-1]]
        return found if len(found) else np.array([self._middle])

    def next(self, place: int, step: int) -> tuple[int, int]:
        """Return the place and row of the first unknown candidate from `place` on; row −1 past the end."""
        while place in self._known:
            place += step
        return place, self._row(place) if 0 <= place < self._length else -1


def _bisected(view: CandidateView, lines: list[_Line], count: int) -> list[tuple[int, int]]:
    """Return (row, line) of each pick."""
    picked: list[tuple[int, int]] = []
    stretches = [line.shortest() for line in lines]
    while len(picked) < count:
        view.at(np.empty(0, np.int64))  # raises where the caller has left
        usable = [(length, number) for number, (length, _) in enumerate(stretches) if length > 0]
        if not usable:
            return picked + _spread(view, lines, count - len(picked))
        number = min(usable)[1]
        row = stretches[number][1]
        picked.append((row, number))
        for line in lines:
            line.take(row)
        stretches = [line.shortest() for line in lines]
    return picked


def _spread(view: CandidateView, lines: list[_Line], count: int) -> list[tuple[int, int]]:
    """Return `count` more picks, by their distance to a cut in places along a line."""
    heap = []
    for number, line in enumerate(lines):
        for cut in line.cuts():
            for step, start in ((1, int(cut)), (-1, int(cut) - 1)):
                heap.append((0, number, start, step, start))
    heapq.heapify(heap)
    picked: list[tuple[int, int]] = []
    while len(picked) < count:
        _, number, start, step, place = heapq.heappop(heap)
        found, row = lines[number].next(place, step)
        if row < 0:
            continue
        distance = abs(found - start)
        if heap and (distance, number, start, step) > heap[0][:4]:
            heapq.heappush(heap, (distance, number, start, step, found))
            continue
        view.at(np.empty(0, np.int64))
        picked.append((row, number))
        for line in lines:
            line.take(row)
        heapq.heappush(heap, (distance, number, start, step, found))
    return picked
