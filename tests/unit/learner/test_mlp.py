"""The multilayer perceptron learns what no linear model can, whatever the scale of the vectors."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from learner.models.mlp import MultilayerPerceptron
from learner.models.neural.dropout import ConsistentDropout
from learner.options import ModelOptions, NeuralOptions
from learner.ports import FitReport, Inputs, TrainingSet
from learner.problem import Problem, Task

CPU = torch.device("cpu")
PROBLEM = Problem(task=Task.BINARY, classes=("same", "differs"))


def exclusive_or(count: int, *, scale: float = 1.0) -> TrainingSet:
    vectors = np.random.default_rng(0).uniform(-1, 1, (count, 2))
    return TrainingSet(
        vectors=(scale * vectors).astype(np.float32), targets=(vectors.prod(axis=1) < 0).astype(np.int64)
    )


def fitted(training: TrainingSet, *, balanced: bool = False, **neural) -> tuple[MultilayerPerceptron, FitReport]:
    options = NeuralOptions(**{"epochs": 40, "hidden": (32,), "learning_rate": 0.02, "batch_size": 32, **neural})
    model = MultilayerPerceptron(ModelOptions(name="mlp", neural=options, balanced=balanced), PROBLEM)
    report = model.fit(
        training,
        validation=None,
        warm=False,
        seed=2,
        device=CPU,
        progress=lambda *_: None,
        cancelled=lambda: False,
    )
    return model, report


def predict(model: MultilayerPerceptron, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return model.predict_proba(Inputs(vectors=torch.from_numpy(vectors))).numpy()


@pytest.mark.parametrize("scale", [0.01, 1.0, 300.0])
def test_exclusive_or_is_learnt_at_any_scale(scale: float) -> None:
    training = exclusive_or(200, scale=scale)
    model, report = fitted(training)
    assert report.iterations == 40
    assert (predict(model, training.vectors).argmax(1) == training.targets).mean() > 0.95


def test_probabilities_are_the_softmax_of_the_head_on_the_features() -> None:
    training = exclusive_or(50)
    model, _ = fitted(training, epochs=2, hidden=(8, 5))
    inputs = Inputs(vectors=torch.from_numpy(training.vectors))
    weights, bias = model.head()
    features = model.features(inputs)
    assert features.shape == (50, 5)
    assert weights.shape == (2, 5)
    expected = torch.softmax(features @ weights.T + bias, dim=1)
    torch.testing.assert_close(model.predict_proba(inputs), expected)


def test_rows_in_any_order_and_many_portions_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    training = exclusive_or(50)
    model, _ = fitted(training, epochs=1)
    whole = predict(model, training.vectors)
    monkeypatch.setattr(MultilayerPerceptron, "predicted_at_once", 7)
    np.testing.assert_allclose(predict(model, training.vectors), whole, atol=1e-6)
    np.testing.assert_allclose(predict(model, training.vectors[::-1].copy()), whole[::-1], atol=1e-6)


def test_vectors_that_are_all_zero_give_numbers() -> None:
    training = TrainingSet(vectors=np.zeros((8, 3), np.float32), targets=np.arange(8) % 2)
    model, report = fitted(training, epochs=2)
    assert np.isfinite(report.loss)
    np.testing.assert_allclose(predict(model, training.vectors), 0.5, atol=0.2)


def test_balanced_weights_raise_the_rare_class() -> None:
    rng = np.random.default_rng(1)
    targets = (np.arange(100) % 10 == 0).astype(np.int64)
    training = TrainingSet(vectors=(rng.normal(0, 1, (100, 2)) + targets[:, None]).astype(np.float32), targets=targets)
    means = [
        predict(fitted(training, balanced=b, hidden=(4,))[0], training.vectors)[:, 1].mean() for b in (False, True)
    ]
    assert means[0] == pytest.approx(0.1, abs=0.04)
    assert means[1] > 0.2


def test_dropout_of_the_options_is_the_networks() -> None:
    model, _ = fitted(exclusive_or(50), epochs=1, dropout=0.3)
    assert [part.rate for part in model._fitted().modules() if isinstance(part, ConsistentDropout)] == [0.3]
