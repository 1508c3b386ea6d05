"""Points between items: on their way, and where a mind changes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.synthesis.points import between, boundary, differing_pairs
from sealpool.types import ItemId, Vectors


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), pairs=st.integers(1, 30), dimension=st.integers(2, 8))
def test_the_boundary_is_where_a_plane_cuts_the_way(seed: int, pairs: int, dimension: int) -> None:
    randomness = np.random.default_rng(seed)
    normal, offset = randomness.normal(size=dimension), randomness.normal() / 10
    points = randomness.normal(size=(400, dimension)).astype(np.float32)
    sides = points @ normal > offset
    if sides.sum() < pairs or (~sides).sum() < pairs:
        return
    starts, ends = points[sides][:pairs], points[~sides][:pairs]
    calls: list[int] = []

    def minds(some: Vectors) -> list[bool]:
        calls.append(len(some))
        return [bool(side) for side in some @ normal > offset]

    found = boundary(starts, ends, minds)
    assert calls == [pairs] * 21  # all pairs in each call
    # n·(s + t(e − s)) = offset, solved for t.
    heights = starts.astype(np.float64) @ normal - offset
    shares = heights / (heights - (ends.astype(np.float64) @ normal - offset))
    expected = starts + shares[:, None] * (ends - starts)
    lengths = np.linalg.norm(ends - starts, axis=1, keepdims=True)
    assert np.all(np.abs(found - expected) <= 2e-5 * lengths + 1e-5)


def test_points_between_lie_on_the_way_mostly_in_its_middle() -> None:
    randomness = np.random.default_rng(0)
    starts = np.zeros((4_000, 2), np.float32)
    ends = np.tile(np.array([[2, 4]], np.float32), (4_000, 1))
    points = between(starts, ends, randomness=randomness)
    shares = points[:, 0] / 2
    assert np.allclose(points[:, 1], 4 * shares, atol=1e-5)
    assert 0 < shares.min() < shares.max() < 1
    assert abs(shares.mean() - 0.5) < 0.02
    assert abs(shares.var() - 0.05) < 0.005  # of Beta(2, 2)


@settings(max_examples=60, deadline=None)
@given(
    groups=st.dictionaries(st.sampled_from([ItemId(f"i{n}") for n in range(9)]), st.integers(0, 2)),
    seed=st.integers(0, 99),
)
def test_pairs_are_of_two_groups_and_follow_from_the_seed(groups: dict[ItemId, int], seed: int) -> None:
    pairs = differing_pairs(groups, 12, randomness=np.random.default_rng(seed))
    assert len(pairs) == (12 if len(set(groups.values())) > 1 else 0)
    assert all(groups[one] != groups[other] for one, other in pairs)
    assert pairs == differing_pairs(dict(reversed(groups.items())), 12, randomness=np.random.default_rng(seed))
