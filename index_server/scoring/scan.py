"""Score many vectors with a linear model and keep the best."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index_server.ports import Rows
from index_server.records import FloatMatrix
from index_server.scoring.best import Best
from index_server.scoring.model import LinearModel
from index_server.scoring.strategies import Formula, Logits, make_formula
from sealpool.errors import InvalidArgument
from sealpool.types import Vectors

_BLOCK_NUMBERS: Final = 1 << 21
"""Numbers of a block of vectors or logits: 8 MiB, which stays in a core's cache on its way through the formula."""
_MAX_BLOCK_ROWS: Final = 8192

_FORMULA_SLACK: Final = 2.0**-17
"""How far a formula in float32 may be off: a hundred roundings of a number up to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """The best rows (≤ count,), best first, their scores, and how many rows were looked at."""

    rows: Rows
    scores: NDArray[np.float32]
    scored: int


def score_rows(
    blocks: Iterable[tuple[Rows, FloatMatrix]],
    model: LinearModel,
    strategy: str,
    count: int,
    *,
    positive_class: int = 0,
) -> Scored:
    """Return the `count` rows that are most worth a label by `strategy`.

    All are scored in float32, and those who may be among the best once more in float64, each by itself: so equal
    vectors get equal scores, and the answer does not depend on the blocks, in which a matrix product rounds by place.
    Rows whose scores are equal in float32 go by row, the earlier first.

    Parameters
    ----------
    blocks
        Rows (n,), each once in all blocks, and their vectors (n, d), finite. Any sizes: large blocks are scored piece
        by piece, and memory stays at some 40 MiB beside what `blocks` holds.
    model
        Checked.
    strategy
        One of `STRATEGIES`. Its scores are the learner's: entropy in nats, 1 − (p_1 − p_2), 1 − max p, or
        p(positive); multi-label the mean over classes, but for the last.
    positive_class
        Asked for by most_likely_positive alone. A model of one row has but one: the second of its two classes.

    Raises
    ------
    InvalidArgument
        An unknown strategy, a positive class that is none of the model's, a count of 0.
    """
    if count < 1:
        raise InvalidArgument("count", f"{count} is not at least 1")
    scan = _Scan(model, *make_formula(strategy, model, positive_class), count)
    step = max(1, min(_MAX_BLOCK_ROWS, _BLOCK_NUMBERS // max(model.weights.shape)))
    scored = 0
    for rows, vectors in blocks:
        for start in range(0, len(rows), step):
            scan.add(rows[start : start + step], vectors[start : start + step])
        scored += len(rows)
    best_rows, scores = scan.best.ranked()
    return Scored(rows=best_rows, scores=scores, scored=scored)


class _Scan:
    def __init__(self, model: LinearModel, formula: Formula, slope: float, count: int) -> None:
        self._formula = formula
        self._count = count
        self._weights = np.ascontiguousarray(model.weights.T, np.float32)
        self._biases = model.biases.astype(np.float32)[:, None]
        self._exact_weights = model.weights.astype(np.float64)
        self._exact_biases = model.biases.astype(np.float64)
        # A sum of d products is off by some √d roundings (Higham and Mary, A new approach to probabilistic rounding
        # error analysis, SIAM J. Sci. Comput. 41(5), 2019), each at most 2⁻²⁴ of ‖w‖·‖x‖; 2 for what is left to chance.
        rounding = 2 * 2.0**-24 * slope
        self._slack_of_length = rounding * np.sqrt(model.weights.shape[1]) * _max_length(self._exact_weights)
        self._slack = _FORMULA_SLACK + rounding * float(np.abs(self._exact_biases).max())
        self.best = Best(count)

    def add(self, rows: Rows, vectors: FloatMatrix) -> None:
        """Score some rows, few enough to have all of it in memory."""
        block = np.ascontiguousarray(vectors, np.float32)
        few = self._contenders(block)
        scores = self._formula(self._exact_logits(block[few]))
        self.best.add(rows[few], scores.astype(np.float32))

    def _contenders(self, block: Vectors) -> NDArray[np.intp]:
        """Return the positions of vectors that may be among the best in exact arithmetic."""
        slack = self._slack + self._slack_of_length * _max_length(block)
        if not slack < 1:  # logits so large that float32 tells nothing, or overflows
            return np.arange(len(block))
        scores = self._formula(self._logits(block))
        few = np.flatnonzero(scores >= self.best.floor - slack)
        if len(few) > self._count:
            threshold = np.partition(scores[few], len(few) - self._count)[len(few) - self._count]
            few = few[scores[few] >= threshold - 2 * slack]
        return few

    def _logits(self, block: Vectors) -> Logits:
        logits = np.ascontiguousarray((block @ self._weights).T)  # two thirds of the time of the product transposed
        logits += self._biases
        return logits

    def _exact_logits(self, block: Vectors) -> Logits:
        """Return (c, n) float64, each vector's a function of itself alone, which a matrix product does not promise."""
        logits = np.vecdot(block.astype(np.float64)[:, None, :], self._exact_weights)
        logits += self._exact_biases
        return np.ascontiguousarray(logits.T)


def _max_length(vectors: NDArray[np.floating]) -> float:
    """Return the largest norm, infinity where float32 has no room for it."""
    if not len(vectors):
        return 0.0
    with np.errstate(over="ignore"):
        return float(np.sqrt(np.vecdot(vectors, vectors).max()))
