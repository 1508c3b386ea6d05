"""Each estimator's samples are what its paper says they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from learner.models import make_classifier
from learner.models.logistic_regression import LogisticRegression
from learner.models.mlp import MultilayerPerceptron
from learner.models.neural.classifier import ModuleClassifier
from learner.models.neural.dropout import ConsistentDropout
from learner.options import ModelOptions, NeuralOptions, UncertaintyOptions
from learner.ports import Classifier, FitReport, Inputs, TrainingSet
from learner.problem import Problem, Task
from learner.uncertainty import curvature
from learner.uncertainty.curvature import Spectrum, evidence_precision, spectrum_of
from learner.uncertainty.laplace import Laplace
from learner.uncertainty.mc_dropout import MonteCarloDropout
from learner.uncertainty.temperature import TemperatureScaled
from sealpool.errors import FailedPrecondition

CPU = torch.device("cpu")
PROBLEM = Problem(task=Task.MULTICLASS, classes=("a", "b", "c"))
LABELS = Problem(task=Task.MULTILABEL, classes=("a", "b", "c"))


def clusters(count: int = 60, *, seed: int = 0, noise: float = 0.7) -> TrainingSet:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 3, count)
    vectors = np.random.default_rng(9).normal(size=(3, 4))[targets] + rng.normal(0, noise, (count, 4))
    return TrainingSet(vectors=vectors.astype(np.float32), targets=targets)


def inputs_of(training: TrainingSet, factor: float = 1.0) -> Inputs:
    return Inputs(vectors=factor * torch.from_numpy(training.vectors))


def fit(model: Classifier, training: TrainingSet, *, warm: bool = False, validation=None, seed: int = 3) -> FitReport:
    return model.fit(
        training,
        validation=validation,
        warm=warm,
        seed=seed,
        device=CPU,
        progress=lambda *_: None,
        cancelled=lambda: False,
    )


def made(name: str, estimator: str, samples: int = 4, problem: Problem = PROBLEM, **uncertainty) -> Classifier:
    options = ModelOptions(
        name=name,
        l2=1.0 if name == "logistic_regression" else 0.0,
        uncertainty=UncertaintyOptions(estimator=estimator, samples=samples, **uncertainty),
        neural=NeuralOptions(epochs=8, hidden=(6,), learning_rate=0.03, batch_size=16),
    )
    return make_classifier(options, problem)


class _Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU())
        self.dropout = ConsistentDropout(0.5)
        self.head = nn.Linear(6, 3)

    def features(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.body(vectors)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.features(vectors)))


class Normed(ModuleClassifier):
    """A network with batch norm."""

    def _build(self, training: TrainingSet) -> nn.Module:
        return _Normed()

    def _collate(self, inputs: Inputs, rows: np.ndarray) -> dict[str, torch.Tensor]:
        return {"vectors": inputs.vectors[torch.from_numpy(rows)]}


def test_dropout_samples_differ_and_leave_batch_norm_as_it_was() -> None:
    training = clusters()
    base = Normed(ModelOptions(neural=NeuralOptions(epochs=3)), PROBLEM)
    model = MonteCarloDropout(base, samples=5, rate=None)
    fit(model, training)
    before = {name: array.copy() for name, array in model.save().items()}
    assert before["model.module.body.1.num_batches_tracked"] > 0
    samples = model.sample_proba(inputs_of(training, 3.0), seed=1)
    assert len({sample.numpy().tobytes() for sample in samples}) == 5
    for name, array in model.save().items():
        np.testing.assert_array_equal(array, before[name])
    # Batch norm takes its running statistics, not those of the batch: an item alone gets the same.
    alone = model.sample_proba(Inputs(vectors=inputs_of(training, 3.0).vectors[:1]), seed=1)
    torch.testing.assert_close(alone, samples[:, :1])


@pytest.mark.parametrize("name", ["logistic_regression", "mlp"])
def test_dropout_samples_are_of_their_seed_and_the_prediction_is_the_mean_at_the_fits_seed(name: str) -> None:
    training = clusters()
    model = made(name, "mc_dropout")
    fit(model, training, seed=3)
    inputs = inputs_of(training)
    first, again, other = (model.sample_proba(inputs, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)
    torch.testing.assert_close(model.predict_proba(inputs), first.mean(dim=0))


def test_dropout_of_logistic_regression_is_of_its_input_at_the_rate_asked_for() -> None:
    training = clusters()
    model, plain = (
        made("logistic_regression", "mc_dropout", samples=400, dropout=0.25),
        made("logistic_regression", "softmax"),
    )
    fit(model, training)
    fit(plain, training)
    weights, bias = torch.from_numpy(plain.save()["weights"]), torch.from_numpy(plain.save()["bias"])
    vector = torch.ones(1, 4)
    possible = [
        torch.softmax((vector * torch.tensor([float(bit) for bit in f"{mask:04b}"]) / 0.75) @ weights + bias, dim=1)
        for mask in range(16)
    ]
    samples = model.sample_proba(Inputs(vectors=vector), seed=1)
    counts = np.zeros(16)
    for sample in samples:
        distances = [float((sample - one).abs().max()) for one in possible]
        assert min(distances) < 1e-5
        counts[int(np.argmin(distances))] += 1
    kept = sum(counts[mask] * f"{mask:04b}".count("1") for mask in range(16)) / (4 * 400)
    assert kept == pytest.approx(0.75, abs=0.05)


def test_the_rate_asked_for_is_trained_with_and_sampled_with() -> None:
    model = made("mlp", "mc_dropout", dropout=0.4)
    fit(model, clusters())
    assert isinstance(model, MonteCarloDropout)
    assert isinstance(model._base, MultilayerPerceptron)
    assert [part.rate for part in model._base._fitted().modules() if isinstance(part, ConsistentDropout)] == [0.4]
    off = ModelOptions(
        name="mlp", neural=NeuralOptions(dropout=0.0), uncertainty=UncertaintyOptions(estimator="mc_dropout")
    )
    undropped = make_classifier(off, PROBLEM)
    assert isinstance(undropped, MonteCarloDropout)
    assert undropped._rate == 0.5
    assert undropped._samples == 20


@pytest.mark.parametrize("name", ["logistic_regression", "mlp"])
def test_members_of_an_ensemble_differ_and_their_mean_is_the_prediction(name: str) -> None:
    training = clusters()
    model = made(name, "ensemble", samples=0)
    report = fit(model, training)
    inputs = inputs_of(training)
    samples = model.sample_proba(inputs, seed=1)
    assert samples.shape[0] == 5
    assert len({sample.numpy().tobytes() for sample in samples}) == 5
    assert torch.equal(samples, model.sample_proba(inputs, seed=2))
    torch.testing.assert_close(model.predict_proba(inputs), samples.mean(dim=0))
    assert report.iterations >= 5


def test_bagging_never_loses_a_class_that_has_one_label() -> None:
    training = TrainingSet(vectors=np.eye(4, dtype=np.float32)[:3], targets=np.array([0, 1, 2]))
    model = made("logistic_regression", "ensemble", samples=12)
    fit(model, training)
    samples = model.sample_proba(inputs_of(training), seed=0)
    assert samples.mean(dim=0).argmax(dim=1).tolist() == [0, 1, 2]
    assert (samples > 0).all()


def numerical_hessian(weights: np.ndarray, training: TrainingSet, item_weights: np.ndarray) -> np.ndarray:
    """The Hessian of the summed cross-entropy by automatic differentiation, over (c, h + 1) weights, bias last."""
    inputs = torch.cat([torch.from_numpy(training.vectors).double(), torch.ones(len(training), 1)], dim=1)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        z = inputs @ flat.reshape(weights.shape).T
        if training.targets.ndim == 2:
            targets = torch.from_numpy(training.targets).double()
            return nn.functional.binary_cross_entropy_with_logits(
                z, targets, weight=torch.from_numpy(item_weights)[:, None], reduction="sum"
            )
        losses = nn.functional.cross_entropy(z, torch.from_numpy(training.targets), reduction="none")
        return (losses * torch.from_numpy(item_weights)).sum()

    return torch.autograd.functional.hessian(loss, torch.from_numpy(weights).flatten()).numpy()


def covariance_of(spectrum: Spectrum, shape: tuple[int, int], precision: float) -> np.ndarray:
    """(H + τ·I)⁻¹, by what its root makes of unit vectors."""
    size = shape[0] * shape[1]
    root = spectrum.shifts(torch.eye(size).reshape(size, *shape), precision).reshape(size, size).double().numpy()
    return root.T @ root


@pytest.mark.parametrize("problem", [PROBLEM, LABELS], ids=["multiclass", "multilabel"])
def test_laplace_covariance_is_the_inverse_hessian_of_the_penalised_loss(problem: Problem) -> None:
    training = replace(clusters(), weights=np.linspace(0.5, 2, 60).astype(np.float32))
    if problem.multilabel:
        training = replace(training, targets=training.targets[:, None] == np.arange(3))
    base = LogisticRegression(ModelOptions(l2=1.0), problem)
    fit(base, training)
    layer = torch.cat([base.head()[0], base.head()[1][:, None]], dim=1).double().numpy()
    hessian = numerical_hessian(layer, training, training.weights.astype(np.float64))
    spectrum = spectrum_of(base, problem, training, balanced=False, device=CPU, cancelled=lambda: False)
    expected = np.linalg.inv(hessian + 2.0 * np.eye(len(hessian)))
    np.testing.assert_allclose(covariance_of(spectrum, layer.shape, 2.0), expected, atol=1e-4)


@pytest.mark.parametrize("problem", [PROBLEM, LABELS], ids=["multiclass", "multilabel"])
@pytest.mark.parametrize("eigen_up_to", [100, 0], ids=["factors", "diagonals"])
def test_large_last_layers_take_kronecker_factors(
    problem: Problem, eigen_up_to: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curvature, "_EXACT_UP_TO", 0)
    monkeypatch.setattr(curvature, "_EXACT_NUMBERS", 0)
    monkeypatch.setattr(curvature, "_EIGEN_UP_TO", eigen_up_to)
    training = clusters()
    if problem.multilabel:
        training = replace(training, targets=training.targets[:, None] == np.arange(3))
    base = LogisticRegression(ModelOptions(l2=1.0), problem)
    fit(base, training)
    inputs = np.concatenate([training.vectors, np.ones((60, 1))], axis=1).astype(np.float64)
    p = base.predict_proba(Inputs(vectors=torch.from_numpy(training.vectors).double())).numpy()
    inner = np.diag((p * (1 - p)).sum(0)) if problem.multilabel else np.diag(p.sum(0)) - p.T @ p
    outer = inputs.T @ inputs
    if not eigen_up_to:
        inner, outer = np.diag(np.diag(inner)), np.diag(np.diag(outer))
    spectrum = spectrum_of(base, problem, training, balanced=False, device=CPU, cancelled=lambda: False)
    expected = np.linalg.inv(np.kron(inner, outer) / 60 + 2.0 * np.eye(15))
    np.testing.assert_allclose(covariance_of(spectrum, (3, 5), 2.0), expected, atol=1e-4)


def test_the_prior_is_that_of_the_highest_evidence_on_the_grid() -> None:
    rng = np.random.default_rng(0)
    values, weights = rng.exponential(5, (3, 5)), rng.normal(0, 0.3, (3, 5))
    spectrum = Spectrum(left=torch.empty(0), right=torch.empty(0), values=torch.from_numpy(values))
    chosen = evidence_precision(spectrum, torch.from_numpy(weights))

    def evidence(tau: float) -> float:
        return 15 * np.log(tau) - tau * (weights**2).sum() - np.log(values + tau).sum()

    grid = 10 ** np.linspace(-4, 4, 81)
    assert chosen == pytest.approx(max(grid, key=evidence))
    assert 1e-4 < chosen < 1e4


@pytest.mark.parametrize("name", ["logistic_regression", "mlp"])
def test_laplace_samples_centre_on_the_fitted_model_and_widen_away_from_the_data(name: str) -> None:
    training = clusters(200)
    model, plain = made(name, "laplace", samples=300), made(name, "softmax")
    fit(model, training)
    fit(plain, training)
    assert isinstance(model, Laplace)
    weights = model._draw(1).double()
    centre = model._weights().double()
    deviation = weights.std(dim=0)
    assert ((weights.mean(dim=0) - centre).abs() < 5 * deviation / 300**0.5).all()

    samples = model.sample_proba(inputs_of(training), seed=1)
    assert (samples.mean(dim=0).argmax(1) == plain.predict_proba(inputs_of(training)).argmax(1)).float().mean() > 0.95
    features = [model.features(inputs_of(training, factor)).double() for factor in (1.0, 5.0)]
    spreads = [(some @ (weights - centre)[:, :, :-1].transpose(1, 2)).std(dim=0).mean() for some in features]
    assert spreads[1] > 2 * spreads[0]


def test_more_labels_make_laplace_surer() -> None:
    few, many = clusters(12), clusters(400)
    spreads = []
    for training in (few, many):
        model = made("logistic_regression", "laplace", samples=40)
        fit(model, training)
        spreads.append(float(model.sample_proba(inputs_of(many), seed=0).std(dim=0).mean()))
    assert spreads[1] < 0.5 * spreads[0]


def test_a_weak_penalty_and_few_labels_in_many_dimensions_leave_the_laplace_mean_as_right_as_the_model() -> None:
    problem = Problem(task=Task.MULTICLASS, classes=tuple(map(str, range(10))))
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(10, 200))

    def drawn(count: int) -> TrainingSet:
        targets = np.arange(count) % 10
        vectors = directions[targets] + rng.normal(0, 1.5, (count, 200))
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return TrainingSet(vectors=(vectors / lengths).astype(np.float32), targets=targets)

    training, unseen = drawn(50), drawn(300)
    right = {}
    for estimator in ("softmax", "laplace"):
        options = ModelOptions(uncertainty=UncertaintyOptions(estimator=estimator))
        model = make_classifier(options, problem)
        fit(model, training)
        found = model.predict_proba(inputs_of(unseen)).argmax(dim=1).numpy()
        right[estimator] = float((found == unseen.targets).mean())
    assert right["laplace"] >= right["softmax"] - 0.05 > 0.8


def test_a_class_without_a_label_stays_impossible_in_every_sample() -> None:
    training = clusters()
    problem = Problem(task=Task.MULTICLASS, classes=("none", "a", "b", "c", "no other"))
    moved = replace(training, targets=training.targets + 1)
    for estimator in ("mc_dropout", "ensemble", "laplace"):
        model = made("logistic_regression", estimator, problem=problem, temperature=True)
        held_out = clusters(40, seed=1)
        # Some have a class that training knows nothing of: no temperature helps these, so they do not sway it.
        targets = np.where(np.arange(40) % 10 == 0, 4, held_out.targets + 1)
        report = fit(model, moved, validation=replace(held_out, targets=targets))
        samples = model.sample_proba(inputs_of(training), seed=0)
        assert samples.isfinite().all(), estimator
        assert (samples[:, :, [0, 4]] == 0).all(), estimator
        assert report.temperature is not None
        assert 0.05 <= report.temperature < 3


@pytest.mark.parametrize("problem", [PROBLEM, LABELS], ids=["multiclass", "multilabel"])
@pytest.mark.parametrize("sharpness", [0.3, 4.0])
def test_the_temperature_is_the_one_that_made_the_model_wrong(problem: Problem, sharpness: float) -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, (4000, 3))

    class Oversure:
        """Knows the true logits, and says them `sharpness` times."""

        needs_text = False

        def fit(self, *_: object, **__: object) -> FitReport:
            return FitReport(iterations=1, loss=0.0)

        def predict_proba(self, inputs: Inputs) -> torch.Tensor:
            z = sharpness * inputs.vectors.double()
            return torch.sigmoid(z) if problem.multilabel else torch.softmax(z, dim=1)

    if problem.multilabel:
        targets = rng.random(true.shape) < 1 / (1 + np.exp(-true))
    else:
        p = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
        targets = (p.cumsum(axis=1) < rng.random((4000, 1))).sum(axis=1).clip(max=2)
    validation = TrainingSet(vectors=true.astype(np.float32), targets=targets)
    model = TemperatureScaled(Oversure(), problem)
    report = fit(model, validation, validation=validation)
    assert report.temperature == pytest.approx(sharpness, rel=0.1)
    assert report.error_after < 0.5 * report.error_before
    assert report.error_after < 0.03


def test_a_temperature_without_validation_items_names_what_to_change() -> None:
    for validation in (None, TrainingSet(vectors=np.empty((0, 4), np.float32), targets=np.empty(0, np.int64))):
        with pytest.raises(FailedPrecondition, match="validation_share"):
            fit(made("mlp", "softmax", temperature=True), clusters(), validation=validation)
