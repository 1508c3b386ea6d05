"""The best n of scores that come in parts."""

import numpy as np
from numpy.typing import NDArray

from index_server.ports import Rows

Scores = NDArray[np.float32]


class Best:
    """The best `count` (≥ 1) rows of all that were added; of equal scores the lower row.

    Neither the order nor the parts in which rows come in matter. Keeps at most 1.25·count rows and the last part.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._rows = [np.empty(0, np.int64)]
        self._scores = [np.empty(0, np.float32)]
        self._held = 0
        self.floor = -np.inf
        """What scores less is not among the best."""

    def add(self, rows: Rows, scores: Scores) -> None:
        """Take some more, each row once."""
        self._rows.append(rows)
        self._scores.append(scores)
        self._held += len(rows)
        if self._held >= self._count + self._count // 4:
            self._shrink()

    def ranked(self) -> tuple[Rows, Scores]:
        """Return the rows (≤ count) and their scores, best first."""
        self._shrink()
        return self._rows[0], self._scores[0]

    def _shrink(self) -> None:
        rows, scores = _best(np.concatenate(self._rows), np.concatenate(self._scores), self._count)
        self._rows, self._scores, self._held = [rows], [scores], len(rows)
        if len(rows) == self._count:
            self.floor = float(scores[-1])


def _best(rows: Rows, scores: Scores, count: int) -> tuple[Rows, Scores]:
    """Costs one partition, and a sort of what is at or above the threshold only."""
    if len(rows) > count:
        threshold = np.partition(scores, len(scores) - count)[len(scores) - count]
        reached = np.flatnonzero(scores >= threshold)
        rows, scores = rows[reached], scores[reached]
    order = np.lexsort((rows, -scores))[:count]
    return rows[order], scores[order]
