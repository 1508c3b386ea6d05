"""Logistic regression minimises the objective that the proto states, as scikit-learn's does."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression as Reference

from learner.models import make_classifier
from learner.options import ModelOptions
from learner.ports import Classifier, Inputs, TrainingSet
from learner.problem import Problem, Task
from sealpool.errors import Cancelled, FailedPrecondition

CPU = torch.device("cpu")


def problem_of(task: Task, count: int) -> Problem:
    return Problem(task=task, classes=tuple(f"c{number}" for number in range(count)))


def fit(
    problem: Problem, vectors: NDArray[np.float32], targets: NDArray, *, cancelled=lambda: False, **options
) -> tuple[Classifier, float]:
    classifier = make_classifier(ModelOptions(**{"max_iterations": 1000, "l2": 1.0, **options}), problem)
    report = classifier.fit(
        TrainingSet(vectors=vectors, targets=targets),
        validation=None,
        warm=False,
        seed=0,
        device=CPU,
        progress=lambda *_: None,
        cancelled=cancelled,
    )
    return classifier, report.loss


def predict(classifier: Classifier, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return classifier.predict_proba(Inputs(vectors=torch.from_numpy(vectors))).numpy()


def clusters(count: int, classes: int, *, seed: int = 0, dimension: int = 12) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, count)
    vectors = rng.normal(size=(classes, dimension))[targets] + rng.normal(0, 1.5, (count, dimension))
    return vectors.astype(np.float32), targets


def reference_loss(reference: Reference, vectors: NDArray, targets: NDArray, l2: float) -> float:
    probabilities = reference.predict_proba(vectors.astype(np.float64))
    losses = -np.log(probabilities[np.arange(len(targets)), np.searchsorted(reference.classes_, targets)])
    return float(losses.sum() + 0.5 * l2 * (reference.coef_**2).sum()) / len(targets)


def reference_fit(vectors: NDArray, targets: NDArray, l2: float, class_weight=None) -> Reference:
    # newton-cholesky, because lbfgs stops 5 % above the least loss on vectors that are not scaled.
    reference = Reference(C=1 / l2, solver="newton-cholesky", max_iter=500, tol=1e-9, class_weight=class_weight)
    return reference.fit(vectors.astype(np.float64), targets)


@pytest.mark.parametrize("l2", [0.1, 1.0, 10.0])
@pytest.mark.parametrize(("task", "classes"), [(Task.BINARY, 2), (Task.MULTICLASS, 2), (Task.MULTICLASS, 6)])
def test_loss_and_probabilities_are_those_of_scikit_learn(task: Task, classes: int, l2: float) -> None:
    vectors, targets = clusters(300, classes)
    classifier, loss = fit(problem_of(task, classes), vectors, targets, l2=l2)
    if (task, classes) == (Task.MULTICLASS, 2):
        l2_of_one_output = l2 / 2  # softmax over two classes halves the squared norm
        reference = reference_fit(vectors, targets, l2_of_one_output)
        expected = reference_loss(reference, vectors, targets, l2_of_one_output)
    else:
        reference = reference_fit(vectors, targets, l2)
        expected = reference_loss(reference, vectors, targets, l2)
    assert loss == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(predict(classifier, vectors), reference.predict_proba(vectors), atol=1e-3)


def test_digits_converge_though_their_pixels_are_not_scaled() -> None:
    vectors, targets = load_digits(return_X_y=True)
    vectors, targets = vectors[:500].astype(np.float32), targets[:500]
    classifier, loss = fit(problem_of(Task.MULTICLASS, 10), vectors, targets)
    reference = reference_fit(vectors, targets, 1.0)
    assert loss == pytest.approx(reference_loss(reference, vectors, targets, 1.0), rel=1e-4)
    np.testing.assert_allclose(predict(classifier, vectors), reference.predict_proba(vectors), atol=1e-3)


def test_the_default_penalty_does_not_depend_on_the_scale_of_the_vectors() -> None:
    vectors, targets = clusters(200, 3)
    problem = problem_of(Task.MULTICLASS, 3)
    plain, _ = fit(problem, vectors, targets, l2=0.0)
    scaled, _ = fit(problem, 50 * vectors, targets, l2=0.0)
    np.testing.assert_allclose(predict(plain, vectors), predict(scaled, 50 * vectors), atol=1e-3)
    stated, _ = fit(problem, vectors, targets, l2=0.01 * float((vectors.astype(np.float64) ** 2).sum(1).mean()))
    np.testing.assert_allclose(predict(plain, vectors), predict(stated, vectors), atol=1e-6)


def test_multilabel_is_one_regression_a_class() -> None:
    vectors, first = clusters(300, 3)
    targets = np.stack([first == 0, first != 1, vectors[:, 0] > 0.5], axis=1)
    classifier, _ = fit(problem_of(Task.MULTILABEL, 3), vectors, targets)
    probabilities = predict(classifier, vectors)
    for column in range(3):
        reference = reference_fit(vectors, targets[:, column], 1.0)
        np.testing.assert_allclose(probabilities[:, column], reference.predict_proba(vectors)[:, 1], atol=1e-3)


@pytest.mark.parametrize(("task", "classes"), [(Task.BINARY, 2), (Task.MULTICLASS, 4)])
def test_balanced_weights_are_those_of_scikit_learn(task: Task, classes: int) -> None:
    vectors, targets = clusters(400, classes)
    kept = (targets != 0) | (np.arange(400) % 10 == 0)
    vectors, targets = vectors[kept], targets[kept]
    classifier, _ = fit(problem_of(task, classes), vectors, targets, balanced=True)
    reference = reference_fit(vectors, targets, 1.0, class_weight="balanced")
    np.testing.assert_allclose(predict(classifier, vectors), reference.predict_proba(vectors), atol=1e-3)


def test_balanced_multilabel_weighs_each_class_by_itself() -> None:
    vectors, first = clusters(300, 8)
    targets = np.stack([first == 0, first < 6], axis=1)
    classifier, _ = fit(problem_of(Task.MULTILABEL, 2), vectors, targets, balanced=True)
    for column in range(2):
        reference = reference_fit(vectors, targets[:, column], 1.0, class_weight="balanced")
        np.testing.assert_allclose(
            predict(classifier, vectors)[:, column], reference.predict_proba(vectors)[:, 1], atol=1e-3
        )


def test_item_weights_count_like_repeated_items() -> None:
    vectors, targets = clusters(80, 3)
    weights = np.where(np.arange(80) % 4 == 0, 3, 1)
    weighted = make_classifier(ModelOptions(), problem_of(Task.MULTICLASS, 3))
    weighted.fit(
        TrainingSet(vectors=vectors, targets=targets, weights=weights.astype(np.float32)),
        validation=None,
        warm=False,
        seed=0,
        device=CPU,
        progress=lambda *_: None,
        cancelled=lambda: False,
    )
    repeated, _ = fit(
        problem_of(Task.MULTICLASS, 3), np.repeat(vectors, weights, 0), np.repeat(targets, weights), l2=0.0
    )
    np.testing.assert_allclose(predict(weighted, vectors), predict(repeated, vectors), atol=1e-3)


def test_a_class_without_a_label_gets_probability_zero_and_changes_nothing_else() -> None:
    vectors, targets = clusters(200, 3)
    present = np.array([0, 2, 5])
    classifier, _ = fit(problem_of(Task.MULTICLASS, 7), vectors, present[targets])
    alone, _ = fit(problem_of(Task.MULTICLASS, 3), vectors, targets)
    probabilities = predict(classifier, vectors)
    assert np.isfinite(probabilities).all()
    assert (probabilities[:, [1, 3, 4, 6]] == 0).all()
    np.testing.assert_allclose(probabilities[:, present], predict(alone, vectors), atol=1e-6)


def test_a_multilabel_class_with_one_kind_of_label_gets_its_smoothed_share() -> None:
    vectors, first = clusters(98, 2)
    targets = np.stack([np.zeros(98, bool), first == 0, np.ones(98, bool)], axis=1)
    classifier, _ = fit(problem_of(Task.MULTILABEL, 3), vectors, targets)
    probabilities = predict(classifier, vectors)
    np.testing.assert_allclose(probabilities[:, 0], 1 / 100, rtol=1e-5)
    np.testing.assert_allclose(probabilities[:, 2], 99 / 100, rtol=1e-5)
    assert probabilities[:, 1].std() > 0.1


def test_one_class_is_not_enough() -> None:
    with pytest.raises(FailedPrecondition, match="1 of the classes"):
        fit(problem_of(Task.MULTICLASS, 3), np.ones((4, 2), np.float32), np.full(4, 2))
    with pytest.raises(FailedPrecondition, match="both a positive and a negative"):
        fit(problem_of(Task.MULTILABEL, 2), np.ones((4, 2), np.float32), np.array([[True, False]] * 4))


def test_two_fits_give_the_same_bits_and_a_saved_model_too() -> None:
    vectors, targets = clusters(200, 4)
    problem = problem_of(Task.MULTICLASS, 4)
    first, second = fit(problem, vectors, targets)[0], fit(problem, vectors, targets)[0]
    loaded = make_classifier(ModelOptions(), problem)
    loaded.load(first.save(), device=CPU)
    for other in (second, loaded):
        np.testing.assert_array_equal(predict(first, vectors), predict(other, vectors))


def test_a_caller_who_leaves_stops_the_fit_at_the_next_iteration() -> None:
    vectors, targets = clusters(100, 3)
    asked = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) == 3

    with pytest.raises(Cancelled):
        fit(problem_of(Task.MULTICLASS, 3), vectors, targets, cancelled=cancelled)
    assert len(asked) == 3


def test_equal_vectors_with_different_labels_give_the_shares() -> None:
    vectors = np.ones((10, 3), np.float32)
    classifier, _ = fit(problem_of(Task.BINARY, 2), vectors, np.arange(10) % 5 == 0)
    np.testing.assert_allclose(predict(classifier, vectors)[:, 1], 0.2, atol=1e-3)


def test_more_dimensions_than_a_full_matrix_is_kept_for() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(60, 2100)).astype(np.float32)
    targets = rng.integers(0, 3, 60)
    _, loss = fit(problem_of(Task.MULTICLASS, 3), vectors, targets, l2=10.0)
    reference = Reference(C=0.1, max_iter=2000, tol=1e-8).fit(vectors.astype(np.float64), targets)
    assert loss == pytest.approx(reference_loss(reference, vectors, targets, 10.0), rel=1e-3)


@pytest.mark.parametrize(("task", "classes"), [(Task.BINARY, 2), (Task.MULTICLASS, 4), (Task.MULTILABEL, 3)])
def test_a_warm_start_ends_at_the_same_optimum_sooner(task: Task, classes: int) -> None:
    vectors, targets = clusters(300, classes)
    if task is Task.MULTILABEL:
        targets = targets[:, None] == np.arange(classes)
    problem = problem_of(task, classes)

    def fit_on(classifier: Classifier, count: int, *, warm: bool) -> int:
        training = TrainingSet(vectors=vectors[:count], targets=targets[:count])
        options = {"validation": None, "seed": 0, "device": CPU, "progress": lambda *_: None}
        return classifier.fit(training, warm=warm, cancelled=lambda: False, **options).iterations

    warm, cold = make_classifier(ModelOptions(l2=1.0), problem), make_classifier(ModelOptions(l2=1.0), problem)
    fit_on(warm, 300, warm=True)  # nothing there to go on from
    fit_on(warm, 295, warm=False)
    assert fit_on(warm, 300, warm=True) < fit_on(cold, 300, warm=False)
    np.testing.assert_allclose(predict(warm, vectors), predict(cold, vectors), atol=1e-3)


def test_vectors_in_float64_give_probabilities_in_float64() -> None:
    vectors, targets = clusters(100, 3)
    classifier, _ = fit(problem_of(Task.MULTICLASS, 3), vectors, targets)
    precise = classifier.predict_proba(Inputs(vectors=torch.from_numpy(vectors).double()))
    assert precise.dtype == torch.float64
    np.testing.assert_allclose(precise.numpy(), predict(classifier, vectors), atol=1e-6)
