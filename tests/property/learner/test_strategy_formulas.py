"""Scores of items by themselves are those of their formulas, stated again in plain NumPy, item by item."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner.options import DensityOver, StrategyOptions
from learner.ports import ScoringStrategy
from learner.problem import Problem, Task
from learner.strategies.entropy import Entropy
from learner.strategies.expected_gradient_length import ExpectedGradientLength
from learner.strategies.information_density import InformationDensity
from learner.strategies.least_confidence import LeastConfidence
from learner.strategies.margin import Margin
from learner.strategies.most_likely_positive import MostLikelyPositive
from learner.strategies.random import Random
from learner.strategies.ratio import Ratio
from learner.strategies.stochastic_top_k import StochasticTopK
from sealpool.errors import InvalidArgument
from sealpool.vocabulary.strategies import STRATEGIES
from tests.support.plain_view import PlainContext

Floats = NDArray[np.floating]

CLASSES = {
    "entropy": Entropy,
    "expected_gradient_length": ExpectedGradientLength,
    "least_confidence": LeastConfidence,
    "margin": Margin,
    "most_likely_positive": MostLikelyPositive,
    "random": Random,
    "ratio": Ratio,
}


def entropy_of(p: Floats) -> float:
    return float(sum(-x * math.log(x) for x in p if x > 0))


def gradient_length(p: Floats, features: Floats) -> float:
    """The gradient in weights and biases written out for each class, its length weighted by the class's probability."""
    total = 0.0
    for label, probability in enumerate(p):
        error = p - np.eye(len(p))[label]
        total += probability * float(np.linalg.norm(np.outer(error, np.append(features, 1))))
    return total


def plain_score(name: str, p: Floats, features: Floats) -> float:
    """One item's score; p are its probabilities in float64."""
    first, second = sorted(p, reverse=True)[:2]
    match name:
        case "least_confidence":
            return float(1 - first)
        case "margin":
            return float(1 - (first - second))
        case "ratio":
            return float(second / first)
        case "entropy":
            return entropy_of(p)
        case "most_likely_positive":
            return float(p[1])
        case "expected_gradient_length":
            return gradient_length(p, features)
    raise AssertionError(name)


@st.composite
def contexts(draw: st.DrawFn) -> PlainContext:
    classes, items = draw(st.integers(2, 6)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    z = rng.normal(0, draw(st.sampled_from([0.1, 1.0, 20.0, 200.0])), (items, classes))
    p = np.exp(z - z.max(axis=1, keepdims=True))
    vectors = rng.normal(draw(st.sampled_from([0.0, 1.0])), 1, (items, 5))
    if draw(st.booleans()):
        vectors[0] = 0
    kind = draw(st.sampled_from([torch.float32, torch.float64]))
    return PlainContext(
        problem=Problem(
            task=Task.BINARY if classes == 2 else Task.MULTICLASS, classes=tuple(f"c{i}" for i in range(classes))
        ),
        probabilities=torch.from_numpy(p / p.sum(axis=1, keepdims=True)).to(kind),
        vectors=torch.from_numpy(vectors).to(kind),
        features=torch.from_numpy(rng.normal(0, 1, (items, 3))).to(kind),
        draws=torch.from_numpy(np.sort(rng.random(items))),
    )


def strategy_of(name: str, context: PlainContext) -> ScoringStrategy:
    return CLASSES[name](StrategyOptions(name=name, positive_class="c1"), context.problem)


def expected_scores(name: str, context: PlainContext) -> list[float]:
    assert context.features is not None
    return [
        plain_score(name, p.astype(np.float64), h.astype(np.float64))
        for p, h in zip(context.probabilities.numpy(), context.features.numpy(), strict=True)
    ]


@pytest.mark.parametrize("name", sorted(set(CLASSES) - {"random"}))
@settings(deadline=None, max_examples=50)
@given(context=contexts())
def test_scores_follow_the_formula(name: str, context: PlainContext) -> None:
    scores = strategy_of(name, context).score(context)
    assert scores.dtype == context.probabilities.dtype
    # The features lengthen what rounding of the probabilities leaves.
    noise = 1e-5 if scores.dtype == torch.float32 else 1e-9
    np.testing.assert_allclose(scores.numpy(), expected_scores(name, context), atol=noise, rtol=noise)


@pytest.mark.parametrize("name", sorted(set(CLASSES) - {"random"}))
@settings(deadline=None, max_examples=30)
@given(context=contexts(), seed=st.integers(0, 1000), beta=st.sampled_from([None, 0.0, 0.5, 1.0, 2.0]))
def test_density_is_the_mean_cosine_similarity_taken_pair_by_pair(
    name: str, context: PlainContext, seed: int, beta: float | None
) -> None:
    around = np.random.default_rng(seed).normal(0.5, 1, (7, 5))
    units = around / np.linalg.norm(around, axis=1, keepdims=True)
    context.direction = torch.from_numpy(units.mean(axis=0)).to(context.vectors)
    base = strategy_of(name, context)
    strategy = InformationDensity(base, beta, DensityOver.CANDIDATES)
    assert strategy.needs == base.needs
    scores = strategy.score(context).numpy()
    for row, expected in enumerate(expected_scores(name, context)):
        vector = context.vectors[row].numpy()
        length = np.linalg.norm(vector)
        similarity = float(np.mean([vector @ unit / length for unit in units])) if length else 0.0
        density = max(0.0, similarity) ** (1.0 if beta is None else beta)
        # A root is steep at 0, where rounding decides.
        assert scores[row] == pytest.approx(expected * density, abs=1e-2 if beta == 0.5 else 5e-5)


@pytest.mark.parametrize("name", sorted(CLASSES))
@settings(deadline=None, max_examples=20)
@given(context=contexts())
def test_scores_are_finite_not_negative_and_of_each_row_alone(name: str, context: PlainContext) -> None:
    strategy = strategy_of(name, context)
    scores = strategy.score(context).numpy()
    assert scores.shape == (len(context.vectors),)
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()
    for row in range(len(scores)):
        alone = strategy.score(context.rows(slice(row, row + 1))).item()
        assert alone == pytest.approx(scores[row], abs=1e-6)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_no_candidates_have_no_scores(name: str) -> None:
    context = context_of([[0.5, 0.5]]).rows(slice(0, 0))
    assert strategy_of(name, context).score(context).shape == (0,)


def test_certain_probabilities_score_zero() -> None:
    context = context_of([[0.0, 1.0], [1.0, 0.0]])
    for name in ("entropy", "expected_gradient_length", "least_confidence", "margin", "ratio"):
        assert strategy_of(name, context).score(context).tolist() == [0, 0], name


def test_a_nearly_certain_item_keeps_its_digits_in_float32() -> None:
    p = np.array([[1 - 2**-12, 2**-12]])  # exact in float32
    context = context_of(p.tolist())
    for name in ("entropy", "expected_gradient_length", "least_confidence", "margin", "ratio"):
        score = strategy_of(name, context).score(context).item()
        assert score == pytest.approx(plain_score(name, p[0], np.ones(3)), rel=1e-5), name


def context_of(p: list[list[float]]) -> PlainContext:
    return PlainContext(
        problem=Problem(task=Task.BINARY, classes=("c0", "c1")),
        probabilities=torch.tensor(p),
        vectors=torch.ones(len(p), 3),
        draws=torch.linspace(0, 0.9, len(p), dtype=torch.float64),
    )


def test_random_scores_are_the_draws() -> None:
    context = context_of([[0.5, 0.5]] * 4)
    assert strategy_of("random", context).score(context).equal(context.draws)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_strategy_asks_for_what_the_catalogue_says(name: str) -> None:
    strategy = strategy_of(name, context_of([[0.5, 0.5]]))
    assert strategy.needs == STRATEGIES[name].needs
    assert strategy.density_over is None


def test_each_strategy_says_which_direction_it_needs() -> None:
    base = strategy_of("entropy", context_of([[0.5, 0.5]]))
    for over in DensityOver:
        density = InformationDensity(base, 1.0, over)
        assert density.density_over is over
        assert StochasticTopK(density, 1.0).density_over is over


@pytest.mark.parametrize("beta", [-0.5, math.nan, math.inf])
def test_a_power_of_density_that_means_nothing_is_refused(beta: float) -> None:
    with pytest.raises(InvalidArgument, match=r"^header.strategy.beta: "):
        InformationDensity(strategy_of("entropy", context_of([[0.5, 0.5]])), beta, DensityOver.CANDIDATES)


def test_the_class_looked_for_must_be_known_and_given_beyond_two() -> None:
    three = Problem(task=Task.MULTICLASS, classes=("a", "b", "c"))
    for name in ("", "d"):
        with pytest.raises(InvalidArgument, match=r"^header.strategy.positive_class: "):
            MostLikelyPositive(StrategyOptions(positive_class=name), three)
    context = context_of([[0.25, 0.75]])
    assert MostLikelyPositive(StrategyOptions(), context.problem).score(context).tolist() == [0.75]
