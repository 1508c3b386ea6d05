"""Strategies of multi-label campaigns follow their formulas, stated again in plain NumPy, item by item."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner.options import Aggregate, StrategyOptions
from learner.problem import Problem, Task
from learner.strategies import cvirs
from learner.strategies.cvirs import Cvirs
from learner.strategies.entropy import Entropy
from learner.strategies.expected_gradient_length import ExpectedGradientLength
from learner.strategies.label_cardinality import LabelCardinality
from learner.strategies.least_confidence import LeastConfidence
from learner.strategies.margin import Margin
from learner.strategies.most_likely_positive import MostLikelyPositive
from learner.strategies.ratio import Ratio
from sealpool.errors import Cancelled
from sealpool.vocabulary.strategies import STRATEGIES
from tests.support.plain_view import PlainContext, PlainLabelled, PlainView

Floats = NDArray[np.floating]
Labels = NDArray[np.bool_]

AGGREGATED = {"entropy": Entropy, "least_confidence": LeastConfidence, "margin": Margin, "ratio": Ratio}
COMBINED = {Aggregate.MEAN: np.mean, Aggregate.MAX: np.max, Aggregate.MIN: np.min}


def binary_entropy(x: float) -> float:
    return sum(-y * math.log(y) for y in (x, 1 - x) if y > 0)


def plain_label_score(name: str, p: float) -> float:
    """One label's score as a binary campaign's."""
    likely, other = max(p, 1 - p), min(p, 1 - p)
    return {
        "entropy": binary_entropy(p),
        "least_confidence": 1 - likely,
        "margin": 1 - (likely - other),
        "ratio": other / likely,
    }[name]


def plain_label_distance(some: Labels, other: Labels) -> float:
    """Normalised entropy distance of two label vectors; 1 where every label differs."""
    if (some != other).all():
        return 1.0
    table = np.array([[np.mean((some == x) & (other == y)) for y in (True, False)] for x in (True, False)])

    def entropy(shares: Floats) -> float:
        return float(sum(-x * math.log(x) for x in shares.ravel() if x > 0))

    joint = entropy(table)
    return (2 * joint - entropy(table.sum(axis=0)) - entropy(table.sum(axis=1))) / joint if joint > 0 else 0.0


def plain_cvirs(p: Floats, labelled: Labels) -> Floats:
    """Borda's count label by label, times the mean distance to the labelled items' label vectors; p in float32."""
    items, classes = p.shape
    margins = np.abs(2 * p - 1)
    scores = np.empty(items)
    for item in range(items):
        beaten = sum(
            int(margins[other, label] > margins[item, label]) for other in range(items) for label in range(classes)
        )
        distances = [plain_label_distance(p[item] > 0.5, labels) for labels in labelled]
        scores[item] = beaten / (classes * max(1, items - 1)) * (np.mean(distances) if distances else 1.0)
    return scores


@st.composite
def contexts(draw: st.DrawFn) -> PlainContext:
    classes, items, labelled = draw(st.integers(1, 6)), draw(st.integers(1, 20)), draw(st.integers(0, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    z = rng.normal(draw(st.sampled_from([-1.0, 0.0])), draw(st.sampled_from([0.1, 1.0, 20.0, 200.0])), (items, classes))
    # tanh, because exp(-z) overflows where z is large; rounded, so that equal margins are met
    p = (1 + np.tanh(z / 2)) / 2
    p = np.round(p, 1) if draw(st.booleans()) else p
    targets = rng.random((labelled, classes)) < draw(st.sampled_from([0.2, 0.5, 1.0]))
    return context_of(p.astype(np.float32), targets, rng.normal(size=(items, 3)).astype(np.float32))


def context_of(p: NDArray[np.float32], targets: Labels, features: NDArray[np.float32] | None = None) -> PlainContext:
    return PlainContext(
        problem=Problem(task=Task.MULTILABEL, classes=tuple(f"c{number}" for number in range(p.shape[1]))),
        probabilities=torch.from_numpy(p),
        vectors=torch.ones(len(p), 2),
        features=None if features is None else torch.from_numpy(features),
        draws=torch.linspace(0, 0.9, len(p), dtype=torch.float64),
        labelled=PlainLabelled(vectors=torch.ones(len(targets), 2), targets=targets),
    )


@pytest.mark.parametrize("name", sorted(AGGREGATED))
@settings(deadline=None, max_examples=50)
@given(context=contexts(), aggregate=st.sampled_from(Aggregate))
def test_label_scores_are_aggregated(name: str, context: PlainContext, aggregate: Aggregate) -> None:
    scores = AGGREGATED[name](StrategyOptions(name=name, aggregate=aggregate), context.problem).score(context)
    p = context.probabilities.numpy().astype(np.float64)
    expected = [COMBINED[aggregate]([plain_label_score(name, x) for x in row]) for row in p]
    np.testing.assert_allclose(scores.numpy(), expected, atol=2e-6)
    assert (scores >= 0).all()


@pytest.mark.parametrize("name", sorted(AGGREGATED))
def test_labels_are_aggregated_by_their_mean_unless_told_otherwise(name: str) -> None:
    context = context_of(np.array([[0.5, 0.9, 0.25]], np.float32), np.empty((0, 3), np.bool_))
    scores = AGGREGATED[name](StrategyOptions(name=name), context.problem).score(context)
    assert scores.item() == pytest.approx(np.mean([plain_label_score(name, x) for x in (0.5, 0.9, 0.25)]), abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(context=contexts())
def test_label_cardinality_is_the_distance_from_the_labelled_mean(context: PlainContext) -> None:
    assert context.labelled is not None
    counts = [int(labels.sum()) for labels in context.labelled.targets]
    mean = sum(counts) / len(counts) if counts else 0.0
    expected = [abs(sum(int(x > 0.5) for x in row) - mean) for row in context.probabilities.numpy()]
    scores = LabelCardinality(StrategyOptions(), context.problem).score(context)
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(context=contexts())
def test_each_label_adds_its_own_expected_gradient_length(context: PlainContext) -> None:
    assert context.features is not None
    scores = ExpectedGradientLength(StrategyOptions(), context.problem).score(context)
    for score, p, features in zip(scores, context.probabilities.numpy(), context.features.numpy(), strict=True):
        inputs = np.append(features.astype(np.float64), 1)
        expected = 0.0
        for x in p.astype(np.float64):
            for label, probability in ((1, x), (0, 1 - x)):
                expected += probability * float(np.linalg.norm((x - label) * inputs))
        assert score.item() == pytest.approx(expected, abs=1e-4)


def test_the_class_looked_for_is_one_of_the_labels() -> None:
    context = context_of(np.array([[0.5, 0.9, 0.25]], np.float32), np.empty((0, 3), np.bool_))
    strategy = MostLikelyPositive(StrategyOptions(positive_class="c2"), context.problem)
    assert strategy.score(context).tolist() == [0.25]


@settings(deadline=None, max_examples=80)
@given(context=contexts(), count=st.integers(1, 25), block_rows=st.integers(1, 30))
def test_cvirs_picks_the_best_of_its_formula(context: PlainContext, count: int, block_rows: int) -> None:
    assert context.labelled is not None
    expected = plain_cvirs(context.probabilities.numpy(), np.asarray(context.labelled.targets, np.bool_))
    batch = Cvirs(StrategyOptions(), context.problem).pick(PlainView(context=context, block_rows=block_rows), count)
    assert len(set(batch.rows.tolist())) == len(batch.rows) == min(count, len(expected))
    np.testing.assert_allclose(batch.scores, expected[batch.rows], rtol=1e-5, atol=1e-9)
    # Scores are compared with 18 bits, and the first of equals wins.
    best = np.sort(expected)[::-1][: len(batch.rows)]
    np.testing.assert_allclose(batch.scores, best, rtol=1e-5, atol=1e-9)
    for before, after in zip(range(len(batch.rows)), range(1, len(batch.rows)), strict=False):
        assert (batch.scores[before], -batch.rows[before]) > (batch.scores[after], -batch.rows[after])


def test_cvirs_is_the_same_however_its_work_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    p, targets = rng.random((40, 9)).astype(np.float32), rng.random((11, 9)) < 0.4
    context = context_of(p, targets)
    whole = Cvirs(StrategyOptions(), context.problem).pick(PlainView(context=context, block_rows=100), 40)
    monkeypatch.setattr(cvirs, "_MARGIN_BYTES", 2 * 40 * 4)  # two labels at once
    monkeypatch.setattr(cvirs, "_PAIRS", 30)
    parts = Cvirs(StrategyOptions(), context.problem).pick(PlainView(context=context, block_rows=3), 40)
    assert whole.rows.tolist() == parts.rows.tolist()
    np.testing.assert_allclose(parts.scores, plain_cvirs(p, targets)[parts.rows], rtol=1e-5)


def test_cvirs_picks_the_first_of_equal_items() -> None:
    context = context_of(np.full((6, 3), 0.25, np.float32), np.eye(3, dtype=np.bool_))
    batch = Cvirs(StrategyOptions(), context.problem).pick(PlainView(context=context), 4)
    assert batch.rows.tolist() == [0, 1, 2, 3]
    assert batch.scores.tolist() == [0, 0, 0, 0]


def test_cvirs_picks_nothing_of_nothing() -> None:
    context = context_of(np.empty((0, 3), np.float32), np.eye(3, dtype=np.bool_))
    batch = Cvirs(StrategyOptions(), context.problem).pick(PlainView(context=context), 4)
    assert batch.rows.tolist() == batch.scores.tolist() == []


def test_cvirs_asks_whether_the_caller_has_left_between_labels_and_parts() -> None:
    class Leaving(PlainView):
        asked = 0

        def at(self, rows: NDArray[np.int64]) -> PlainContext:
            Leaving.asked += 1
            if Leaving.asked == 4:
                raise Cancelled("the caller left")
            return super().at(rows)

    context = context_of(np.random.default_rng(6).random((30, 5)).astype(np.float32), np.eye(5, dtype=np.bool_))
    with pytest.raises(Cancelled):
        Cvirs(StrategyOptions(), context.problem).pick(Leaving(context=context, block_rows=30), 3)


@pytest.mark.parametrize(("name", "make"), [("cvirs", Cvirs), ("label_cardinality", LabelCardinality)])
def test_a_strategy_asks_for_what_the_catalogue_says(name: str, make: type[Cvirs] | type[LabelCardinality]) -> None:
    problem = Problem(task=Task.MULTILABEL, classes=("a", "b"))
    assert make(StrategyOptions(), problem).needs == STRATEGIES[name].needs
