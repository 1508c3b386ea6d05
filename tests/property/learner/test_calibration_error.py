"""Expected calibration error is that of its definition, stated again bin by bin."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.problem import Problem, Task
from learner.uncertainty.calibration import expected_calibration_error

BINS = 15


def plain_error(pairs: list[tuple[float, bool]]) -> float:
    total = 0.0
    for number in range(BINS):
        low = -1.0 if number == 0 else number / BINS
        members = [(p, right) for p, right in pairs if low < p <= (number + 1) / BINS]
        if members:
            confidence = sum(p for p, _ in members) / len(members)
            share = sum(right for _, right in members) / len(members)
            total += len(members) / len(pairs) * abs(share - confidence)
    return total


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(Task)), st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.3, 3.0, 50.0]))
def test_the_error_is_that_of_its_definition(task: Task, count: int, seed: int, sharpness: float) -> None:
    rng = np.random.default_rng(seed)
    classes = 2 if task is Task.BINARY else 4
    problem = Problem(task=task, classes=("a", "b", "c", "d")[:classes])
    z = rng.normal(0, sharpness, (count, classes))
    if task is Task.MULTILABEL:
        p = (1 + np.tanh(z / 2)) / 2
        targets = rng.random((count, classes)) < 0.4
        pairs = [(float(p[i, j]), bool(targets[i, j])) for i in range(count) for j in range(classes)]
    else:
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        targets = rng.integers(0, classes, count)
        pairs = [(float(max(row)), int(np.argmax(row)) == target) for row, target in zip(p, targets, strict=True)]
    assert expected_calibration_error(problem, p, targets) == pytest.approx(plain_error(pairs), abs=1e-9)


def test_a_model_that_is_as_sure_as_it_is_right_has_no_error() -> None:
    problem = Problem(task=Task.BINARY, classes=("a", "b"))
    probabilities = np.tile(np.array([[0.25, 0.75]], np.float32), (8, 1))
    targets = np.array([1, 1, 1, 0] * 2)
    assert expected_calibration_error(problem, probabilities, targets) == 0
    assert expected_calibration_error(problem, probabilities, 1 - targets) == pytest.approx(0.5)


def test_no_items_have_no_error() -> None:
    problem = Problem(task=Task.BINARY, classes=("a", "b"))
    assert math.isnan(expected_calibration_error(problem, np.empty((0, 2), np.float32), np.empty(0, np.int64)))
