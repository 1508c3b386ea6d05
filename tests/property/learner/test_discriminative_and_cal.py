"""DAL and CAL against plain NumPy statements of their formulas."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from learner.options import StrategyOptions
from learner.problem import Problem, Task
from learner.strategies import cal as cal_module
from learner.strategies.cal import Cal
from learner.strategies.discriminative import MOST_OF_A_SIDE, Discriminative
from sealpool.vocabulary.strategies import STRATEGIES
from tests.support.plain_view import PlainContext, PlainLabelled, PlainView


def problem_of(task: Task) -> Problem:
    return Problem(task=task, classes=("a", "b") if task is Task.BINARY else ("a", "b", "c"))


def probabilities_of(rng: np.random.Generator, count: int, task: Task) -> NDArray[np.float32]:
    z = rng.normal(0, rng.choice([1.0, 30.0, 200.0]), (count, len(problem_of(task).classes)))
    if task is Task.MULTILABEL:
        return ((1 + np.tanh(z / 2)) / 2).astype(np.float32)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)).astype(np.float32)


def context_of(
    task: Task, *, count: int, labelled: int, seed: int, dimension: int = 4, shift: float = 1.0
) -> PlainContext:
    rng = np.random.default_rng(seed)
    vectors = torch.from_numpy(rng.normal(0, 1, (count, dimension)).astype(np.float32))
    others = torch.from_numpy(rng.normal(shift, 1, (labelled, dimension)).astype(np.float32))
    problem = problem_of(task)
    return PlainContext(
        problem=problem,
        probabilities=torch.from_numpy(probabilities_of(rng, count, task)),
        vectors=vectors,
        draws=torch.linspace(0, 0.9, count, dtype=torch.float64),
        labelled=PlainLabelled(
            vectors=others,
            targets=np.zeros((labelled, 3), np.bool_) if task is Task.MULTILABEL else np.zeros(labelled, np.int64),
            probabilities=torch.from_numpy(probabilities_of(rng, labelled, task)),
            features=others * 2,
        ),
        features=vectors * 2,
    )


def divergence(q: NDArray, p: NDArray) -> float:
    return sum(x * (math.log(x) - math.log(max(y, 1.1754943508222875e-38))) for x, y in zip(q, p, strict=True) if x > 0)


def contrast(context: PlainContext, row: int, neighbors: int) -> float:
    features, of_labelled = context.features.double().numpy(), context.labelled.features.double().numpy()
    nearest = np.argsort(((of_labelled - features[row]) ** 2).sum(axis=1))[:neighbors]
    p = context.probabilities[row].double().numpy()
    scores = []
    for place in nearest:
        q = context.labelled.probabilities[place].double().numpy()
        if context.problem.multilabel:
            pairs = zip(q, p, strict=True)
            scores.append(np.mean([divergence([x, 1 - x], [y, 1 - y]) for x, y in pairs]))
        else:
            scores.append(divergence(q, p))
    return float(np.mean(scores))


@pytest.mark.parametrize("task", list(Task))
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), labelled=st.integers(1, 30), neighbors=st.sampled_from([0, 1, 3, 50]))
def test_cal_is_the_mean_divergence_of_the_nearest_labelled_from_the_candidate(
    task: Task, seed: int, labelled: int, neighbors: int
) -> None:
    context = context_of(task, count=6, labelled=labelled, seed=seed)
    context.probabilities = context.probabilities.double()
    context.vectors, context.features = context.vectors.double(), context.features.double()
    scores = Cal(StrategyOptions(name="cal", neighbors=neighbors), context.problem).score(context)
    assert scores.dtype is torch.float64
    expected = [contrast(context, row, neighbors or 10) for row in range(6)]
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("task", list(Task))
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_cal_in_single_precision_is_finite_and_near(task: Task, seed: int) -> None:
    context = context_of(task, count=5, labelled=12, seed=seed)
    scores = Cal(StrategyOptions(name="cal"), context.problem).score(context)
    assert scores.dtype is torch.float32
    assert (scores >= 0).all()
    np.testing.assert_allclose(scores.numpy(), [contrast(context, row, 10) for row in range(5)], rtol=1e-4, atol=1e-4)


def test_cal_meets_labelled_items_in_parts_as_it_does_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(Task.MULTICLASS, count=40, labelled=50, seed=3)
    strategy = Cal(StrategyOptions(name="cal", neighbors=7), context.problem)
    whole = strategy.score(context)
    monkeypatch.setattr(cal_module, "_LABELLED_AT_ONCE", 4)
    monkeypatch.setattr(cal_module, "_BLOCK_VALUES", 12)
    torch.testing.assert_close(strategy.score(context), whole)


def test_cal_without_labelled_items_prefers_none() -> None:
    context = context_of(Task.MULTICLASS, count=4, labelled=0, seed=0)
    assert Cal(StrategyOptions(name="cal"), context.problem).score(context).tolist() == [0, 0, 0, 0]


def test_what_they_need_is_what_the_catalogue_says() -> None:
    problem = problem_of(Task.BINARY)
    for name, made in [("cal", Cal), ("discriminative", Discriminative)]:
        assert made(StrategyOptions(name=name), problem).needs == STRATEGIES[name].needs


def sides_apart(labelled: NDArray, unlabelled: NDArray) -> NDArray:
    """Weights and bias of the balanced logistic regression, found by SciPy."""
    x = np.concatenate([labelled, unlabelled])
    sign = np.concatenate([-np.ones(len(labelled)), np.ones(len(unlabelled))])
    each = np.where(sign < 0, len(x) / 2 / len(labelled), len(x) / 2 / len(unlabelled))
    l2 = 0.01 * (x**2).sum(axis=1).mean()

    def objective(parameters: NDArray) -> float:
        z = sign * (x @ parameters[:-1] + parameters[-1])
        return float((each * np.logaddexp(0, -z)).sum() + l2 / 2 * (parameters[:-1] ** 2).sum())

    return minimize(objective, np.zeros(x.shape[1] + 1), method="BFGS", options={"gtol": 1e-7}).x


def plain_picks(labelled: NDArray, candidates: NDArray, count: int) -> tuple[list[int], list[float]]:
    """Ten sub-batches, each with a classifier of all that is labelled or picked against all the rest."""
    picked: list[int] = []
    scores: list[float] = []
    for part in np.array_split(np.arange(count), min(10, count)):
        rest = np.setdiff1d(np.arange(len(candidates)), picked)
        parameters = sides_apart(np.concatenate([labelled, candidates[picked]]), candidates[rest])
        odds = candidates[rest] @ parameters[:-1] + parameters[-1]
        order = np.argsort(-odds)[: len(part)]
        picked += rest[order].tolist()
        scores += (1 / (1 + np.exp(-odds[order]))).tolist()
    return picked, scores


@pytest.mark.parametrize(("seed", "count"), [(0, 1), (1, 5), (2, 13), (3, 4)])
def test_discriminative_picks_what_is_most_surely_unlabelled_sub_batch_by_sub_batch(seed: int, count: int) -> None:
    context = context_of(Task.MULTICLASS, count=40, labelled=9, seed=seed)
    batch = Discriminative(StrategyOptions(name="discriminative"), context.problem).pick(
        PlainView(context=context), count
    )
    rows, scores = plain_picks(context.labelled.vectors.double().numpy(), context.vectors.double().numpy(), count)
    assert batch.rows.tolist() == rows
    np.testing.assert_allclose(batch.scores, scores, atol=2e-3)


def test_discriminative_begins_with_a_fair_draw_where_nothing_is_labelled() -> None:
    context = context_of(Task.MULTICLASS, count=60, labelled=0, seed=5)
    batch = Discriminative(StrategyOptions(name="discriminative"), context.problem).pick(PlainView(context=context), 20)
    assert batch.rows[:2].tolist() == [0, 1]
    assert batch.scores[:2].tolist() == [1, 1]
    assert len(set(batch.rows.tolist())) == 20
    assert (batch.scores[2:] < 1).all()


def test_discriminative_covers_a_group_that_has_no_label() -> None:
    rng = np.random.default_rng(0)
    near, far = rng.normal(0, 1, (200, 5)), rng.normal(0, 1, (20, 5)) + 8
    order = rng.permutation(220)
    vectors = torch.from_numpy(np.concatenate([near, far])[order].astype(np.float32))
    context = context_of(Task.BINARY, count=220, labelled=30, seed=0, dimension=5, shift=0.0)
    context.vectors = context.features = vectors
    batch = Discriminative(StrategyOptions(name="discriminative"), context.problem).pick(PlainView(context=context), 1)
    assert order[batch.rows[0]] >= 200


@settings(deadline=None, max_examples=8)
@given(
    count=st.integers(0, 30),
    n=st.integers(0, 12),
    m=st.integers(0, 4),
    kind=st.sampled_from(["random", "equal", "zero"]),
)
def test_discriminative_gives_as_many_distinct_picks_as_there_are(count: int, n: int, m: int, kind: str) -> None:
    context = context_of(Task.MULTILABEL, count=n, labelled=m, seed=n)
    if kind != "random":
        context.vectors.fill_(1.0 if kind == "equal" else 0.0)
        context.labelled.vectors.fill_(1.0 if kind == "equal" else 0.0)
    strategy = Discriminative(StrategyOptions(name="discriminative"), context.problem)
    batch = strategy.pick(PlainView(context=context), count)
    assert len(batch.rows) == len(set(batch.rows.tolist())) == min(count, n)
    assert np.isfinite(batch.scores).all()
    if kind != "random" and m:
        assert sorted(batch.rows.tolist()) == list(range(min(count, n)))


def test_discriminative_fits_to_no_more_than_its_limit_a_side() -> None:
    context = context_of(Task.BINARY, count=MOST_OF_A_SIDE + 300, labelled=MOST_OF_A_SIDE + 5, seed=0, dimension=2)
    view = PlainView(context=context, block_rows=4000)
    strategy = Discriminative(StrategyOptions(name="discriminative"), context.problem)
    first, again = strategy.pick(view, 2), strategy.pick(view, 2)
    assert first.rows.tolist() == again.rows.tolist()
    direction = context.vectors.mean(dim=0) - context.labelled.vectors.mean(dim=0)
    place = (context.vectors @ direction).argsort(descending=True).argsort()
    assert (place[torch.from_numpy(first.rows)] < 100).all()
