"""A Laplace approximation on the last layer: a Gaussian around its weights, as wide as the loss is flat."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learner.ports import Arrays, CancelCheck, FitReport, Inputs, Progress, TrainingSet
from learner.problem import Problem
from learner.uncertainty.base import Around, Linear
from learner.uncertainty.curvature import Spectrum, evidence_precision, spectrum_of

_LAPLACE = "laplace."
_FIRST = 512
"""Examples that the mean length of features is told from."""


@dataclass(frozen=True, slots=True)
class _Posterior:
    spectrum: Spectrum
    precision: float


class Laplace(Around):
    """Samples of the last layer's weights W̃ (c, h + 1), bias last, from N(W̃*, (H + τ·I)⁻¹).

    H = Σ_i w_i·Λ_i ⊗ φ̃_i·φ̃_iᵀ, Λ_i = diag(p_i) − p_i·p_iᵀ (multi-label: the diagonal matrix of p·(1 − p)), is the
    generalised Gauss-Newton matrix of the loss at the fitted W̃*, over features φ̃ = (φ, 1). It is exact while
    c·(h + 1) ≤ 1,024, else its Kronecker approximation (1/n)·(Σ w_i·Λ_i) ⊗ (Σ φ̃_i·φ̃_iᵀ). τ is the precision of the
    prior that the penalty of the fit is (logistic_regression's l2), and where there is none, that of the highest
    marginal likelihood; the bias has it too. But τ is at least the mean of ‖φ̃‖², so that the prior alone moves a logit
    by a standard deviation of 1 at most: with few labels a class a penalty as weak as the default drowns the model in
    noise (CLINC150, 10 classes, 50 labels: accuracy .58, the model's own .98; with this bound .98). p(y|x) is the mean
    over K samples of the fit's seed; `sample_proba` draws with its own.

    MacKay, Neural Computation 4 (1992); Ritter, Botev and Barber, ICLR 2018; Daxberger et al., Laplace redux, NeurIPS
    2021. Cost: one pass over the training set, O((c·h)³) or O(h³ + c³), and K matrix products a prediction.
    """

    def __init__(self, base: Linear, problem: Problem, *, samples: int, balanced: bool) -> None:
        super().__init__(base)
        self._balanced = balanced
        self._problem = problem
        self._samples = samples
        self._posterior: _Posterior | None = None
        self._drawn: tuple[int, torch.Tensor] | None = None

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
        """Fit the model inside, and then the Gaussian; see learner.ports.Classifier."""
        report = super().fit(
            training,
            validation=validation,
            warm=warm,
            seed=seed,
            device=device,
            progress=progress,
            cancelled=cancelled,
        )
        spectrum = spectrum_of(
            self._base, self._problem, training, balanced=self._balanced, device=device, cancelled=cancelled
        )
        precision = self._base.prior_precision or evidence_precision(spectrum, self._weights())
        self._posterior = _Posterior(spectrum, max(precision, self._least_precision(training, device)))
        self._drawn = None
        return report

    @torch.no_grad()
    def predict_proba(self, inputs: Inputs) -> torch.Tensor:
        """Return the mean (n, c) over the samples of the fit's seed."""
        features, weights = self._base.features(inputs), self._draw(self._seed)
        total = self._probabilities(features, weights[0])
        for sample in weights[1:]:
            total += self._probabilities(features, sample)
        return total.div_(len(weights))

    @torch.no_grad()
    def sample_proba(self, inputs: Inputs, *, seed: int) -> torch.Tensor:
        """Return (K, n, c)."""
        features, weights = self._base.features(inputs), self._draw(seed)
        return torch.stack([self._probabilities(features, sample) for sample in weights])

    def save(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays of the model inside, and those of the Gaussian."""
        posterior = self._fitted()
        arrays = super().save()
        for name, tensor in posterior.spectrum.parts().items():
            arrays[_LAPLACE + name] = tensor.float().cpu().numpy()
        arrays[_LAPLACE + "precision"] = np.array([posterior.precision])
        return arrays

    def load(self, arrays: Arrays, *, device: torch.device) -> None:
        """Become the model that was saved."""
        super().load(arrays, device=device)
        left, right, values = (
            torch.tensor(arrays[_LAPLACE + name], dtype=torch.float32, device=device)
            for name in ("left", "right", "values")
        )
        spectrum = Spectrum(left=left, right=right, values=values)
        self._posterior = _Posterior(spectrum, float(arrays[_LAPLACE + "precision"].astype(np.float64)[0]))
        self._drawn = None

    @torch.no_grad()
    def _least_precision(self, training: TrainingSet, device: torch.device) -> float:
        """Return the mean squared length of φ̃ over the first examples."""
        vectors = torch.from_numpy(np.require(training.vectors[:_FIRST], np.float32, "W")).to(device)
        texts = None if training.texts is None else training.texts[:_FIRST]
        features = self._base.features(Inputs(vectors=vectors, texts=texts))
        return 1 + float(features.double().square().sum(dim=1).mean())

    def _weights(self) -> torch.Tensor:
        """Return the last layer (c, h + 1) float32, bias last."""
        weights, bias = self._base.head()
        return torch.cat([weights, bias[:, None]], dim=1).float()

    def _draw(self, seed: int) -> torch.Tensor:
        """Return the weights (K, c, h + 1) float32 of K samples; those of the seed asked for last are kept."""
        drawn = self._drawn
        if drawn is not None and drawn[0] == seed:
            return drawn[1]
        posterior, centre = self._fitted(), self._weights()
        # Drawn by NumPy on the host, so that samples are the same on every device.
        noise = np.random.default_rng([seed % 2**64, 2]).standard_normal((self._samples, *centre.shape), np.float32)
        shift = posterior.spectrum.shifts(torch.from_numpy(noise).to(centre.device), posterior.precision)
        samples = centre + shift
        self._drawn = (seed, samples)
        return samples

    def _probabilities(self, features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        weights = weights.to(features.dtype)
        z = torch.nn.functional.linear(features, weights[:, :-1], weights[:, -1])
        return torch.sigmoid(z) if self._problem.multilabel else torch.softmax(z, dim=1)

    def _fitted(self) -> _Posterior:
        if self._posterior is None:
            raise ValueError("the model was neither fitted nor loaded")
        return self._posterior
