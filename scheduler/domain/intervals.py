"""Intervals of shares."""

import math

NORMAL_95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of which `successes` of `trials` were seen; NaN without trials.

    Wilson, *Probable inference, the law of succession, and statistical inference*, JASA 1927.
    """
    if not trials:
        return math.nan, math.nan
    share = successes / trials
    squared = NORMAL_95**2
    middle = (share + squared / (2 * trials)) / (1 + squared / trials)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / trials + squared / (4 * trials**2)) / (1 + squared / trials)
    return max(0.0, middle - half), min(1.0, middle + half)
