"""prob_cover and graph_density pick what plain statements of their papers pick, pair by pair."""

import math
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner.clustering import k_means
from learner.options import StrategyOptions
from learner.problem import Problem, Task
from learner.strategies import graph_density, prob_cover
from learner.strategies.graph_density import GraphDensity
from learner.strategies.prob_cover import ProbCover
from tests.support.plain_view import PlainContext, PlainLabelled, PlainView

PROBLEM = Problem(task=Task.MULTICLASS, classes=("a", "b", "c"))
Case = tuple[NDArray[np.float32], NDArray[np.float32], int]


def view_of(vectors: NDArray[np.float32], labelled: NDArray[np.float32]) -> PlainView:
    context = PlainContext(
        problem=PROBLEM,
        probabilities=torch.empty(len(vectors), 0),
        vectors=torch.from_numpy(vectors),
        draws=torch.linspace(0, 0.9, len(vectors), dtype=torch.float64),
        labelled=PlainLabelled(vectors=torch.from_numpy(labelled), targets=np.zeros(len(labelled), np.int64)),
    )
    return PlainView(context=context, seed=5)


def units_of(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    x = vectors.astype(np.float64)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, lengths, out=np.zeros_like(x), where=lengths > 0)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    items, labelled = draw(st.integers(1, 40)), draw(st.integers(0, 5))
    vectors = rng.normal(0, 1, (items + labelled, 3)).astype(np.float32)
    if draw(st.booleans()):
        vectors[rng.integers(0, len(vectors), 2)] = 0
    return vectors[labelled:], vectors[:labelled], draw(st.integers(1, items + 2))


def plain_cover(
    units: NDArray[np.float64], labelled: NDArray[np.float64], radius: float, count: int
) -> tuple[list[int], list[float]]:
    balls = [{j for j in range(len(units)) if j == i or 1 - units[i] @ units[j] <= radius} for i in range(len(units))]
    covered = {j for j in range(len(units)) for known in labelled if 1 - units[j] @ known <= radius}
    rows: list[int] = []
    scores = []
    for _ in range(min(count, len(units))):
        gains = [-1 if row in rows else len(ball - covered) for row, ball in enumerate(balls)]
        rows.append(gains.index(max(gains)))
        scores.append(max(gains) / len(units))
        covered |= balls[rows[-1]]
    return rows, scores


@settings(deadline=None, max_examples=100)
@given(case=cases(), radius=st.sampled_from([0.05, 0.3, 0.8, 1.2]))
def test_prob_cover_is_greedy_maximum_coverage(case: Case, radius: float) -> None:
    vectors, labelled, count = case
    units, known = units_of(vectors), units_of(labelled)
    assume((np.abs(1 - units @ np.concatenate([units, known]).T - radius) > 1e-5).all())
    batch = ProbCover(StrategyOptions(name="prob_cover", radius=radius), PROBLEM).pick(
        view_of(vectors, labelled), count
    )
    rows, scores = plain_cover(units, known, radius, count)
    assert batch.rows.tolist() == rows
    np.testing.assert_allclose(batch.scores, scores)


@settings(deadline=None, max_examples=50)
@given(case=cases(), clusters=st.sampled_from([0, 2, 5]))
def test_the_radius_estimated_is_the_largest_that_keeps_95_percent_of_balls_pure(case: Case, clusters: int) -> None:
    vectors, labelled, count = case
    units = units_of(vectors)
    assume(len(np.unique(units.round(3), axis=0)) == len(units) > 6)
    as_tensor = torch.from_numpy(units.astype(np.float32))
    strategy = ProbCover(StrategyOptions(name="prob_cover", clusters=clusters), PROBLEM)
    radius = strategy._pure_radius(view_of(vectors, labelled), as_tensor)
    groups = k_means(as_tensor, clusters or 3, seed=5).assignment
    away = 1 - units @ units.T

    def purity(within: float) -> float:
        pure = [all(groups[i] == groups[j] for j in np.flatnonzero(away[i] <= within)) for i in range(len(units))]
        return float(np.mean(pure))

    assert purity(radius) >= 0.95
    assert purity(radius * 1.001 + 1e-5) < 0.95
    assert len(strategy.pick(view_of(vectors, labelled), count).rows) == min(count, len(vectors))


def plain_density(
    vectors: NDArray[np.float64], candidates: int, neighbors: int, count: int
) -> tuple[list[int], list[float]]:
    """`vectors` hold the candidates, then the labelled items."""
    size = len(vectors)
    linked = np.zeros((size, size), bool)
    for i in range(size):
        order = sorted((float(np.linalg.norm(vectors[i] - vectors[j])), j) for j in range(size) if j != i)
        for _, j in order[:neighbors]:
            linked[i, j] = linked[j, i] = True
    manhattan = np.abs(vectors[:, None] - vectors).sum(axis=2)
    width = manhattan[linked].mean() if linked.any() else 0.0
    weights = np.exp(-manhattan / (width or 1.0)) * linked
    density = weights.sum(axis=1) / np.maximum(1, linked.sum(axis=1))
    density = density - linked[candidates:].T @ density[candidates:]
    rows: list[int] = []
    scores = []
    for _ in range(min(count, candidates)):
        left = [-math.inf if row in rows else density[row] for row in range(candidates)]
        pick = next(row for row, value in enumerate(left) if value >= max(left) - 1e-9)
        rows.append(pick)
        scores.append(density[pick])
        density = density - linked[pick] * max(0.0, density[pick])
    return rows, scores


@pytest.mark.parametrize("neighbors", [0, 1, 3])
@settings(deadline=None, max_examples=50)
@given(case=cases())
def test_graph_density_picks_the_highest_mean_weight_and_discounts_neighbours(neighbors: int, case: Case) -> None:
    vectors, labelled, count = case
    units = units_of(np.concatenate([vectors, labelled]))
    away = np.linalg.norm(units[:, None] - units, axis=2)[np.triu_indices(len(units), 1)]
    assume(len(away) == 0 or len(np.unique(away.round(5))) == len(away))
    rows, scores = plain_density(units, len(vectors), neighbors or 10, count)
    assume(len(np.unique(np.round(scores, 4))) == len(scores))
    options = StrategyOptions(name="graph_density", neighbors=neighbors)
    batch = GraphDensity(options, PROBLEM).pick(view_of(vectors, labelled), count)
    assert batch.rows.tolist() == rows
    np.testing.assert_allclose(batch.scores, scores, atol=1e-5)


@pytest.mark.parametrize("make", [ProbCover, GraphDensity])
@pytest.mark.parametrize("vectors", [np.zeros((9, 3)), np.ones((9, 3)), np.ones((1, 3)), np.ones((0, 3))])
@pytest.mark.parametrize("labelled", [0, 2])
def test_items_all_equal_one_or_none_are_picked_once_each(make: type, vectors: NDArray, labelled: int) -> None:
    known = np.ones((labelled, 3), np.float32)
    for count in (0, 1, 4, 20):
        batch = make(StrategyOptions(), PROBLEM).pick(view_of(vectors.astype(np.float32), known), count)
        assert len(set(batch.rows.tolist())) == len(batch.rows) == min(count, len(vectors))
        assert np.isfinite(batch.scores).all()


@pytest.mark.parametrize(("make", "module"), [(ProbCover, prob_cover), (GraphDensity, graph_density)])
def test_more_picks_than_candidates_looked_at_are_filled_up(make: type, module: object) -> None:
    vectors = np.random.default_rng(0).normal(0, 1, (60, 3)).astype(np.float32)
    with patch.object(module, "_MOST_ITEMS", 20):
        batch = make(StrategyOptions(radius=0.1), PROBLEM).pick(view_of(vectors, vectors[:0]), 50)
    assert len(set(batch.rows.tolist())) == 50


def test_too_many_pairs_halve_the_candidates_looked_at() -> None:
    vectors = np.random.default_rng(0).normal(0, 1, (64, 3)).astype(np.float32)
    with patch.object(prob_cover, "_MOST_PAIRS", 300):
        batch = ProbCover(StrategyOptions(radius=1.9), PROBLEM).pick(view_of(vectors, vectors[:0]), 64)
    assert sorted(batch.rows.tolist()) == list(range(64))
    assert batch.scores[0] * 16 == round(batch.scores[0] * 16)
