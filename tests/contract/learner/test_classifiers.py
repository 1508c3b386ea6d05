"""Every model under every estimator, on every task, keeps the contract of learner.ports.Classifier."""

from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from learner.models import MODELS, make_classifier
from learner.options import ModelOptions, NeuralOptions, TextOptions, UncertaintyOptions
from learner.ports import Classifier, FitReport, Inputs, TrainingSet
from learner.problem import Problem, Targets, Task
from sealpool.errors import Cancelled, FailedPrecondition, InvalidArgument
from sealpool.vocabulary.models import ESTIMATORS
from sealpool.vocabulary.models import MODELS as KNOWN_MODELS

CPU = torch.device("cpu")
COUNT, DIMENSION = 40, 6
WORDS = ("red", "green", "blue", "yellow")
# The transformer needs an encoder on disk; its own tests hold it against this port.
NAMES = [name for name in MODELS if name != "transformer"]
ON_VECTORS = [name for name in NAMES if not KNOWN_MODELS[name].reads_text]
PAIRS = list(product(NAMES, ESTIMATORS))
# Estimators see no difference between models that read texts and the perceptron, so texts meet each but once.
CASES = [
    (name, estimator, task)
    for name, estimator, task in product(NAMES, ESTIMATORS, Task)
    if name in ON_VECTORS or estimator == "softmax" or task is Task.MULTICLASS
]


def problem_of(task: Task) -> Problem:
    return Problem(task=task, classes=WORDS[: 2 if task is Task.BINARY else 3])


def options_of(name: str, estimator: str = "softmax", *, temperature: bool = False, epochs: int = 6) -> ModelOptions:
    return ModelOptions(
        name=name,
        uncertainty=UncertaintyOptions(estimator=estimator, samples=2, temperature=temperature),
        neural=NeuralOptions(epochs=epochs, hidden=(8,), batch_size=16, learning_rate=0.02),
        text=TextOptions(embedding=6),
    )


def items(task: Task, *, seed: int = 0, count: int = COUNT) -> TrainingSet:
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, len(problem_of(task).classes), count)
    centres = np.random.default_rng(9).normal(size=(3, DIMENSION))
    vectors = (centres[classes] + rng.normal(0, 0.6, (count, DIMENSION))).astype(np.float32)
    texts = [f"{WORDS[label]} {'thing ' * int(rng.integers(1, 4))}{WORDS[rng.integers(0, 4)]}" for label in classes]
    targets: Targets = classes
    if task is Task.MULTILABEL:
        targets = classes[:, None] == np.arange(3)
        targets[:, 2] |= targets[:, 0]
    return TrainingSet(vectors=vectors, targets=targets, texts=texts)


def inputs_of(some: TrainingSet, rows: slice = slice(None), dtype: torch.dtype = torch.float32) -> Inputs:
    assert some.texts is not None
    return Inputs(vectors=torch.from_numpy(some.vectors[rows]).to(dtype), texts=some.texts[rows])


def fit(classifier: Classifier, training: TrainingSet, *, cancelled=lambda: False, warm=False, **others) -> FitReport:
    validation = others.get("validation")
    return classifier.fit(
        training,
        validation=validation,
        warm=warm,
        seed=others.get("seed", 5),
        device=CPU,
        progress=others.get("progress", lambda *_: None),
        cancelled=cancelled,
    )


def check_probabilities(task: Task, probabilities: NDArray, shape: tuple[int, ...]) -> None:
    assert probabilities.shape == shape
    assert np.isfinite(probabilities).all()
    assert (probabilities >= 0).all()
    assert (probabilities <= 1).all()
    if task is not Task.MULTILABEL:
        np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)


def test_models_and_estimators_are_those_of_the_vocabulary() -> None:
    assert set(MODELS) == set(KNOWN_MODELS)
    for name, estimator in PAIRS:
        classifier = make_classifier(options_of(name, estimator), problem_of(Task.BINARY))
        assert classifier.needs_text == KNOWN_MODELS[name].reads_text
    with pytest.raises(InvalidArgument, match=r"model\.name.*perceptron"):
        make_classifier(ModelOptions(name="perceptron"), problem_of(Task.BINARY))
    with pytest.raises(InvalidArgument, match=r"uncertainty\.estimator.*vi"):
        make_classifier(options_of("mlp", "vi"), problem_of(Task.BINARY))


@pytest.mark.parametrize(("name", "estimator", "task"), CASES)
def test_a_model_learns_predicts_samples_and_comes_back_from_its_arrays(name: str, estimator: str, task: Task) -> None:
    training, others, problem = items(task), items(task, seed=1, count=20), problem_of(task)
    classifier = make_classifier(options_of(name, estimator), problem)
    report = fit(classifier, training)
    assert report.iterations > 0
    assert np.isfinite(report.loss)
    assert report.temperature is None

    probabilities = classifier.predict_proba(inputs_of(others)).numpy()
    check_probabilities(task, probabilities, (20, len(problem.classes)))
    right = (
        (probabilities > 0.5) == others.targets
        if task is Task.MULTILABEL
        else probabilities.argmax(1) == others.targets
    )
    assert right.mean() > 0.6
    check_probabilities(
        task, classifier.predict_proba(inputs_of(others, slice(0, 0))).numpy(), (0, len(problem.classes))
    )

    features = classifier.features(inputs_of(others)).numpy()
    assert features.shape[0] == 20
    assert np.isfinite(features).all()

    again = make_classifier(options_of(name, estimator), problem)
    again.load(classifier.save(), device=CPU)
    np.testing.assert_array_equal(again.predict_proba(inputs_of(others)).numpy(), probabilities)
    if not ESTIMATORS[estimator].draws:
        with pytest.raises(FailedPrecondition, match=r"uncertainty\.estimator.*mc_dropout, ensemble or laplace"):
            classifier.sample_proba(inputs_of(others), seed=1)
        return

    samples = classifier.sample_proba(inputs_of(others), seed=1).numpy()
    check_probabilities(task, samples, (2, 20, len(problem.classes)))
    assert np.abs(samples[0] - samples[1]).max() > 1e-4
    np.testing.assert_array_equal(again.sample_proba(inputs_of(others), seed=1).numpy(), samples)
    halves = [classifier.sample_proba(inputs_of(others, rows), seed=1).numpy() for rows in (slice(7), slice(7, None))]
    np.testing.assert_allclose(np.concatenate(halves, axis=1), samples, atol=1e-5)


@pytest.mark.parametrize(("name", "estimator"), PAIRS)
def test_the_seed_decides_the_model(name: str, estimator: str) -> None:
    training = items(Task.MULTICLASS)

    def predict(seed: int) -> NDArray:
        classifier = make_classifier(options_of(name, estimator, epochs=2), problem_of(Task.MULTICLASS))
        torch.manual_seed(seed + 100)
        before = torch.random.get_rng_state()
        fit(classifier, training, seed=seed)
        assert torch.equal(torch.random.get_rng_state(), before)
        return classifier.predict_proba(inputs_of(training)).numpy()

    np.testing.assert_array_equal(predict(3), predict(3))
    if (name, estimator) != ("logistic_regression", "softmax"):
        assert np.abs(predict(3) - predict(4)).max() > 1e-6


@pytest.mark.parametrize(("name", "estimator"), PAIRS)
def test_fewer_than_two_classes_are_refused_by_the_name_of_the_field(name: str, estimator: str) -> None:
    for task, targets in (
        (Task.MULTICLASS, np.zeros(COUNT, np.int64)),
        (Task.MULTILABEL, np.ones((COUNT, 3), np.bool_)),
    ):
        some = items(task)
        training = TrainingSet(vectors=some.vectors, targets=targets, texts=some.texts)
        with pytest.raises(FailedPrecondition) as caught:
            fit(make_classifier(options_of(name, estimator), problem_of(task)), training)
        assert caught.value.field == "examples.labels"


@pytest.mark.parametrize(("name", "estimator"), PAIRS)
def test_a_caller_who_leaves_stops_the_fit(name: str, estimator: str) -> None:
    asked = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) >= 2

    with pytest.raises(Cancelled):
        fit(
            make_classifier(options_of(name, estimator), problem_of(Task.MULTICLASS)),
            items(Task.MULTICLASS),
            cancelled=cancelled,
        )
    assert len(asked) == 2


@pytest.mark.parametrize(("name", "estimator", "task"), list(product(ON_VECTORS, ESTIMATORS, Task)))
def test_a_temperature_lowers_the_likelihood_loss_and_changes_no_prediction(
    name: str, estimator: str, task: Task
) -> None:
    training, validation, problem = items(task), items(task, seed=1, count=30), problem_of(task)
    plain = make_classifier(options_of(name, estimator, epochs=3), problem)
    scaled = make_classifier(options_of(name, estimator, epochs=3, temperature=True), problem)
    with pytest.raises(FailedPrecondition, match="validation_share"):
        fit(scaled, training)
    fit(plain, training, validation=validation)
    report = fit(scaled, training, validation=validation)
    before, after = (model.predict_proba(inputs_of(validation)).double().numpy() for model in (plain, scaled))
    assert report.temperature is not None
    assert report.temperature > 0
    assert 0 <= report.error_after <= 1
    assert 0 <= report.error_before <= 1
    if task is Task.MULTILABEL:
        np.testing.assert_array_equal(before > 0.5, after > 0.5)
        losses = [-np.log(np.where(validation.targets, p, 1 - p)).sum() for p in (before, after)]
    else:
        np.testing.assert_array_equal(before.argmax(1), after.argmax(1))
        losses = [-np.log(p[np.arange(30), validation.targets]).sum() for p in (before, after)]
    assert losses[1] <= losses[0] + 1e-6
    again = make_classifier(options_of(name, estimator, temperature=True), problem)
    again.load(scaled.save(), device=CPU)
    np.testing.assert_array_equal(again.predict_proba(inputs_of(validation)).double().numpy(), after)


@pytest.mark.parametrize(("name", "estimator", "task"), list(product(ON_VECTORS, ESTIMATORS, Task)))
def test_vectors_in_float64_are_predicted_in_float64(name: str, estimator: str, task: Task) -> None:
    training = items(task)
    classifier = make_classifier(options_of(name, estimator, epochs=2), problem_of(task))
    fit(classifier, training)
    precise = classifier.predict_proba(inputs_of(training, dtype=torch.float64))
    assert precise.dtype == torch.float64
    np.testing.assert_allclose(precise.numpy(), classifier.predict_proba(inputs_of(training)).numpy(), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_warm_start_goes_on_from_where_the_model_was(name: str) -> None:
    training = items(Task.MULTICLASS)
    first = make_classifier(options_of(name, epochs=8), problem_of(Task.MULTICLASS))
    fit(first, training)
    losses = {}
    for warm in (True, False):
        classifier = make_classifier(options_of(name, epochs=1), problem_of(Task.MULTICLASS))
        classifier.load(first.save(), device=CPU)
        losses[warm] = fit(classifier, training, warm=warm).loss
    assert losses[True] <= losses[False]
    if name != "logistic_regression":
        assert losses[True] < 0.9 * losses[False]


@pytest.mark.parametrize(("name", "estimator"), PAIRS)
def test_arrays_of_another_model_are_refused(name: str, estimator: str) -> None:
    classifier = make_classifier(options_of(name, estimator), problem_of(Task.MULTICLASS))
    with pytest.raises((KeyError, ValueError)):
        classifier.load({"nothing": np.zeros(1)}, device=CPU)
    fit(classifier, items(Task.MULTICLASS))
    with pytest.raises((KeyError, ValueError)):
        make_classifier(options_of(name, estimator), problem_of(Task.BINARY)).load(classifier.save(), device=CPU)
