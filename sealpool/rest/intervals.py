"""Shares with their intervals."""

import math
from dataclasses import dataclass

_Z_95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A share seen in a sample, with its 95 % interval (Wilson, JASA 1927). All three are NaN where `of` is 0."""

    right: int
    of: int

    @property
    def value(self) -> float:
        """The share in the sample."""
        return self.right / self.of if self.of else math.nan

    @property
    def low(self) -> float:
        """The lower end."""
        return max(0.0, self._centre() - self._half()) if self.of else math.nan

    @property
    def high(self) -> float:
        """The upper end."""
        return min(1.0, self._centre() + self._half()) if self.of else math.nan

    def _centre(self) -> float:
        return (self.right + _Z_95**2 / 2) / (self.of + _Z_95**2)

    def _half(self) -> float:
        spread = self.right * (self.of - self.right) / self.of + _Z_95**2 / 4
        return _Z_95 * math.sqrt(spread) / (self.of + _Z_95**2)
