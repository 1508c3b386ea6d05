"""Figures in words."""

import math
from collections.abc import Sequence


def share(value: float) -> str:
    """Return 0.0471 as "4.7 %", a number without a meaning as a dash."""
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"


def few(names: Sequence[str]) -> str:
    """Return the first twelve names, and how many there are beside."""
    more = f" and {len(names) - 12:,} more" if len(names) > 12 else ""
    return ", ".join(names[:12]) + more


def word(name: str, prefix: str) -> str:
    """Return an enum's name as words: "ROUND_STATE_FINISHED" less its prefix as "finished"."""
    return name.removeprefix(prefix).lower().replace("_", " ")


def decimal(value: float) -> str:
    """Return three decimals, a number without a meaning as a dash."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def percent(value: float) -> str:
    """Return a share for an axis: three digits that count."""
    return f"{100 * value:.3g} %"


def seconds(value: float) -> str:
    """Return seconds: three digits that count."""
    return f"{value:.3g} s"


def short(value: float) -> str:
    """Return a count for an axis: 12,300 as "12.3 k"."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"
