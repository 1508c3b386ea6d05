"""Points between items: on their way, and where a mind changes."""

import numpy as np
import pytest
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


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_a_logistic_regression_cannot_tell_what_lies_at_its_boundary(share: float) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    randomness = np.random.default_rng(2)
    truth = randomness.random(3_000) < share
    points = randomness.normal(size=(3_000, 24)) + 0.5 * truth[:, None]
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    model = linear.LogisticRegression(C=10).fit(points[:300], truth[:300])
    said = model.predict(points[:300])
    groups = {ItemId(f"i{row}"): bool(one) for row, one in enumerate(said)}
    pairs = differing_pairs(groups, 40, randomness=randomness)
    starts, ends = (points[[int(pair[side][1:]) for pair in pairs]] for side in (0, 1))
    found = boundary(starts, ends, lambda some: model.predict(some).tolist())
    assert np.abs(model.predict_proba(found)[:, 1] - 0.5).max() < 1e-4
    # And so it doubts the real items nearest to them more than others.
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    doubt = 1 - model.predict_proba(points).max(axis=1)
    assert doubt[(unit @ points.T).argmax(axis=1)].mean() > 1.5 * doubt.mean()


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
