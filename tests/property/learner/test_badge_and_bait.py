"""BADGE against gradient embeddings made in full, BAIT against dense Fisher matrices."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner.options import StrategyOptions
from learner.ports import BatchStrategy
from learner.problem import Problem, Task
from learner.strategies import badge, bait
from learner.strategies import fisher as fisher_module
from learner.strategies.badge import PROPOSED_TOGETHER, Badge
from learner.strategies.bait import Bait
from tests.support.plain_view import PlainContext, PlainLabelled, PlainView

Numbers = NDArray[np.float64]
TASKS = [Task.BINARY, Task.MULTICLASS, Task.MULTILABEL]


def random_case(
    seed: int, task: Task, items: int, *, labelled: int = 0, features: int = 3, classes: int = 3, block_rows: int = 7
) -> PlainView:
    rng = np.random.default_rng(seed)
    classes = 2 if task is Task.BINARY else classes
    z = rng.normal(0, 2, (items + labelled, classes))
    p = 1 / (1 + np.exp(-z)) if task is Task.MULTILABEL else np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    h = torch.from_numpy(rng.normal(0, 1, (items + labelled, features)).astype(np.float32))
    probabilities = torch.from_numpy(p.astype(np.float32))
    shape = (labelled, classes) if task is Task.MULTILABEL else (labelled,)
    known = PlainLabelled(
        vectors=h[items:], features=h[items:], probabilities=probabilities[items:], targets=np.zeros(shape, np.int64)
    )
    context = PlainContext(
        problem=Problem(task=task, classes=tuple(f"c{number}" for number in range(classes))),
        probabilities=probabilities[:items],
        vectors=h[:items],
        draws=torch.linspace(0, 0.9, items, dtype=torch.float64),
        labelled=known,
    )
    return PlainView(context=context, seed=seed, block_rows=block_rows)


def pick(strategy: type[Badge | Bait], view: PlainView, count: int) -> tuple[list[int], list[float]]:
    made: BatchStrategy = strategy(StrategyOptions(), view.problem)
    batch = made.pick(view, count)
    return batch.rows.tolist(), batch.scores.tolist()


def embeddings(view: PlainView) -> Numbers:
    """(n, c·h), item by item: the gradient of the loss at the predicted labels by the last layer's weights."""
    found = []
    for p, h in zip(view.context.probabilities.double().numpy(), view.context.vectors.double().numpy(), strict=True):
        if view.problem.multilabel:
            predicted = np.array([1.0 if x > 0.5 else 0.0 for x in p])
        else:
            predicted = np.eye(len(p))[int(np.argmax(p))]
        found.append(np.concatenate([(p[label] - predicted[label]) * h for label in range(len(p))]))
    return np.array(found)


def nearest(g: Numbers, picks: list[int]) -> Numbers:
    return np.array([min(float(((row - g[chosen]) ** 2).sum()) for chosen in picks) for row in g])


def plain_badge(view: PlainView, count: int) -> tuple[list[int], list[float]]:
    """k-means++ by rejection with the same draws: proposals by D² as it was, taken with probability now / then."""
    g, rng = embeddings(view), np.random.default_rng(view.seed)
    lengths = (g**2).sum(axis=1)
    picks = [int(np.argmax(lengths))]
    scores = [float(lengths[picks[0]])]
    then = nearest(g, picks)
    while len(picks) < count:
        which, whether = rng.random((2, PROPOSED_TOGETHER))
        taken = 0
        shares = then.cumsum() / then.sum()
        for place in range(PROPOSED_TOGETHER):
            row = int(np.argmax(shares > which[place]))
            now = nearest(g, picks)[row]
            if len(picks) < count and whether[place] * then[row] < now:
                picks.append(row)
                scores.append(now)
                taken += 1
        if taken < PROPOSED_TOGETHER / 2:
            then = nearest(g, picks)
    return picks, scores


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), task=st.sampled_from(TASKS), items=st.integers(9, 40), count=st.integers(1, 8))
def test_badge_is_k_means_plus_plus_on_the_gradient_embeddings(seed: int, task: Task, items: int, count: int) -> None:
    view = random_case(seed, task, items)
    rows, scores = pick(Badge, view, count)
    expected_rows, expected_scores = plain_badge(view, count)
    assert rows == expected_rows
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-4, atol=1e-6)


def test_badge_draws_in_proportion_to_squared_distances() -> None:
    view = random_case(11, Task.MULTICLASS, 5)
    g = embeddings(view)
    first = int(np.argmax((g**2).sum(axis=1)))
    chances: dict[tuple[int, ...], float] = {}
    for second in range(5):
        chance = nearest(g, [first])[second] / nearest(g, [first]).sum()
        for third in range(5):
            further = nearest(g, [first, second])
            if chance > 0 and further[third] > 0:
                chances[(first, second, third)] = chance * further[third] / further.sum()
    draws = 300
    found = dict.fromkeys(chances, 0)
    for seed in range(draws):
        view.seed = seed
        found[tuple(pick(Badge, view, 3)[0])] += 1
    statistic = sum((found[picks] - draws * chance) ** 2 / (draws * chance) for picks, chance in chances.items())
    assert len(chances) == 12
    assert statistic < 31.3  # chi-square, 11 degrees of freedom, 99.9 %


def test_badge_takes_what_is_left_in_order_when_nothing_is_far() -> None:
    view = random_case(3, Task.MULTICLASS, 6)
    view.context = view.context.rows(np.array([0, 1, 0, 1, 0, 1]))
    rows, scores = pick(Badge, view, 5)
    assert sorted(rows[:2]) in ([0, 1], [1, 2], [0, 3], [0, 5], [2, 3], [1, 4], [3, 4], [4, 5], [2, 5])
    assert rows[2:] == sorted(rows[2:])
    assert scores[2:] == [0, 0, 0]


def test_badge_does_not_depend_on_blocks() -> None:
    expected = pick(Badge, random_case(5, Task.MULTICLASS, 60, block_rows=60), 20)
    found = pick(Badge, random_case(5, Task.MULTICLASS, 60, block_rows=13), 20)
    assert found[0] == expected[0]


def test_badge_finds_distances_anew_only_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    renew = badge._Draw.renew
    monkeypatch.setattr(badge._Draw, "renew", lambda draw: (passes.append(1), renew(draw)))
    rows, _ = pick(Badge, random_case(6, Task.MULTICLASS, 500, features=16), 100)
    assert len(set(rows)) == 100
    assert len(passes) < 20


def fisher(p: Numbers, h: Numbers) -> Numbers:
    """E_y[∇ log p(y) ∇ log p(y)ᵀ] by the last layer's weights, one label at a time."""
    total = np.zeros((len(p) * len(h),) * 2)
    for label, chance in enumerate(p):
        gradient = np.kron(np.eye(len(p))[label] - p, h)
        total += chance * np.outer(gradient, gradient)
    return total


def plain_bait(view: PlainView, count: int) -> tuple[list[int], list[float], float]:
    """Return picks, what each lowered the trace by, and the narrowest lead of a choice, relative."""
    numbers = [context.probabilities.double().numpy() for context in (view.context, view.labelled)]
    features = [context.features.double().numpy() for context in (view.context, view.labelled)]
    each = [fisher(p, h) for p, h in zip(numbers[0], features[0], strict=True)]
    f = sum(each) / len(each)
    # The part along equal weights for all classes carries no information: only the others count in the prior.
    classes, width = numbers[0].shape[1], features[0].shape[1]
    contrast = np.kron(np.eye(classes) - 1 / classes, np.eye(width))
    m = np.eye(len(f)) * np.trace(f) / np.trace(contrast)
    m = m + sum(fisher(p, h) for p, h in zip(numbers[1], features[1], strict=True))
    picks, scores, leads = [], [], [1.0]

    def trace(matrix: Numbers) -> float:
        return float(np.trace(np.linalg.solve(matrix, f)))

    for _ in range(min(2 * count, len(each))):
        after = {item: trace(m + each[item]) for item in range(len(each)) if item not in picks}
        best, *others = sorted(after, key=lambda item: after[item])
        scores.append(trace(m) - after[best])
        leads += [(after[other] - after[best]) / scores[-1] for other in others[:1]]
        picks.append(best)
        m = m + each[best]
    while len(picks) > min(count, len(each)):
        after = {item: trace(m - each[item]) for item in picks}
        best, *others = sorted(after, key=lambda item: after[item])
        leads += [(after[other] - after[best]) / trace(m) for other in others[:1]]
        place = picks.index(best)
        m = m - each[best]
        del picks[place], scores[place]
    return picks, scores, min(leads)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    task=st.sampled_from(TASKS[:2]),
    items=st.integers(1, 14),
    labelled=st.sampled_from([0, 4]),
    count=st.integers(1, 4),
)
def test_bait_is_the_greedy_of_dense_fisher_matrices(
    seed: int, task: Task, items: int, labelled: int, count: int
) -> None:
    view = random_case(seed, task, items, labelled=labelled)
    rows, scores = pick(Bait, view, count)
    expected_rows, expected_scores, lead = plain_bait(view, count)
    assert len(set(rows)) == min(count, items)
    if lead > 1e-3:
        assert rows == expected_rows
        np.testing.assert_allclose(scores, expected_scores, rtol=2e-3)


def test_bait_with_more_classes_and_features_than_it_keeps_still_picks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fisher_module, "MOST_FEATURES", 12)
    monkeypatch.setattr(fisher_module, "_MOST_DIMENSIONS", 90)
    view = random_case(2, Task.MULTICLASS, 60, labelled=5, features=20, classes=30)
    rows, scores = pick(Bait, view, 5)
    assert len(set(rows)) == 5
    assert np.isfinite(scores).all()
    assert min(scores) > 0


def test_bait_brought_up_to_date_and_found_anew_picks_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    view = random_case(8, Task.MULTICLASS, 300, labelled=12, features=6, classes=4, block_rows=64)
    expected_rows, expected_scores = pick(Bait, view, 20)
    monkeypatch.setattr(bait, "_RENEWED_EVERY", 1)
    monkeypatch.setattr(bait, "_CHUNK_ROWS", 37)
    rows, scores = pick(Bait, view, 20)
    assert rows == expected_rows
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-3)


def test_bait_picks_from_the_first_of_many_by_the_information_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bait, "_MOST_CANDIDATES", 20)
    view = random_case(9, Task.MULTICLASS, 60, labelled=4)
    rows, scores = pick(Bait, view, 3)
    assert max(rows) < 20
    few = random_case(9, Task.MULTICLASS, 60, labelled=4)
    few.context = few.context.rows(slice(0, 20))
    assert scores != pick(Bait, few, 3)[1]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 12), certainty=st.sampled_from([1.0, 10.0, 40.0]))
def test_roots_make_the_spread_of_labels_again(seed: int, classes: int, certainty: float) -> None:
    rng = np.random.default_rng(seed)
    p = torch.softmax(torch.from_numpy(rng.normal(0, certainty, (5, classes))), dim=1)
    contrasts = np.linalg.qr(np.concatenate([np.ones((classes, 1)), rng.normal(size=(classes, classes - 1))], axis=1))
    projection = fisher_module.Projection(axes=torch.eye(2), contrasts=torch.from_numpy(contrasts[0][:, 1:]))
    spreads = projection.spreads(p)
    expected = [contrasts[0][:, 1:].T @ (np.diag(x) - np.outer(x, x)) @ contrasts[0][:, 1:] for x in p.numpy()]
    np.testing.assert_allclose(spreads, np.array(expected), atol=1e-6)
    factors = fisher_module.roots(spreads)
    np.testing.assert_allclose(torch.einsum("abr,cbr->rac", factors, factors), spreads, atol=3e-5)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 9), items=st.integers(1, 5))
def test_the_trace_of_what_is_solved_is_that_of_dense_matrices(seed: int, size: int, items: int) -> None:
    rng = np.random.default_rng(seed)
    halves = rng.normal(size=(2, items, size, size))
    s, t = halves @ halves.swapaxes(2, 3)
    expected = [np.trace(np.linalg.solve(np.eye(size) + a, b)) for a, b in zip(s, t, strict=True)]
    moved = (torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, 0, 2))) for x in (s, t))
    np.testing.assert_allclose(fisher_module.trace_of_solved(*moved), expected, rtol=1e-9)


@pytest.mark.parametrize("strategy", [Badge, Bait])
@pytest.mark.parametrize("items", [0, 1, 4])
def test_items_that_are_all_alike_are_all_picked(strategy: type[Badge | Bait], items: int) -> None:
    view = random_case(1, Task.MULTICLASS, 1)
    view.context = view.context.rows(np.zeros(items, np.int64))
    rows, scores = pick(strategy, view, 9)
    assert sorted(rows) == list(range(items))
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("strategy", [Badge, Bait])
def test_zero_features_and_certain_probabilities_give_the_first_rows(strategy: type[Badge | Bait]) -> None:
    view = random_case(1, Task.MULTICLASS, 5)
    view.context.features = torch.zeros(5, 3)
    assert sorted(pick(strategy, view, 3)[0]) == [0, 1, 2]
    view.context.probabilities = torch.eye(3)[torch.tensor([0, 1, 2, 0, 1])]
    view.context.features = torch.ones(5, 3)
    assert sorted(pick(strategy, view, 3)[0]) == [0, 1, 2]
