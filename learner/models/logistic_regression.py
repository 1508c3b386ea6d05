"""Logistic regression on vectors: binary, multi-class (softmax), multi-label (one against the rest)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from learner.models.lbfgs import minimise
from learner.ports import Arrays, CancelCheck, FitReport, ModelOptions, Progress, TrainingSet
from learner.problem import Problem, Targets, Task, class_counts
from sealpool.errors import FailedPrecondition

DEFAULT_L2_SHARE = 0.01
"""The default l2 as a share of the vectors' mean squared length, so that it means the same whatever their scale.

Measured against l2 = 1, scikit-learn's default: accuracy on CLINC150 (151 classes, unit vectors of MiniLM) .50 for .20
with 302 labels and .84 for .79 with 3,020; on digits (mean squared length 3,844), where either penalty is weak, .76
for .78 with 40 labels and .91 for .90 with 220."""
DEFAULT_MAX_ITERATIONS = 200


class LogisticRegression:
    """Minimise Σ w_i·loss_i + ½·l2·‖W‖² over W (d, m) and b (m,), b not penalised, vectors taken as they are.

    Binary has one output (m = 1), multi-class one a class (softmax), multi-label one a class, each against the rest.
    The objective is scikit-learn's LogisticRegression at C = 1/l2; l2 is DEFAULT_L2_SHARE of the vectors' mean squared
    length where none is given. It is convex and the search starts at zero, so the
    seed changes nothing.

    A class that no label has gets probability 0 under softmax. A class that all labels have, or none (multi-label),
    gets the constant (positives + 1) / (n + 2). With `balanced`, an item of class c counts n / (classes with a label ·
    n_c); multi-label, a positive of class c counts n / (2·n_c) and a negative n / (2·(n − n_c)).

    Cost: O(n·d·m) an iteration and O(n·d² + d³) for every twentieth.
    """

    def __init__(self, options: ModelOptions, problem: Problem) -> None:
        self._l2 = options.l2
        self._max_iterations = options.max_iterations or DEFAULT_MAX_ITERATIONS
        self._balanced = options.balanced
        self._problem = problem
        # (c, d) and (c,), c rows also for binary and for classes without a label, whose bias is -inf. One row a class,
        # because MKL multiplies many vectors by few such rows in half the time that it takes with columns.
        self._weights = torch.empty(len(problem.classes), 0)
        self._bias = torch.empty(len(problem.classes))

    def fit(
        self,
        training: TrainingSet,
        *,
        seed: int,  # noqa: ARG002 - the optimum is unique
        device: torch.device,
        progress: Progress,
        cancelled: CancelCheck,
    ) -> FitReport:
        """Fit from scratch; see learner.ports.Classifier."""
        columns = self._columns_to_fit(training.targets)
        weights = _item_weights(self._problem, training, balanced=self._balanced)
        losses: _Softmax | _Sigmoid
        if self._problem.task is Task.MULTICLASS:
            relabel = np.zeros(len(self._problem.classes), np.int64)
            relabel[columns] = np.arange(len(columns))
            losses = _Softmax(relabel[training.targets], weights[:, 0], len(columns), device)
        elif self._problem.multilabel:
            losses = _Sigmoid(training.targets[:, columns] != 0, weights[:, columns], device)
        else:
            losses = _Sigmoid((training.targets == columns[1])[:, None], weights, device)
        fit = minimise(
            torch.from_numpy(training.vectors).to(device, torch.float64),
            losses,
            l2=self._l2 or DEFAULT_L2_SHARE * _mean_squared_length(training),
            max_iterations=self._max_iterations,
            progress=progress,
            cancelled=cancelled,
        )
        self._settle(fit.weights.float(), fit.bias.float(), columns, training)
        return FitReport(iterations=fit.iterations, loss=fit.objective / len(training))

    def predict_proba(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return (n, c) probabilities; see learner.ports.Classifier."""
        z = functional.linear(vectors, self._weights.to(vectors.dtype), self._bias.to(vectors.dtype))
        return torch.sigmoid(z) if self._problem.multilabel else torch.softmax(z, dim=1)

    def save(self) -> dict[str, NDArray[np.generic]]:
        """Return weights (d, c) and bias (c,)."""
        return {"weights": self._weights.T.cpu().numpy(), "bias": self._bias.cpu().numpy()}

    def load(self, arrays: Arrays, *, device: torch.device) -> None:
        """Become the model that was saved."""
        weights, bias = arrays["weights"], arrays["bias"]
        count = len(self._problem.classes)
        if weights.ndim != 2 or weights.shape[1] != count or bias.shape != (count,):
            raise ValueError(f"weights {weights.shape} and bias {bias.shape} are not those of {count} classes")
        self._weights = torch.tensor(weights.T, dtype=torch.float32, device=device).contiguous()
        self._bias = torch.tensor(bias, dtype=torch.float32, device=device)

    def _columns_to_fit(self, targets: Targets) -> NDArray[np.int64]:
        """Return the classes that there is something to learn about."""
        counts = class_counts(self._problem, targets)
        if self._problem.multilabel:
            columns = np.flatnonzero((counts > 0) & (counts < len(targets)))
            if not len(columns):
                raise FailedPrecondition("no class has both a positive and a negative example", field="examples.labels")
            return columns
        columns = np.flatnonzero(counts)
        if len(columns) < 2:
            raise FailedPrecondition(
                f"the examples have {len(columns)} of the classes; training needs two", field="examples.labels"
            )
        return columns

    def _settle(
        self, weights: torch.Tensor, bias: torch.Tensor, columns: NDArray[np.int64], training: TrainingSet
    ) -> None:
        """Keep the fitted outputs as one row a class."""
        count = len(self._problem.classes)
        self._weights = torch.zeros(count, weights.shape[0], device=weights.device)
        if self._problem.multilabel:
            share = (class_counts(self._problem, training.targets) + 1) / (len(training) + 2)
            self._bias = torch.from_numpy(np.log(share / (1 - share)).astype(np.float32)).to(weights.device)
        else:
            self._bias = torch.full((count,), -torch.inf, device=weights.device)
        if weights.shape[1] == len(columns):
            self._weights[columns], self._bias[columns] = weights.T, bias
        else:  # binary has one output: the sigmoid of z is the softmax of (−z/2, z/2)
            signs = torch.tensor([-1.0, 1.0], device=weights.device)
            self._weights[columns] = signs[:, None] * weights.T / 2
            self._bias[columns] = signs * bias / 2


class _Softmax:
    """Cross-entropy of (n,) class indices, item i counting weights[i]."""

    def __init__(
        self, targets: NDArray[np.int64], weights: NDArray[np.float64], columns: int, device: torch.device
    ) -> None:
        self.columns = columns
        self._targets = torch.from_numpy(targets).to(device)[:, None]
        self._weights = torch.from_numpy(weights).to(device)[:, None]

    def value_and_gradient(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        log_total = torch.logsumexp(z, dim=1, keepdim=True)
        value = ((log_total - z.gather(1, self._targets)) * self._weights).sum()
        slope = torch.exp(z - log_total) * self._weights
        return value, slope.scatter_add_(1, self._targets, -self._weights)

    def curvature(self, z: torch.Tensor) -> torch.Tensor:
        p = torch.softmax(z, dim=1)
        return (p * (1 - p)).sum(dim=1) * self._weights[:, 0] / (self.columns - 1)


class _Sigmoid:
    """Binary cross-entropy of (n, m) targets, each entry counting as `weights` (n, m) says."""

    def __init__(self, targets: NDArray[np.bool_], weights: NDArray[np.float64], device: torch.device) -> None:
        self.columns = targets.shape[1]
        self._targets = torch.from_numpy(targets.astype(np.float64)).to(device)
        self._weights = torch.from_numpy(np.ascontiguousarray(weights)).to(device)

    def value_and_gradient(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value = (functional.softplus(z) - self._targets * z).mul_(self._weights).sum()
        return value, torch.sigmoid(z).sub_(self._targets).mul_(self._weights)

    def curvature(self, z: torch.Tensor) -> torch.Tensor:
        p = torch.sigmoid(z)
        return (p * (1 - p) * self._weights).mean(dim=1)


def _mean_squared_length(training: TrainingSet) -> float:
    squared_lengths = np.einsum("ij,ij->i", training.vectors, training.vectors, dtype=np.float64)
    return float(np.average(squared_lengths, weights=training.weights))


def _item_weights(problem: Problem, training: TrainingSet, *, balanced: bool) -> NDArray[np.float64]:
    """Return (n, 1), or for multi-label (n, c): how much each item counts, class weights included."""
    count = len(training)
    given = np.ones(count) if training.weights is None else training.weights.astype(np.float64)
    columns = len(problem.classes) if problem.multilabel else 1
    if not balanced:
        return np.repeat(given[:, None], columns, axis=1)
    counts = class_counts(problem, training.targets)
    if problem.multilabel:
        positive, negative = (count / (2 * np.maximum(number, 1)) for number in (counts, count - counts))
        return np.where(training.targets, positive, negative) * given[:, None]
    weights = count / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return (weights[training.targets] * given)[:, None]
