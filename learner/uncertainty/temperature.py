"""Temperature scaling: one number that makes a model as sure as it is right."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from learner.ports import Arrays, CancelCheck, Classifier, FitReport, Inputs, Progress, TrainingSet
from learner.problem import Problem
from learner.uncertainty.base import prefixed, under
from learner.uncertainty.calibration import expected_calibration_error
from sealpool.errors import FailedPrecondition

LOWEST, HIGHEST = 0.05, 20.0
"""Between which the temperature lies: a model that is right about all items would be made sure without end."""

_MODEL = "model."
_TEMPERATURE = "temperature"
_LEAST = 1e-37
"""Taken in place of a probability of 0, so that its logarithm is a number; float32 has it."""
_MOST = 1 - 2**-24


class TemperatureScaled:
    """Probabilities softmax(log p / T), or for multi-label sigmoid(logit(p) / T), T fitted on the validation items.

    T > 0 minimises their negative log-likelihood, which is convex in 1/T, so it never raises that, and never changes
    which class is the likeliest, or on which side of 0.5 a label lies. Every posterior sample is scaled alike.
    Guo, Pleiss, Sun and Weinberger, ICML 2017.
    """

    def __init__(self, base: Classifier, problem: Problem) -> None:
        self._base = base
        self._problem = problem
        self._temperature = 1.0

    @property
    def needs_text(self) -> bool:
        """Whether the model inside reads texts."""
        return self._base.needs_text

    def fit(
        self,
        training: TrainingSet,
        *,
        validation: TrainingSet | None,
        warm: bool,
        seed: int,
        device: torch.device,
        progress: Progress,
        cancelled: CancelCheck,
    ) -> FitReport:
        """Fit the model inside, and then T; see learner.ports.Classifier.

        Raises
        ------
        FailedPrecondition
            Also where there are no validation items.
        """
        if validation is None or not len(validation):
            raise FailedPrecondition(
                "a temperature is fitted on validation items, and there are none: raise validation_share or label more",
                field="header.model.validation_share",
            )
        report = self._base.fit(
            training,
            validation=validation,
            warm=warm,
            seed=seed,
            device=device,
            progress=progress,
            cancelled=cancelled,
        )
        return self._calibrate(report, validation, device)

    def predict_proba(self, inputs: Inputs) -> torch.Tensor:
        """Return (n, c) scaled probabilities."""
        return self._scaled(self._base.predict_proba(inputs))

    def sample_proba(self, inputs: Inputs, *, seed: int) -> torch.Tensor:
        """Return (K, n, c) scaled samples of the estimator inside."""
        return self._scaled(self._base.sample_proba(inputs, seed=seed))

    def features(self, inputs: Inputs) -> torch.Tensor:
        """Return (n, h) of the model inside."""
        return self._base.features(inputs)

    def save(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays of the model inside, and T."""
        arrays = prefixed(_MODEL, self._base.save())
        arrays[_TEMPERATURE] = np.array([self._temperature])
        return arrays

    def load(self, arrays: Arrays, *, device: torch.device) -> None:
        """Become the model that was saved."""
        self._base.load(under(_MODEL, arrays), device=device)
        self._temperature = float(arrays[_TEMPERATURE].astype(np.float64)[0])

    @torch.no_grad()
    def _calibrate(self, report: FitReport, validation: TrainingSet, device: torch.device) -> FitReport:
        vectors = torch.from_numpy(np.require(validation.vectors, np.float32, "W")).to(device)
        before = self._base.predict_proba(Inputs(vectors=vectors, texts=validation.texts))
        logits = _logits(before.double(), self._problem).cpu().numpy()
        self._temperature = _best_temperature(self._problem, logits, before.cpu().numpy(), validation)
        after = self._scaled(before)
        return replace(
            report,
            temperature=self._temperature,
            error_before=expected_calibration_error(self._problem, before.cpu().numpy(), validation.targets),
            error_after=expected_calibration_error(self._problem, after.cpu().numpy(), validation.targets),
        )

    def _scaled(self, probabilities: torch.Tensor) -> torch.Tensor:
        if self._temperature == 1:
            return probabilities
        logits = _logits(probabilities, self._problem) / self._temperature
        if self._problem.multilabel:
            return torch.sigmoid(logits)
        # A class that cannot be stays impossible.
        return torch.softmax(logits.masked_fill(probabilities == 0, -torch.inf), dim=-1)


def _logits(probabilities: torch.Tensor, problem: Problem) -> torch.Tensor:
    if problem.multilabel:
        return torch.logit(probabilities.clamp(_LEAST, _MOST))
    return probabilities.clamp_min(_LEAST).log()


def _best_temperature(
    problem: Problem, logits: NDArray[np.float64], probabilities: NDArray[np.floating], validation: TrainingSet
) -> float:
    """Return the T at which the slope of the likelihood over 1/T, which only falls, is 0, by bisection."""
    targets = validation.targets.astype(np.int64)
    if not problem.multilabel:
        # An item of a class that training saw no label of has probability 0 at any temperature: it says nothing of T.
        possible = probabilities.max(axis=0)[targets] > 0
        logits, targets = logits[possible], targets[possible]
    if not len(logits):
        return 1.0
    low, high = 1 / HIGHEST, 1 / LOWEST
    for _ in range(60):
        middle = (low * high) ** 0.5
        if _slope(problem, logits, targets, middle) > 0:
            low = middle
        else:
            high = middle
    return float(1 / (low * high) ** 0.5)


def _slope(problem: Problem, logits: NDArray[np.float64], targets: NDArray[np.int64], sharpness: float) -> float:
    """Return the derivative of the log-likelihood by the sharpness 1/T."""
    if problem.multilabel:
        expected = logits * (1 + np.tanh(sharpness * logits / 2)) / 2
        return float((logits * targets - expected).sum())
    scaled = sharpness * (logits - logits.max(axis=1, keepdims=True))
    weights = np.exp(scaled)
    expected = (weights * logits).sum(axis=1) / weights.sum(axis=1)
    return float((np.take_along_axis(logits, targets[:, None], axis=1)[:, 0] - expected).sum())
