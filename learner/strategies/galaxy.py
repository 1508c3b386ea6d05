"""GALAXY."""

import heapq

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
    are the rest of the batch. Zhang, Katz-Samuels and Nowak, GALAXY: Graph-based active learning at the extreme, ICML
    2022.

    The paper halves with the label of each pick. Here the labels of a batch come together, so a pick is taken to have
    the classes that the model predicts until then. A line whose labelled items are all of one kind is cut at margin 0,
    where the prediction turns. Between equal stretches or distances the first class wins. The score is 1 − |margin| on
    the line that an item was picked from, in [0, 1].

    Cost: O(c·n·log n), O(c·(m + b)) a pick. Memory: 12 bytes a candidate and class up to 400 MB; beyond it, picks come
    from a uniform draw of the candidates.
    """

    needs = frozenset({Need.MODEL, Need.LABELLED, Need.CLASSES})

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        pass

    def pick(self, view: CandidateView, count: int) -> Batch:
        """Return the picks and one minus the size of their margins."""
        lines = class_lines(view, at_least=count)
        count = min(count, len(lines.scores))
        picked = _bisected(view, [_Line(lines, number) for number in range(lines.lines)], count)
        rows = np.array([row for row, _ in picked], np.int64)
        scores = np.array([1 - abs(float(lines.scores[row, line])) for row, line in picked])
        return Batch(rows=rows, scores=scores)


class _Line:
    """One class's line: items by score, candidates before labelled items of the same score.

    `places` of what is labelled or picked, ascending, with `kinds` beside them.
    """

    def __init__(self, lines: ClassLines, number: int) -> None:
        candidates, labelled = lines.scores[:, number], lines.labelled[:, number]
        order = np.argsort(np.concatenate([candidates, labelled]), kind="stable")
        known = np.flatnonzero(order >= len(candidates))
        self._order = order
        self._place = np.empty(len(order), np.int64)
        self._place[order] = np.arange(len(order))
        self._known = np.zeros(len(order), np.bool_)
        self._known[known] = True
        self._predicted = candidates > 0
        self.places = known
        self.kinds = lines.positive[order[known] - len(candidates), number]
        self._middle = int(np.count_nonzero(candidates <= 0) + np.count_nonzero(labelled <= 0))

    def shortest(self) -> tuple[int, int]:
        """Return the length of the shortest stretch of candidates with a cut and its middle row; length 0 if none."""
        lengths = np.diff(self.places) - 1
        lengths = np.where((self.kinds[1:] != self.kinds[:-1]) & (lengths > 0), lengths, len(self._order))
        if len(lengths) == 0 or lengths.min() == len(self._order):
            return 0, -1
        stretch = int(np.argmin(lengths))
        return int(lengths[stretch]), int(self._order[self.places[stretch] + (lengths[stretch] + 1) // 2])

    def take(self, row: int) -> None:
        """Let a candidate be known, of the kind that is predicted."""
        place = self._place[row]
        where = int(np.searchsorted(self.places, place))
        self.places = np.insert(self.places, where, place)
        self.kinds = np.insert(self.kinds, where, self._predicted[row])
        self._known[place] = True

    def cuts(self) -> NDArray[np.int64]:
        """Return where cuts are: each lies before the place named."""
        found: NDArray[np.int64] = self.places[1:][self.kinds[1:] != self.kinds[:-1]]
        return found if len(found) else np.array([self._middle])

    def next(self, place: int, step: int) -> tuple[int, int]:
        """Return the place and row of the first unknown candidate from `place` on; row −1 past the end."""
        while 0 <= place < len(self._order) and self._known[place]:
            place += step
        return place, int(self._order[place]) if 0 <= place < len(self._order) else -1


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
