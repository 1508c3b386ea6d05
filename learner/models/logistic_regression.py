"""Logistic regression on vectors: binary, multi-class (softmax), multi-label (one against the rest)."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from learner.models.lbfgs import minimise
from learner.models.neural.dropout import draw_mask
from learner.options import ModelOptions
from learner.ports import Arrays, CancelCheck, FitReport, Inputs, Progress, TrainingSet
from learner.problem import Problem, Task, class_counts
from learner.weighting import check_classes, item_weights, no_samples

DEFAULT_L2_SHARE = 0.01
"""The default l2 as a share of the vectors' mean squared length, so that it means the same whatever their scale.

Measured against l2 = 1, scikit-learn's default: accuracy on CLINC150 (151 classes, unit vectors of MiniLM) .50 for .20
with 302 labels and .84 for .79 with 3,020; on digits (mean squared length 3,844), where either penalty is weak, .76
for .78 with 40 labels and .91 for .90 with 220."""
DEFAULT_MAX_ITERATIONS = 200
DEFAULT_INPUT_DROPOUT = 0.5
"""The rate of mc_dropout, where none is given: the model has no dropout of its own."""


class LogisticRegression:
    """Minimise Σ w_i·loss_i + ½·l2·‖W‖² over W (d, m) and b (m,), b not penalised, vectors taken as they are.

    Binary has one output (m = 1), multi-class one a class (softmax), multi-label one a class, each against the rest.
    The objective is scikit-learn's LogisticRegression at C = 1/l2; l2 is DEFAULT_L2_SHARE of the vectors' mean squared
    length where none is given. It is convex, so the seed changes nothing, and a warm start only the number of
    iterations; validation items are not looked at.

    A class that no label has gets probability 0 under softmax. A class that all labels have, or none (multi-label),
    gets the constant (positives + 1) / (n + 2). Class weights: learner.weighting.

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
        self._prior_precision: float | None = None

    @property
    def needs_text(self) -> bool:
        """Whether it reads texts."""
        return False

    @property
    def prior_precision(self) -> float | None:
        """The precision of the Gaussian prior on each row of `head` that the penalty of the last fit is; else None."""
        return self._prior_precision

    def fit(
        self,
        training: TrainingSet,
        *,
        validation: TrainingSet | None,  # noqa: ARG002 - the optimum is that of the training set
        warm: bool,
        seed: int,  # noqa: ARG002 - and it is unique
        device: torch.device,
        progress: Progress,
        cancelled: CancelCheck,
    ) -> FitReport:
        """Fit from zero, or if `warm` from the present weights; see learner.ports.Classifier."""
        columns = check_classes(self._problem, training.targets)
        l2 = self._l2 or DEFAULT_L2_SHARE * _mean_squared_length(training)
        losses = self._losses(training, columns, device)
        fit = minimise(
            torch.from_numpy(np.require(training.vectors, np.float32, "W")).to(device, torch.float64),
            losses,
            start=self._start(columns, losses.columns, training, device) if warm else None,
            l2=l2,
            max_iterations=self._max_iterations,
            progress=progress,
            cancelled=cancelled,
        )
        self._settle(fit.weights.float(), fit.bias.float(), columns, training)
        # The one output of a binary model is the difference of two rows, whose variances add up.
        self._prior_precision = l2 if losses.columns == len(columns) else 2 * l2
        return FitReport(iterations=fit.iterations, loss=fit.objective / len(training))

    def predict_proba(self, inputs: Inputs) -> torch.Tensor:
        """Return (n, c) probabilities; see learner.ports.Classifier."""
        return self._probabilities(inputs.vectors, self._weights)

    def sample_proba(self, inputs: Inputs, *, seed: int) -> torch.Tensor:
        """Raise FailedPrecondition: the probabilities alone give no samples."""
        del inputs, seed
        raise no_samples()

    def dropped_proba(self, inputs: Inputs, *, seed: int, samples: int, rate: float | None) -> Iterator[torch.Tensor]:
        """Yield (n, c) probabilities of each sample: one mask, rate 0.5 if None, on the dimensions of every vector."""
        rate = DEFAULT_INPUT_DROPOUT if rate is None else rate
        for sample in range(samples):
            mask = draw_mask(self._weights.shape[1], rate, seed=seed, sample=sample, place=0)
            yield self._probabilities(inputs.vectors, self._weights * mask.to(self._weights))

    def features(self, inputs: Inputs) -> torch.Tensor:
        """Return the vectors: the one layer sees these."""
        return inputs.vectors

    def head(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weights (c, d) and bias (c,)."""
        return self._weights, self._bias

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

    def _probabilities(self, vectors: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        z = functional.linear(vectors, weights.to(vectors.dtype), self._bias.to(vectors.dtype))
        return torch.sigmoid(z) if self._problem.multilabel else torch.softmax(z, dim=1)

    def _losses(self, training: TrainingSet, columns: NDArray[np.int64], device: torch.device) -> "_Softmax | _Sigmoid":
        """Return the losses of the outputs that are fitted: one a class of `columns`, or one for a binary problem."""
        weights = item_weights(self._problem, training, balanced=self._balanced)
        if self._problem.task is Task.MULTICLASS:
            relabel = np.zeros(len(self._problem.classes), np.int64)
            relabel[columns] = np.arange(len(columns))
            return _Softmax(relabel[training.targets], weights[:, 0], len(columns), device)
        if self._problem.multilabel:
            return _Sigmoid(training.targets[:, columns] != 0, weights[:, columns], device)
        return _Sigmoid((training.targets == columns[1])[:, None], weights, device)

    def _start(
        self, columns: NDArray[np.int64], outputs: int, training: TrainingSet, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return weights (d, m) and bias (m,) of the outputs to fit, as they are; None where there are none."""
        if self._weights.shape[1] != training.vectors.shape[1]:
            return None
        weights = self._weights[columns].to(device, torch.float64)
        bias = torch.nan_to_num(self._bias[columns].to(device, torch.float64), neginf=0.0)
        if outputs < len(columns):
            weights, bias = weights[1:] - weights[:1], bias[1:] - bias[:1]
        return weights.T.contiguous(), bias

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
