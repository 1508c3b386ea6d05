"""What `auto` chooses, and that its trials measure what they say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner.problem import Problem, Task
from learner.strategies import auto, halving
from learner.strategies.auto import FIRST_TRIALS, Choice
from sealpool.errors import Cancelled
from tests.support.plain_view import PlainLabelled, no_labelled

MOST_FITS = FIRST_TRIALS * 4 + 2 * FIRST_TRIALS * 3


def problem_of(task: Task, classes: int) -> Problem:
    return Problem(task=task, classes=tuple(f"c{number}" for number in range(classes)))


def choose(problem: Problem, vectors: NDArray, targets: NDArray, seed: int = 0) -> Choice:
    labelled = PlainLabelled(vectors=torch.from_numpy(vectors.astype(np.float32)), targets=targets)
    return auto.choose(labelled, problem, seed)


def groups_of(count: int, classes: int, seed: int, spread: float = 0.3) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    targets = np.arange(count) % classes
    return np.eye(max(classes, 6))[targets] + rng.normal(0, spread, (count, max(classes, 6))), targets


@pytest.mark.parametrize("task", list(Task))
def test_without_labels_it_is_representation(task: Task) -> None:
    problem = problem_of(task, 2)
    choice = auto.choose(no_labelled(problem, 3), problem, 0)
    assert (choice.name, choice.fits) == ("typiclust", 0)


def test_labels_of_one_class_are_representation_however_many() -> None:
    vectors = np.random.default_rng(0).normal(0, 1, (200, 4))
    choice = choose(problem_of(Task.BINARY, 2), vectors, np.zeros(200, np.int64))
    assert choice.name == "typiclust"
    assert "200 labels of 1 class" in choice.reason


def test_multi_label_without_a_class_that_some_have_and_some_not_is_representation() -> None:
    targets = np.zeros((50, 3), np.bool_)
    targets[:, 1] = True
    choice = choose(problem_of(Task.MULTILABEL, 3), np.random.default_rng(0).normal(0, 1, (50, 4)), targets)
    assert (choice.name, choice.fits) == ("typiclust", 0)
    assert "50 labelled items" in choice.reason


@pytest.mark.parametrize(
    ("labels", "classes", "tried"), [(19, 3, False), (20, 3, True), (59, 30, False), (60, 30, True)]
)
def test_trials_begin_at_twenty_labels_and_two_a_class(labels: int, classes: int, tried: bool) -> None:
    choice = choose(problem_of(Task.MULTICLASS, classes + 50), *groups_of(labels, classes, seed=0))
    assert (choice.fits > 0) == tried
    if not tried:
        assert choice.name == "typiclust"
        assert f"{labels} labels of {classes} classes are fewer than {max(20, 2 * classes)}" in choice.reason


@pytest.mark.parametrize("task", list(Task))
@settings(deadline=None, max_examples=3)
@given(seed=st.integers(0, 2**32 - 1), labels=st.integers(20, 70))
def test_labels_that_are_noise_or_of_hardly_any_item_do_no_harm(task: Task, seed: int, labels: int) -> None:
    rng = np.random.default_rng(seed)
    classes = 2 if task is Task.BINARY else 5
    targets = rng.integers(0, classes, labels) * (rng.random(labels) < rng.random())
    if task is Task.MULTILABEL:
        targets = rng.random((labels, classes)) < rng.random(classes) ** 3
    vectors = rng.normal(0, 1, (labels, 3)) * rng.choice([0.0, 1.0, 1e3])
    choice = choose(problem_of(task, classes), vectors, targets, seed)
    assert choice.name in ("typiclust", "entropy" if task is Task.MULTILABEL else "margin")
    assert choice.reason.startswith(f"{choice.name}: ")
    assert "nan" not in choice.reason
    assert choice.fits <= MOST_FITS
    assert choose(problem_of(task, classes), vectors, targets, seed) == choice


def test_no_number_of_labels_takes_more_fits_or_larger_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "MOST_LABELS", 200)
    sizes = []

    def counted(trial: halving.Trial, count: int) -> NDArray[np.int64]:
        sizes.append(len(trial.products))
        return halving.any_at_all(trial, count)

    monkeypatch.setattr(halving, "most_representative", counted)
    choice = choose(problem_of(Task.MULTICLASS, 4), *groups_of(2000, 4, seed=0))
    assert choice.fits <= MOST_FITS
    assert set(sizes) == {200}


def errors_of(*means: float, noise: float, trials: int = 30) -> dict[str, NDArray]:
    """Errors of the three arms by trial, the last one dropped after ten."""
    draws = np.random.default_rng(0).normal(0, noise, (3, trials))
    draws -= draws.mean(axis=1, keepdims=True)
    first, second, third = (mean + some for mean, some in zip(means, draws, strict=True))
    return {"typiclust": first, "margin": second, "random": third[:10]}


@pytest.mark.parametrize(
    ("means", "noise", "labels_a_class", "expected"),
    [
        ((0.30, 0.29, 0.4), 0.005, 2.0, "margin"),
        ((0.29, 0.30, 0.4), 0.005, 50.0, "typiclust"),
        ((0.30, 0.29, 0.4), 0.2, 4.9, "typiclust"),
        ((0.30, 0.29, 0.4), 0.2, 5.0, "margin"),
        ((0.29, 0.30, 0.4), 0.2, 5.0, "margin"),
        ((0.30, 0.30, 0.4), 0.0, 4.9, "typiclust"),
    ],
)
def test_the_lower_error_decides_where_it_is_told_apart_and_else_labels_a_class(
    means: tuple[float, float, float], noise: float, labels_a_class: float, expected: str
) -> None:
    name, reason = auto._winner(errors_of(*means, noise=noise), "margin", labels_a_class)
    assert name == expected
    assert ("do not set" in reason) == (noise != 0.005)
    if noise == 0.2:
        assert f"{labels_a_class} labels a class" in reason


@pytest.mark.parametrize(("labels_a_class", "expected"), [(4.0, "typiclust"), (9.0, "margin")])
def test_the_control_is_never_chosen(labels_a_class: float, expected: str) -> None:
    errors = errors_of(0.3, 0.4, 0.2, noise=0.005)
    errors["margin"], errors["random"] = errors["margin"][:10], errors["typiclust"] - 0.1
    name, reason = auto._winner(errors, "margin", labels_a_class)
    assert name == expected
    assert "do not set typiclust apart from random" in reason


def test_where_the_boundary_is_all_that_is_left_to_learn_it_is_uncertainty() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(0, 1, (240, 6))
    choice = choose(problem_of(Task.BINARY, 2), vectors, (vectors.sum(axis=1) > 0).astype(np.int64))
    assert choice.name == "margin"
    assert "error margin" in choice.reason


def test_it_stops_when_the_caller_leaves() -> None:
    vectors, targets = groups_of(60, 3, seed=0)
    problem = problem_of(Task.MULTICLASS, 3)
    labelled = PlainLabelled(vectors=torch.from_numpy(vectors), targets=targets)
    with pytest.raises(Cancelled):
        auto.choose(labelled, problem, 0, cancelled=lambda: True)


def never() -> bool:
    return False


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), labels=st.integers(20, 40), dimension=st.sampled_from([2, 60]))
def test_a_trial_fits_ridge_regression_to_what_counts_as_labelled(seed: int, labels: int, dimension: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, targets = rng.normal(0.5, 1, (labels, dimension)), np.eye(3)[rng.integers(0, 3, labels)]
    trials = halving.Trials(vectors, targets, halving.misclassified, seed=seed, cancelled=never)
    seen = []

    def watched(trial: halving.Trial, count: int) -> NDArray[np.int64]:
        seen.append((trial, count))
        return np.arange(count)

    (error,) = trials.errors([watched], 3)
    trial, count = seen[0]
    centred = vectors - vectors.mean(axis=0)
    l2 = 0.3 * (centred**2).sum(axis=1).mean()

    def outputs(rows: NDArray, of: NDArray) -> NDArray:
        mean = targets[rows].mean(axis=0)
        weights = np.linalg.solve(
            centred[rows].T @ centred[rows] + l2 * np.eye(dimension), centred[rows].T @ (targets[rows] - mean)
        )
        return centred[of] @ weights + mean

    np.testing.assert_allclose(trial.outputs, outputs(trial.start, trial.pool), atol=1e-6)
    test = np.setdiff1d(np.arange(labels), np.concatenate([trial.start, trial.pool]))
    assert len(test) == int(0.3 * labels)
    assert not set(trial.start) & set(trial.pool)
    rows = np.concatenate([trial.start, trial.pool[:count]])
    wrong = outputs(rows, test).argmax(axis=1) != targets[test].argmax(axis=1)
    assert error == pytest.approx(wrong.mean())
    assert trials.fits == 2


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 8))
def test_arms_pick_what_they_say(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(0, 1, (20, 3))
    start, pool = np.split(rng.permutation(20)[:14], [5])
    outputs = rng.normal(0.5, 0.4, (9, 3))
    trial = halving.Trial(
        products=vectors @ vectors.T, start=start, pool=pool, outputs=outputs, draws=rng.permutation(9) / 9
    )
    gaps = [sorted(row)[-1] - sorted(row)[-2] for row in outputs]
    assert halving.least_certain(trial, count).tolist() == np.argsort(gaps)[:count].tolist()
    away = [np.mean([abs(min(max(x, 0), 1) - 0.5) for x in row]) for row in outputs]
    assert halving.nearest_to_even(trial, count).tolist() == np.argsort(away)[:count].tolist()
    assert halving.any_at_all(trial, count).tolist() == np.argsort(trial.draws)[:count].tolist()


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 2**32 - 1))
def test_each_most_representative_pick_leaves_the_least_distance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(0, 1, (14, 3))
    start, pool = np.arange(5), np.arange(5, 14)
    trial = halving.Trial(products=vectors @ vectors.T, start=start, pool=pool, outputs=np.empty(0), draws=np.empty(0))
    picks = halving.most_representative(trial, 9)
    assert sorted(picks) == list(range(9))
    distances = np.linalg.norm(vectors[:, None] - vectors, axis=2)
    known = list(start)
    for pick in picks:
        left = {item: distances[:, [*known, item]].min(axis=1).sum() for item in pool if item not in known}
        # Of two items that have only each other, either is as good.
        assert left[pool[pick]] == pytest.approx(min(left.values()), abs=1e-5)
        known.append(pool[pick])


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_misordered_is_the_share_of_pairs_the_wrong_way_round(seed: int) -> None:
    rng = np.random.default_rng(seed)
    outputs, targets = rng.integers(0, 4, (8, 3)).astype(float), (rng.random((8, 3)) < 0.3).astype(float)
    shares = []
    for column in range(3):
        pairs = [
            (a < b) + (a == b) / 2
            for a in outputs[targets[:, column] == 1, column]
            for b in outputs[targets[:, column] == 0, column]
        ]
        if pairs:
            shares.append(np.mean(pairs))
    assert halving.misordered(outputs, targets) == pytest.approx(np.mean(shares) if shares else 0.5)


def test_halving_gives_the_better_half_twice_the_trials() -> None:
    vectors, targets = groups_of(60, 3, seed=0, spread=1.0)
    trials = halving.Trials(vectors, np.eye(3)[targets], halving.misclassified, seed=0, cancelled=never)

    def worst(trial: halving.Trial, count: int) -> NDArray[np.int64]:
        return np.zeros(count, np.int64)

    arms = {"worst": worst, "any": halving.any_at_all, "sure": halving.least_certain, "same": halving.least_certain}
    errors = halving.halve(trials, arms, first=4)
    assert {name: len(errors[name]) for name in arms if name != "any"} == {"worst": 4, "sure": 12, "same": 12}
    assert errors["sure"].tolist() == errors["same"].tolist()
    assert trials.fits == 4 * 5 + 8 * 3
