"""The curvature of a last layer's loss as eigenvalues and eigenvectors, and the prior that the evidence prefers."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from learner.ports import CancelCheck, Inputs, TrainingSet
from learner.problem import Problem
from learner.uncertainty.base import Linear
from learner.weighting import item_weights
from sealpool.errors import Cancelled

_EXACT_UP_TO = 1024
"""Weights c·(h + 1) up to which H is one matrix; as float32 it takes 4 MB of a checkpoint."""
_EXACT_NUMBERS = 1 << 20
"""The same for multi-label, whose H is one matrix a class: c·(h + 1)² numbers."""
_EIGEN_UP_TO = 1600
"""Side of a factor up to which its eigenvectors are taken, about a second's work; of a larger one the diagonal."""
_ROWS = 4096
_GRID = np.logspace(-4, 4, 81)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spectrum:
    """H = U·diag(values)·Uᵀ over weights (c, h + 1), U in one of three forms; an empty factor is the identity.

    Parameters
    ----------
    left
        (c·(h + 1), c·(h + 1)): U itself. (c, c): the left factor of a Kronecker product.
    right
        (h + 1, h + 1): the right factor of a Kronecker product. (c, h + 1, h + 1): one matrix a class.
    values
        (c, h + 1), not negative.
    """

    left: torch.Tensor
    right: torch.Tensor
    values: torch.Tensor

    def parts(self) -> dict[str, torch.Tensor]:
        """Return the tensors by name."""
        return {"left": self.left, "right": self.right, "values": self.values}

    def in_float32(self) -> Self:
        """Return it in float32."""
        return type(self)(left=self.left.float(), right=self.right.float(), values=self.values.float())

    def shifts(self, noise: torch.Tensor, precision: float) -> torch.Tensor:
        """Return (H + precision·I)^(−½) times each of `noise` (K, c, h + 1)."""
        scaled = noise / (self.values + precision).sqrt()
        if self.left.numel() == self.values.numel() ** 2:
            return (scaled.flatten(1) @ self.left.T).reshape(noise.shape)
        if self.right.ndim == 3:
            return torch.einsum("cij,kcj->kci", self.right, scaled)
        if self.right.numel():
            scaled = scaled @ self.right.T
        return self.left @ scaled if self.left.numel() else scaled


def spectrum_of(
    base: Linear,
    problem: Problem,
    training: TrainingSet,
    *,
    balanced: bool,
    device: torch.device,
    cancelled: CancelCheck,
) -> Spectrum:
    """Return the spectrum of Σ_i w_i·Λ_i ⊗ φ̃_i·φ̃_iᵀ at the fitted last layer, computed in float64."""
    with torch.no_grad():
        vectors = torch.from_numpy(np.require(training.vectors, np.float32, "W")).to(device)
        features = base.features(Inputs(vectors=vectors, texts=training.texts))
        weights = item_weights(problem, training, balanced=balanced)
        sums = _Sums(*base.head(), multilabel=problem.multilabel)
        for start in range(0, len(features), _ROWS):
            if cancelled():
                raise Cancelled("the caller left while the model was trained")
            sums.add(features[start : start + _ROWS], weights[start : start + _ROWS])
        return sums.spectrum(len(features)).in_float32()


class _Sums:
    """Sums over examples: of the whole of H where it is small enough, else of its two factors."""

    def __init__(self, weights: torch.Tensor, bias: torch.Tensor, *, multilabel: bool) -> None:
        self._layer = torch.cat([weights, bias[:, None]], dim=1).double()
        self._multilabel = multilabel
        classes, width = self._layer.shape
        self._exact = classes * width**2 <= _EXACT_NUMBERS if multilabel else classes * width <= _EXACT_UP_TO
        zeros = self._layer.new_zeros
        if self._exact:
            self._whole = zeros(classes, width, width) if multilabel else zeros(classes, width, classes, width)
        else:
            self._outer = zeros(width, width) if width <= _EIGEN_UP_TO else zeros(width)
            self._inner = zeros(classes) if multilabel or classes > _EIGEN_UP_TO else zeros(classes, classes)

    def add(self, features: torch.Tensor, weights: NDArray[np.float64]) -> None:
        """Add examples: features (r, h) and weights (r, 1) or (r, c)."""
        ones = torch.ones(len(features), 1, dtype=torch.float64, device=features.device)
        inputs = torch.cat([features.double(), ones], dim=1)
        counted = torch.from_numpy(np.ascontiguousarray(weights)).to(features.device)
        z = torch.nn.functional.linear(inputs[:, :-1], self._layer[:, :-1], self._layer[:, -1])
        p = torch.sigmoid(z) if self._multilabel else torch.softmax(z, dim=1)
        if self._exact:
            self._add_whole(inputs, p, counted)
        else:
            self._add_factors(inputs, p, counted)

    def spectrum(self, count: int) -> Spectrum:
        """Return the spectrum of the sums over `count` examples."""
        classes, width = self._layer.shape
        empty = self._layer.new_zeros(0)
        if self._exact and self._multilabel:
            values, vectors = torch.linalg.eigh(self._whole)
            return Spectrum(left=empty, right=vectors, values=values.clamp_min(0))
        if self._exact:
            values, vectors = torch.linalg.eigh(self._whole.reshape(classes * width, -1))
            return Spectrum(left=vectors, right=empty, values=values.clamp_min(0).reshape(classes, width))
        (inner, left), (outer, right) = (_eigen(factor) for factor in (self._inner, self._outer))
        return Spectrum(left=left, right=right, values=inner[:, None] * outer / count)

    def _add_whole(self, inputs: torch.Tensor, p: torch.Tensor, weights: torch.Tensor) -> None:
        classes = p.shape[1]
        for first in range(classes):
            if self._multilabel:
                share = p[:, first] * (1 - p[:, first]) * weights[:, first]
                self._whole[first] += inputs.T @ (inputs * share[:, None])
                continue
            for second in range(first, classes):
                share = p[:, first] * (float(first == second) - p[:, second]) * weights[:, 0]
                block = inputs.T @ (inputs * share[:, None])
                self._whole[first, :, second] += block
                if second > first:
                    self._whole[second, :, first] += block  # it is symmetric itself

    def _add_factors(self, inputs: torch.Tensor, p: torch.Tensor, weights: torch.Tensor) -> None:
        self._outer += inputs.T @ inputs if self._outer.ndim == 2 else inputs.square().sum(dim=0)
        if self._multilabel or self._inner.ndim == 1:
            self._inner += (p * (1 - p) * weights).sum(dim=0)
        else:
            counted = p * weights
            self._inner += torch.diag(counted.sum(dim=0)) - counted.T @ p


def _eigen(factor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return eigenvalues and eigenvectors of a factor (s, s), or of a diagonal (s,), which has none to keep."""
    if factor.ndim == 1:
        return factor, factor.new_zeros(0)
    values, vectors = torch.linalg.eigh(factor)
    return values.clamp_min(0), vectors


def evidence_precision(spectrum: Spectrum, weights: torch.Tensor) -> float:
    """Return the prior precision τ of the highest marginal likelihood of weights (c, h + 1) on a grid of 1e-4 to 1e4.

    log p(D|τ) = const + ½·(P·log τ − τ·‖W‖² − Σ log(λ_j + τ)), λ_j the eigenvalues of H. MacKay, Neural Computation 4
    (1992); as in Immer et al., ICML 2021.
    """
    squared_norm = float(weights[weights.isfinite()].square().sum())
    values = spectrum.values.double()

    def evidence(precision: float) -> float:
        return -float(torch.log1p(values / precision).sum()) - precision * squared_norm

    return float(max(_GRID, key=evidence))
