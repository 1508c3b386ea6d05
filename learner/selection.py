"""The best k of many scores, the same whatever order they come in."""

import numpy as np
from numpy.typing import NDArray

from learner.draws import Keys

Scores = NDArray[np.float64]

SCORE_BITS = 18
"""Bits of a score that are looked at. A matrix product in float32 gives one row results that differ in the last bits
with the row's place among the others (MKL does: of 5,000 equal rows not all came out equal), so exact repeats of an
item would be ordered by their place in the cache."""

_SLACK = 2.0 ** (2 - SCORE_BITS)


def round_scores(scores: Scores) -> Scores:
    """Round to SCORE_BITS significant bits."""
    mantissa, exponent = np.frexp(scores)
    rounded: Scores = np.ldexp(np.round(np.ldexp(mantissa, SCORE_BITS)), exponent - SCORE_BITS)
    return rounded


def finalists(scores: Scores, count: int) -> NDArray[np.int64]:
    """Return the positions, ascending, that may be among the best `count` when rounding noise is taken off.

    -inf marks what is not to be picked and is never returned.
    """
    if count == 0:
        return np.empty(0, np.int64)
    allowed = np.flatnonzero(scores > -np.inf)
    if count >= len(allowed):
        return allowed
    threshold = np.partition(scores, len(scores) - count)[len(scores) - count]
    return np.flatnonzero((scores >= threshold - _SLACK * abs(threshold)) & (scores > -np.inf))


def best(scores: Scores, draws: Keys, count: int) -> NDArray[np.int64]:
    """Return the positions of the best `count` scores, best first; equal scores in the order of their draws.

    Costs one partition, and a sort of what is at or above the threshold only.
    """
    count = min(count, len(scores))
    if count == 0:
        return np.empty(0, np.int64)
    threshold = np.partition(scores, len(scores) - count)[len(scores) - count]
    reached = np.flatnonzero(scores >= threshold)
    order = np.lexsort((draws[reached], -scores[reached]))
    return reached[order[:count]]
