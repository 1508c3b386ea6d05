"""Shares seen in samples, with their intervals."""

import math
from dataclasses import dataclass

NORMAL_95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of which `successes` of `trials` were seen; NaN without trials.

    E. B. Wilson, *Probable inference, the law of succession, and statistical inference*, JASA 22, 1927.
    """
    if not trials:
        return math.nan, math.nan
    share = successes / trials
    squared = NORMAL_95**2
    middle = (share + squared / (2 * trials)) / (1 + squared / trials)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / trials + squared / (4 * trials**2)) / (1 + squared / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A share seen in a sample, with its 95 % interval (`wilson`). All three are NaN where `of` is 0."""

    right: int
    of: int

    @property
    def value(self) -> float:
        """The share in the sample."""
        return self.right / self.of if self.of else math.nan

    @property
    def low(self) -> float:
        """The lower end."""
        return wilson(self.right, self.of)[0]

    @property
    def high(self) -> float:
        """The upper end."""
        return wilson(self.right, self.of)[1]
