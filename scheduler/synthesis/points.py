"""Points in embedding space between labelled items."""

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from sealpool.types import ItemId, Vectors

ITERATIONS = 20
"""Halvings of a bisection: the point is found to a millionth of the pair's distance."""

Pair = tuple[ItemId, ItemId]
Minds = Callable[[Vectors], Sequence[Hashable]]
"""From points (n, d) to what is thought of each."""


def differing_pairs(groups: Mapping[ItemId, Hashable], count: int, *, randomness: np.random.Generator) -> list[Pair]:
    """Draw `count` pairs of items of different groups, none where there is one group only.

    Two groups are drawn, all alike, and an item of each: a rare class takes part as often as a frequent one.
    """
    members: dict[Hashable, list[ItemId]] = {}
    for item in sorted(groups):
        members.setdefault(groups[item], []).append(item)
    sides = list(members.values())
    if len(sides) < 2:
        return []
    pairs = []
    for _ in range(count):
        first, second = randomness.choice(len(sides), size=2, replace=False)
        one, other = sides[first], sides[second]
        pairs.append((one[randomness.integers(len(one))], other[randomness.integers(len(other))]))
    return pairs


def between(starts: Vectors, ends: Vectors, *, randomness: np.random.Generator) -> Vectors:
    """Return one point on the way from each row of `starts` (n, d) to that of `ends`.

    Where on the way is drawn from Beta(2, 2): mostly near the middle, where the classes meet.
    """
    shares = randomness.beta(2, 2, size=(len(starts), 1)).astype(np.float32)
    return np.asarray(starts + shares * (ends - starts), np.float32)


def boundary(starts: Vectors, ends: Vectors, minds: Minds, *, iterations: int = ITERATIONS) -> Vectors:
    """Return the point on the way from each start to its end, (n, d), where the mind changes; all bisected at once.

    The mind of each start must differ from that of its end. There may be several changes on the way: one is found, at
    which the start's own mind ends (Baum, IEEE TNN 2, 1991; Wang et al., Neurocomputing 147, 2015).
    """
    at_start = list(minds(starts))
    low, high = np.zeros((len(starts), 1)), np.ones((len(starts), 1))
    way = ends.astype(np.float64) - starts
    for _ in range(iterations):
        middle = (low + high) / 2
        points = np.asarray(starts + middle * way, np.float32)
        same = np.array([mind == first for mind, first in zip(minds(points), at_start, strict=True)])[:, None]
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return np.asarray(starts + (low + high) / 2 * way, np.float32)
