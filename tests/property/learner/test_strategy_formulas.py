"""Each strategy's scores are those of its formula, stated again in plain NumPy, item by item."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner.ports import DensityOver, StrategyOptions
from learner.problem import Problem, Task
from learner.strategies import BASES, STRATEGIES, make_strategy
from tests.support.scoring_context import PlainContext

TASKS = [Task.BINARY, Task.MULTICLASS, Task.MULTILABEL]


def entropy_of(p: NDArray) -> float:
    return float(sum(-x * math.log(x) for x in p if x > 0))


def plain_score(name: str, p: NDArray, task: Task) -> float:
    """One item's score; p are its probabilities in float64."""
    if task is Task.MULTILABEL and name != "most_likely_positive":
        return float(np.mean([plain_score(name, np.array([x, 1 - x]), Task.BINARY) for x in p]))
    ordered = sorted(p, reverse=True)
    return {
        "least_confidence": 1 - ordered[0],
        "margin": 1 - (ordered[0] - ordered[1]) if len(ordered) > 1 else 0.0,
        "entropy": entropy_of(p),
        "most_likely_positive": p[1],
    }[name]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Task, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """(task, probabilities, vectors, the set P that density looks at)."""
    task = draw(st.sampled_from(TASKS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    items, classes = draw(st.integers(1, 9)), 2 if task is Task.BINARY else draw(st.integers(2, 6))
    sharpness = draw(st.sampled_from([0.1, 1.0, 20.0, 200.0]))
    z = rng.normal(0, sharpness, (items, classes))
    # tanh, because exp(-z) overflows where z is large
    p = (1 + np.tanh(z / 2)) / 2 if task is Task.MULTILABEL else np.exp(z - z.max(axis=1, keepdims=True))
    p = p if task is Task.MULTILABEL else p / p.sum(axis=1, keepdims=True)
    vectors = rng.normal(draw(st.sampled_from([0.0, 1.0])), 1, (items, 5))
    if draw(st.booleans()):
        vectors[0] = 0
    around = rng.normal(0.5, 1, (7, 5))
    return task, p.astype(np.float32), vectors.astype(np.float32), around.astype(np.float32)


def context_of(
    task: Task, p: NDArray[np.float32], vectors: NDArray[np.float32], direction: NDArray[np.float32] | None = None
) -> PlainContext:
    lengths = np.linalg.norm(vectors, axis=1)
    inverse = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return PlainContext(
        problem=Problem(task=task, classes=tuple(f"c{number}" for number in range(p.shape[1]))),
        probabilities=torch.from_numpy(p),
        vectors=torch.from_numpy(vectors),
        inverse_lengths=torch.from_numpy(inverse.astype(np.float32)),
        direction=None if direction is None else torch.from_numpy(direction),
        draws=torch.linspace(0, 0.9, len(p), dtype=torch.float64),
    )


@pytest.mark.parametrize("name", sorted(set(BASES) - {"random"}))
@settings(deadline=None, max_examples=60)
@given(case=cases())
def test_scores_follow_the_formula(name: str, case: tuple) -> None:
    task, p, vectors, _ = case
    context = context_of(task, p, vectors)
    scores = make_strategy(StrategyOptions(name=name, positive_class="c1"), context.problem).score(context)
    expected = [plain_score(name, row.astype(np.float64), task) for row in p]
    np.testing.assert_allclose(scores.numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("base", sorted(set(BASES) - {"random"}))
@settings(deadline=None, max_examples=40)
@given(case=cases(), beta=st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_density_is_the_mean_cosine_similarity_taken_pair_by_pair(base: str, case: tuple, beta: float) -> None:
    task, p, vectors, around = case
    units = around / np.linalg.norm(around, axis=1, keepdims=True)
    context = context_of(task, p, vectors, units.mean(axis=0))
    options = StrategyOptions(name="information_density", base=base, beta=beta, positive_class="c1")
    scores = make_strategy(options, context.problem).score(context).numpy()
    for row, score in enumerate(scores):
        length = np.linalg.norm(vectors[row])
        similarity = np.mean([vectors[row] @ unit / length for unit in units]) if length else 0.0
        density = max(0.0, float(similarity)) ** beta
        expected = plain_score(base, p[row].astype(np.float64), task) * density
        # A root is steep at 0, where rounding decides.
        assert score == pytest.approx(expected, abs=5e-3 if beta == 0.5 else 2e-5)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@settings(deadline=None, max_examples=20)
@given(case=cases())
def test_scores_are_finite_not_negative_and_of_each_row_alone(name: str, case: tuple) -> None:
    task, p, vectors, around = case
    context = context_of(task, p, vectors, around.mean(axis=0))
    strategy = make_strategy(StrategyOptions(name=name, positive_class="c1"), context.problem)
    scores = strategy.score(context).numpy()
    assert scores.shape == (len(p),)
    assert np.isfinite(scores).all()
    assert (scores >= -1e-6).all()
    for row in range(len(p)):
        alone = context_of(task, p[[row]], vectors[[row]], around.mean(axis=0))
        if name != "random":
            assert strategy.score(alone).item() == pytest.approx(scores[row], abs=1e-6)


def test_certain_probabilities_have_entropy_zero() -> None:
    for task in TASKS:
        context = context_of(task, np.array([[0, 1], [1, 0]], np.float32), np.ones((2, 3), np.float32))
        scores = make_strategy(StrategyOptions(name="entropy"), context.problem).score(context)
        assert scores.tolist() == [0, 0]


def test_each_strategy_says_which_direction_it_needs() -> None:
    problem = Problem(task=Task.BINARY, classes=("a", "b"))
    for over in DensityOver:
        options = StrategyOptions(name="information_density", density_over=over)
        assert make_strategy(options, problem).density_over is over
    assert make_strategy(StrategyOptions(name="entropy"), problem).density_over is None
