"""Quality is what scikit-learn says where it has a meaning, NaN where not, and never a warning."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score

from learner.evaluation import measure
from learner.problem import Problem, Task


def problem_of(task: Task, count: int) -> Problem:
    return Problem(task=task, classes=tuple(f"c{number}" for number in range(count)))


def random_probabilities(items: int, classes: int, seed: int = 0) -> np.ndarray:
    p = np.random.default_rng(seed).random((items, classes))
    return (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


def test_multiclass_measures_are_those_of_scikit_learn() -> None:
    p = random_probabilities(200, 4)
    truth = np.random.default_rng(1).integers(0, 4, 200)
    quality = measure(problem_of(Task.MULTICLASS, 4), p, truth)
    predicted = p.argmax(axis=1)
    indicator = np.eye(4, dtype=int)[truth]
    assert quality.items == 200
    assert quality.accuracy == pytest.approx(accuracy_score(truth, predicted))
    assert quality.macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert quality.micro_f1 == pytest.approx(f1_score(truth, predicted, average="micro"))
    assert quality.macro_roc_auc == pytest.approx(roc_auc_score(indicator, p, average="macro"))
    assert quality.mean_average_precision == pytest.approx(average_precision_score(indicator, p, average="macro"))
    assert [one.support for one in quality.classes] == indicator.sum(axis=0).tolist()


def test_multilabel_accuracy_counts_items_with_every_class_right() -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.9], [0.1, 0.2]], np.float32)
    truth = np.array([[True, False], [True, False], [False, False]])
    quality = measure(problem_of(Task.MULTILABEL, 2), p, truth)
    assert quality.accuracy == pytest.approx(2 / 3)
    assert quality.micro_f1 == pytest.approx(2 * 2 / (2 + 3))
    assert quality.classes[0].average_precision == 1
    assert math.isnan(quality.classes[1].average_precision)
    assert quality.mean_average_precision == 1


def test_a_class_nobody_has_is_nan_and_left_out_of_the_means() -> None:
    p = np.array([[0.6, 0.4, 0.0], [0.3, 0.7, 0.0], [0.8, 0.2, 0.0]], np.float32)
    quality = measure(problem_of(Task.MULTICLASS, 3), p, np.array([0, 1, 0]))
    absent = quality.classes[2]
    assert absent.support == 0
    assert all(math.isnan(value) for value in (absent.average_precision, absent.roc_auc, absent.f1))
    assert (quality.accuracy, quality.macro_f1, quality.macro_roc_auc, quality.mean_average_precision) == (1, 1, 1, 1)


def test_held_out_items_of_one_class_give_nan_means_not_warnings() -> None:
    quality = measure(problem_of(Task.BINARY, 2), np.array([[0.9, 0.1], [0.2, 0.8]], np.float32), np.array([0, 0]))
    assert quality.accuracy == 0.5
    assert math.isnan(quality.macro_roc_auc)
    assert math.isnan(quality.mean_average_precision)


def test_a_campaign_of_one_multilabel_class_is_measured() -> None:
    p = np.array([[0.9], [0.6], [0.2], [0.4]], np.float32)
    quality = measure(problem_of(Task.MULTILABEL, 1), p, np.array([[True], [False], [False], [True]]))
    assert (quality.accuracy, quality.macro_f1, quality.micro_f1) == (0.5, 0.5, 0.5)
    assert [one.f1 for one in quality.classes] == [0.5]
    assert quality.macro_roc_auc == pytest.approx(3 / 4)


@pytest.mark.parametrize("steps", [1, 2, 5, 1000])
def test_ties_in_a_ranking_count_as_scikit_learn_counts_them(steps: int) -> None:
    rng = np.random.default_rng(steps)
    p = (rng.integers(0, steps, (300, 6)) / steps).astype(np.float32)
    truth = rng.random((300, 6)) < [0, 0.1, 0.3, 0.5, 0.9, 1]
    truth[0], truth[1] = True, False
    quality = measure(problem_of(Task.MULTILABEL, 6), p, truth)
    for column, one in enumerate(quality.classes):
        assert one.average_precision == pytest.approx(average_precision_score(truth[:, column], p[:, column]))
        assert one.roc_auc == pytest.approx(roc_auc_score(truth[:, column], p[:, column]))
        assert one.f1 == pytest.approx(f1_score(truth[:, column], p[:, column] > 0.5))


def test_one_multilabel_class_and_one_item_are_enough() -> None:
    quality = measure(problem_of(Task.MULTILABEL, 1), np.array([[0.9]], np.float32), np.array([[True]]))
    assert quality.accuracy == quality.macro_f1 == quality.micro_f1 == 1
