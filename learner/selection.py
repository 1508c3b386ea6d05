"""The best k of many scores, the same whatever order they come in."""

import numpy as np
from numpy.typing import NDArray

from learner.draws import Keys

Scores = NDArray[np.float64]

SCORE_BITS = 18
"""Bits of a score, computed in float64, that are looked at. A matrix product gives one row results that differ in the
last bits with the row's place among the others (MKL does: of 5,000 equal rows not all came out equal), so exact repeats
of an item would be ordered by their place in the cache. In float32 rounding is not enough: one score in some 30 lies so
near the edge between two rounded values that noise decides."""

_RELATIVE_SLACK, _SLACK = 2.0**-16, 2.0**-20
"""How far a score in float32 may be off: by a share of itself, and, where it is one minus something, by a constant."""


def round_scores(scores: Scores) -> Scores:
    """Round to SCORE_BITS significant bits."""
    mantissa, exponent = np.frexp(scores)
    rounded: Scores = np.ldexp(np.round(np.ldexp(mantissa, SCORE_BITS)), exponent - SCORE_BITS)
    return rounded


def finalists(scores: Scores, count: int) -> NDArray[np.int64]:
    """Return the positions, ascending, of scores in float32 that may be among the best `count` in exact arithmetic.

    Costs one partition. Where all scores lie closer together than float32 tells apart, all are returned. -inf marks
    what is not to be picked and is never returned.
    """
    if count == 0:
        return np.empty(0, np.int64)
    allowed = np.flatnonzero(scores > -np.inf)
    if count >= len(allowed):
        return allowed
    threshold = np.partition(scores, len(scores) - count)[len(scores) - count]
    reach = threshold - _RELATIVE_SLACK * abs(threshold) - _SLACK
    return np.flatnonzero((scores >= reach) & (scores > -np.inf))


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
