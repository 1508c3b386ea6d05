"""Medians, quantiles, and timing things beside each other."""

import math
import time
from collections.abc import Callable, Mapping, Sequence


def median(values: Sequence[float]) -> float:
    """Return the middle value, or the mean of the two in the middle. ValueError without any."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def quantile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank quantile: the least value that `share` (0 to 1) of the values do not exceed.

    It is always a value that was measured. Under 1 / (1 − share) values it is the largest one.
    """
    if not values:
        raise ValueError("no values")
    if not 0 <= share <= 1:
        raise ValueError(f"share {share:g} is not in 0 to 1")
    # Rounded first: 0.99 · 200 is a little more than 198 in floating point.
    return sorted(values)[max(0, math.ceil(round(share * len(values), 9)) - 1)]


def seconds(work: Callable[[], object], *, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how long one call takes."""
    started = clock()
    work()
    return clock() - started


def side_by_side(
    works: Mapping[str, Callable[[int], object]],
    *,
    repetitions: int,
    warm_ups: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time several things in turn, A B A B …, so that whatever slows the machine for a while slows all of them.

    Parameters
    ----------
    works
        Each is called with the number of the repetition; warm-ups count on below zero, and are not in the answer.

    Returns
    -------
    Seconds of each repetition, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for repetition in range(-warm_ups, repetitions):
        for name, work in works.items():
            started = clock()
            work(repetition)
            if repetition >= 0:
                times[name].append(clock() - started)
    return times


def recall(found: set[str], wanted: set[str]) -> float:
    """Return the share of `wanted` that is in `found`; 1 where nothing was wanted."""
    return len(found & wanted) / len(wanted) if wanted else 1.0
