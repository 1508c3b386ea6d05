"""Thresholds against what the paper says, and against what is promised of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.streams.thresholds import Decision, Rule, Standing, decide, draw_of
from sealpool.types import ItemId
from sealpool.v1 import scheduler_pb2 as pb

DOUBTS = st.lists(st.floats(0, 1), min_size=1, max_size=300)
SHARES = st.sampled_from([0.002, 0.05, 0.1, 0.5, 1.0])
PLENTY = 10**9


def run(
    spec: pb.StreamSpec, doubts: list[float], *, draws: list[float] | None = None, left: int = PLENTY
) -> list[Decision]:
    rule = Rule.of(spec)
    standing = Standing(threshold=rule.uncertainty)
    made = []
    for seen, doubt in enumerate(doubts):
        draw = draws[seen] if draws else 1.0
        decision, standing = decide(rule, standing, uncertainty=doubt, draw=draw, seen=seen, left=left)
        left -= decision.asked
        made.append(decision)
    return made


def told_from_the_paper(doubts: list[float], *, first: float, step: float, share: float, adapts: bool) -> list[bool]:
    """Algorithm 1 with its variable uncertainty, on the doubt: û ← û·(w − 1)/w + asked (equation 4), û / w ≤ B."""
    w = max(100.0, 10 / share)
    u, threshold, asked = 0.0, first, []
    for doubt in doubts:
        wants = False
        if u * (w - 1) / w + 1 <= share * w * (1 + 1e-9):
            wants = doubt > threshold
            if adapts:
                threshold = min(1.0, max(1e-3, threshold * (1 + step if wants else 1 - step)))
        u = u * (w - 1) / w + wants
        asked.append(wants)
    return asked


@settings(max_examples=150, deadline=None)
@given(doubts=DOUBTS, share=SHARES, first=st.floats(0.01, 1), step=st.floats(0.001, 0.5), fixed=st.booleans())
def test_a_threshold_asks_as_the_paper_says(
    doubts: list[float], share: float, first: float, step: float, fixed: bool
) -> None:
    kind = pb.STREAM_THRESHOLD_FIXED if fixed else pb.STREAM_THRESHOLD_VARIABLE
    spec = pb.StreamSpec(threshold=kind, uncertainty=first, step=0 if fixed else step, budget_share=share)
    expected = told_from_the_paper(doubts, first=first, step=step, share=share, adapts=not fixed)
    assert [decision.asked for decision in run(spec, doubts)] == expected


@settings(max_examples=100, deadline=None)
@given(doubts=DOUBTS, share=SHARES, draws=st.data(), random_share=st.sampled_from([0.0, 0.3]))
def test_no_stretch_of_the_stream_is_asked_about_beyond_its_share_and_one_window(
    doubts: list[float], share: float, draws: st.DataObject, random_share: float
) -> None:
    drawn = draws.draw(st.lists(st.floats(0, 0.999), min_size=len(doubts), max_size=len(doubts)))
    made = run(pb.StreamSpec(budget_share=share, random_share=random_share), doubts, draws=drawn)
    window = max(100, 10 / share)
    by_doubt = [decision.asked and not decision.at_random for decision in made]
    for start in range(0, len(doubts), 37):
        for stop in range(start, len(doubts) + 1, 41):
            assert sum(by_doubt[start:stop]) <= share * (window + stop - start) + 1e-6


@settings(max_examples=100, deadline=None)
@given(doubts=DOUBTS, left=st.integers(0, 20), kind=st.sampled_from([1, 2, 3]), draw=st.floats(0, 0.999))
def test_the_budget_is_never_passed(doubts: list[float], left: int, kind: int, draw: float) -> None:
    spec = pb.StreamSpec(threshold=pb.StreamThreshold.ValueType(kind), random_share=0.9)
    if kind == pb.STREAM_THRESHOLD_BUDGETED:
        spec.horizon = 50
    else:
        spec.budget_share = 1.0
    assert sum(decision.asked for decision in run(spec, doubts, draws=[draw] * len(doubts), left=left)) <= left


@pytest.mark.parametrize("budget", [20, 500, 3_000])
@pytest.mark.parametrize("random_share", [0.0, 0.3])
def test_a_budget_lasts_over_its_horizon_also_where_doubt_drifts(budget: int, random_share: float) -> None:
    horizon = 10_000
    randomness = np.random.default_rng(budget)
    doubts = np.concatenate(
        [randomness.beta(2, 5, size=horizon // 2) / 2, randomness.beta(5, 2, size=horizon // 2) / 2]
    )
    draws = [draw_of(1, ItemId(f"i{number}")) for number in range(horizon)]
    spec = pb.StreamSpec(threshold=pb.STREAM_THRESHOLD_BUDGETED, horizon=horizon, random_share=random_share)
    made = run(spec, doubts.tolist(), draws=draws, left=budget)
    asked = np.cumsum([decision.asked for decision in made])
    # A tenth of the budget, or the ten requests that the estimate lets through at the beginning.
    tolerance = max(0.1 * budget, 12)
    for quarter in (1, 2, 3, 4):
        assert abs(asked[quarter * horizon // 4 - 1] - budget * quarter / 4) <= tolerance
    at_random = sum(decision.at_random for decision in made)
    assert abs(at_random - random_share * asked[-1]) <= 4 * np.sqrt(random_share * budget) + 1e-9


def test_after_its_horizon_a_stream_spends_what_is_left_as_doubt_comes() -> None:
    spec = pb.StreamSpec(threshold=pb.STREAM_THRESHOLD_BUDGETED, horizon=100)
    rule = Rule.of(spec)
    assert rule.allowed(seen=0, left=10) == pytest.approx(0.1)
    assert rule.allowed(seen=90, left=5) == pytest.approx(0.5)
    assert rule.allowed(seen=100, left=5) == rule.allowed(seen=5_000, left=1) == 1
    assert rule.allowed(seen=5_000, left=0) == 0


def test_an_items_draw_is_its_own_and_uniform() -> None:
    draws = np.array([draw_of(7, ItemId(f"i{number}")) for number in range(2_000)])
    assert draw_of(7, ItemId("i3")) == draws[3] != draw_of(8, ItemId("i3"))
    assert draws.min() >= 0
    assert draws.max() < 1
    counts, _ = np.histogram(draws, bins=10, range=(0, 1))
    assert np.all(np.abs(counts - 200) < 5 * np.sqrt(200))
