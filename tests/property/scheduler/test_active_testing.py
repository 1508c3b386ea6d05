"""The estimate from chosen test points has the whole pool's risk as its mean, whatever the proposal."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from scheduler.domain.active_testing import (
    UNIFORM_SHARE,
    choose,
    expected_loss,
    log_losses,
    lure_estimate,
    lure_weights,
    proposal,
    without_unlabelable,
    zero_one_losses,
)

Numbers = NDArray[np.float64]
DOUBTS = st.lists(st.floats(0, 1), min_size=2, max_size=5).map(lambda values: np.array(values, np.float64))


def orders(doubts: Numbers, count: int) -> list[tuple[tuple[int, ...], list[float]]]:
    """Return every order in which `count` points can be chosen, with the probability of each of its draws."""
    found = []
    for order in permutations(range(len(doubts)), count):
        left, drawn = list(range(len(doubts))), []
        for point in order:
            drawn.append(float(proposal(doubts[left])[left.index(point)]))
            left.remove(point)
        found.append((order, drawn))
    return found


@given(doubts=DOUBTS, data=st.data())
def test_the_estimate_is_unbiased_over_all_orders(doubts: Numbers, data: st.DataObject) -> None:
    losses = np.array(data.draw(st.lists(st.floats(0, 5), min_size=len(doubts), max_size=len(doubts))))
    count = data.draw(st.integers(1, len(doubts)))
    mean = 0.0
    for order, drawn in orders(doubts, count):
        weights = lure_weights(drawn, pool=len(doubts))
        mean += np.prod(drawn) * lure_estimate(losses[list(order)], weights).mean
    assert mean == pytest.approx(losses.mean(), abs=1e-9)


@given(size=st.integers(1, 30), data=st.data())
def test_with_a_uniform_proposal_the_estimate_is_the_plain_mean(size: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, size))
    drawn = [1 / (size - place) for place in range(count)]
    assert lure_weights(drawn, pool=size) == pytest.approx(np.ones(count))
    losses = np.array(data.draw(st.lists(st.floats(0, 5), min_size=count, max_size=count)))
    assert lure_estimate(losses, lure_weights(drawn, pool=size)).mean == pytest.approx(losses.mean())


@given(doubts=DOUBTS, data=st.data())
def test_weights_are_those_of_the_paper(doubts: Numbers, data: st.DataObject) -> None:
    order, drawn = data.draw(st.sampled_from(orders(doubts, data.draw(st.integers(1, len(doubts) - 1)))))
    n, m_all = len(doubts), len(order)
    weights = lure_weights(drawn, pool=n)
    for m in range(1, m_all + 1):
        inverse = 1 / ((n - m + 1) * drawn[m - 1])
        assert weights[m - 1] == pytest.approx(1 + (n - m_all) / (n - m) * (inverse - 1))


@given(doubts=DOUBTS)
def test_every_point_can_be_chosen_and_none_weighs_over_five_times_a_uniform_draw(doubts: Numbers) -> None:
    probabilities = proposal(doubts)
    assert probabilities.sum() == pytest.approx(1)
    assert (probabilities * len(doubts) >= UNIFORM_SHARE - 1e-12).all()


@given(size=st.integers(2, 12), data=st.data())
def test_points_that_nobody_can_label_leave_a_uniform_draw_of_the_others(size: int, data: st.DataObject) -> None:
    usable = data.draw(st.lists(st.booleans(), min_size=1, max_size=size))
    drawn = [1 / (size - place) for place in range(len(usable))]
    kept, pool = without_unlabelable(drawn, usable, pool=size)
    assert pool == size - usable.count(False)
    assert kept == pytest.approx([1 / (pool - place) for place in range(sum(usable))])


def test_points_are_drawn_as_often_as_the_proposal_says() -> None:
    doubts = np.array([0.0, 0.1, 0.4])
    first = np.array([choose(doubts, 1, seed=seed)[0][0] for seed in range(4000)])
    shares = np.bincount(first, minlength=3) / len(first)
    assert shares == pytest.approx(proposal(doubts), abs=0.03)


def test_points_are_chosen_once_each_and_the_same_again() -> None:
    doubts = np.linspace(0, 1, 20)
    chosen = choose(doubts, 50, seed=7)
    assert sorted(place for place, _ in chosen) == list(range(20))
    assert chosen == choose(doubts, 50, seed=7)
    assert chosen[:3] == choose(doubts, 3, seed=7)
    assert [place for place, _ in chosen] != [place for place, _ in choose(doubts, 50, seed=8)]
    left = list(range(20))
    for place, probability in chosen:
        assert probability == pytest.approx(proposal(doubts[left])[left.index(place)])
        left.remove(place)


def test_losses_are_what_the_model_gets_wrong() -> None:
    said = np.array([[0.7, 0.3], [0.2, 0.8], [0.5, 0.5]], np.float32)
    assert zero_one_losses(said, [(0,), (0,), (1,)], multilabel=False).tolist() == [0, 1, 1]
    assert log_losses(said, [(0,), (0,), (1,)], multilabel=False) == pytest.approx(-np.log([0.7, 0.2, 0.5]), rel=1e-6)
    assert expected_loss(said, multilabel=False) == pytest.approx([0.3, 0.2, 0.5], rel=1e-6)
    several = np.array([[0.9, 0.2], [0.6, 0.6]], np.float32)
    assert zero_one_losses(several, [(0,), (1,)], multilabel=True).tolist() == [0, 1]
    expected = [-np.log([0.9, 0.8]).mean(), -np.log([0.4, 0.6]).mean()]
    assert log_losses(several, [(0,), (1,)], multilabel=True) == pytest.approx(expected, rel=1e-6)
    assert expected_loss(several, multilabel=True) == pytest.approx([1 - 0.9 * 0.8, 1 - 0.6 * 0.6], rel=1e-6)


def test_a_class_that_was_ruled_out_costs_much_but_not_all() -> None:
    assert log_losses(np.array([[1.0, 0.0]]), [(1,)], multilabel=False)[0] == pytest.approx(16.118, abs=1e-3)


def test_the_interval_needs_two_points_and_is_that_of_the_weighted_terms() -> None:
    assert np.isnan(lure_estimate(np.ones(1), np.ones(1)).margin)
    losses, weights = np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.5, 1.0, 2.0, 1.0])
    error = np.sqrt(np.var([0.5, 0, 2, 0], ddof=1) / 4)
    assert lure_estimate(losses, weights).standard_error == pytest.approx(error)
    assert lure_estimate(losses, weights).margin == pytest.approx(1.96 * error, rel=1e-3)
