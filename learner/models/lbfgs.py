"""L-BFGS for linear models, in coordinates in which the problem is round.

A linear model z = X·W + b is fitted to Σ loss(z_i) + ½·l2·‖W‖². The Hessian of that is, up to how sure the model is of
each item, XᵀSX + l2·I. So the search runs over V in W = A·V with A·Aᵀ ≈ (XᵀSX + l2·I)⁻¹ and features centred (the bias,
which is not penalised, takes up the shift): the objective is the one stated, only its contours become round. As the
model grows sure, S changes, so the coordinates are taken anew every few iterations.

Measured: scikit-learn's 1,797 digits (pixels 0..16, l2 = 1) come within 1e-5 of the least loss in about 90 iterations
so, in 270 where the first coordinates are kept, and scikit-learn's lbfgs stops 5 % above it after 170. On unit vectors
(2,000 × 256, 10 classes) it takes 7 iterations against 25.

L-BFGS: Nocedal, Updating quasi-Newton matrices with limited storage, Math. Comp. 35 (1980).
"""

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional

from learner.ports import CancelCheck, Progress
from sealpool.errors import Cancelled, FailedPrecondition

_MEMORY = 10
_ITERATIONS_A_FRAME = 20
_TOLERANCE = 1e-8
"""Stop when an iteration lowers the objective by less than this share of it. Probabilities are then good to 1e-4: their
error goes with the root of the objective's, which is why all is computed in float64."""
_SHORTEST_STEP = 1e-6
_DENSE_UP_TO = 2048
"""Dimension up to which A is a full matrix, at d³ operations; beyond it only the axes are scaled."""
_RIDGE_FOR_FLOAT32 = 1e-5
"""Share of the trace of XᵀSX from which a ridge hides what float32 rounds off: XᵀSX is then taken in float32, in half
the time. It decides the coordinates alone, so the optimum stays where it is."""


class Losses(Protocol):
    """The losses of n items as a function of their outputs z (n, m)."""

    columns: int

    def value_and_gradient(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sum of losses, a scalar, and its gradient (n, m)."""

    def curvature(self, z: torch.Tensor) -> torch.Tensor:
        """Return (n,) the second derivative of each item's loss, as a mean over outputs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearFit:
    """weights (d, m) and bias (m,) float64; objective is the sum of losses and the penalty."""

    weights: torch.Tensor
    bias: torch.Tensor
    iterations: int
    objective: float


class _Frame:
    """Coordinates V (d + 1, m) of the parameters, the bias in the last row, round at the outputs `z` of now."""

    def __init__(self, features: torch.Tensor, losses: Losses, z: torch.Tensor, l2: float) -> None:
        self._losses = losses
        curvature = losses.curvature(z)
        curvature = curvature.clamp_min(1e-6 * float(curvature.max()) + 1e-30)
        total = curvature.sum()
        self._mean = (curvature / total) @ features
        self._root, self._inverse = _roots(features, self._mean, curvature, l2)
        self._bias_scale = 1 / float(total.sqrt())
        self._features = features
        square = self._root.T @ self._root if self._root.ndim == 2 else self._root.square()
        self._penalty = l2 * square

    def enter(self, weights: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Return the coordinates of weights and bias (float64)."""
        inner = _apply(self._inverse, weights)
        shift = ((bias + self._mean @ weights) / self._bias_scale)[None]
        return torch.cat([inner, shift])

    def leave(self, point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weights and bias (float64) at coordinates `point`."""
        weights = _apply(self._root, point[:-1])
        return weights, point[-1] * self._bias_scale - self._mean @ weights

    def value_and_gradient(self, point: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Return the objective and its gradient in these coordinates."""
        weights, bias = self.leave(point)
        # The products of the features are written as MKL does them fastest, which is 4 times as fast for the second.
        value, slope = self._losses.value_and_gradient(functional.linear(self._features, weights.T.contiguous(), bias))
        total = slope.sum(dim=0)
        inner = (slope.T @ self._features).T - torch.outer(self._mean, total)
        pull = _apply(self._penalty, point[:-1])
        gradient = torch.cat(
            [
                _apply(self._root.mT if self._root.ndim == 2 else self._root, inner) + pull,
                self._bias_scale * total[None],
            ]
        )
        return float(value + 0.5 * (pull * point[:-1]).sum()), gradient


def _roots(
    features: torch.Tensor, mean: torch.Tensor, curvature: torch.Tensor, l2: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A and A⁻¹, (d, d) or, past _DENSE_UP_TO, (d,) float64 each, with A·Aᵀ = (XᵀSX + l2·I)⁻¹."""
    scaled = (features - mean) * curvature.sqrt()[:, None]
    dimension = features.shape[1]
    diagonal = scaled.square().sum(dim=0)
    ridge = max(l2, 1e-6 * float(diagonal.mean()), 1e-30)
    if dimension > _DENSE_UP_TO:
        inverse = (diagonal + ridge).sqrt()
        return 1 / inverse, inverse
    if ridge > _RIDGE_FOR_FLOAT32 * float(diagonal.sum()):
        scaled = scaled.float()
    hessian = (scaled.T @ scaled).double()
    hessian.diagonal().add_(ridge)
    upper = torch.linalg.cholesky(hessian).T
    identity = torch.eye(dimension, dtype=torch.float64, device=features.device)
    return torch.linalg.solve_triangular(upper, identity, upper=True), upper


def _apply(matrix: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    return matrix @ columns if matrix.ndim == 2 else matrix[:, None] * columns


class _Memory:
    """The last steps and changes of gradient, and the direction that they give."""

    def __init__(self) -> None:
        self._pairs: deque[tuple[torch.Tensor, torch.Tensor, float]] = deque(maxlen=_MEMORY)

    def add(self, step: torch.Tensor, change: torch.Tensor) -> None:
        product = float((step * change).sum())
        if product > 1e-14:
            self._pairs.append((step, change, 1 / product))

    def direction(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return an estimate of H⁻¹·gradient by the two-loop recursion."""
        result = gradient.clone()
        shares = []
        for step, change, inverse in reversed(self._pairs):
            share = inverse * float((step * result).sum())
            shares.append(share)
            result.add_(change, alpha=-share)
        if self._pairs:
            _, change, inverse = self._pairs[-1]
            result /= inverse * float(change.square().sum())
        for (step, change, inverse), share in zip(self._pairs, reversed(shares), strict=True):
            result.add_(step, alpha=share - inverse * float((change * result).sum()))
        return result


def minimise(
    features: torch.Tensor,
    losses: Losses,
    *,
    start: tuple[torch.Tensor, torch.Tensor] | None = None,
    l2: float,
    max_iterations: int,
    progress: Progress,
    cancelled: CancelCheck,
) -> LinearFit:
    """Fit a linear model to `features` (n, d) float64 from `start`, weights (d, m) and bias (m,), or from zero.

    Deterministic on one kind of device.
    `progress` is told the objective divided by n.

    Raises
    ------
    FailedPrecondition
        The numbers overflow.
    Cancelled
        `cancelled` said so.
    """
    count, dimension = features.shape
    if start is None:
        weights = torch.zeros(dimension, losses.columns, dtype=torch.float64, device=features.device)
        bias = torch.zeros(losses.columns, dtype=torch.float64, device=features.device)
    else:
        weights, bias = start
    iteration, done, value = 0, False, float("inf")
    while not done and iteration < max_iterations:
        frame = _Frame(features, losses, features @ weights + bias, l2)
        point = frame.enter(weights, bias)
        value, gradient = frame.value_and_gradient(point)
        memory = _Memory()
        for _ in range(min(_ITERATIONS_A_FRAME, max_iterations - iteration)):
            if cancelled():
                raise Cancelled("the caller left while the model was trained")
            iteration += 1
            step, new_value, new_gradient = _search(frame, point, value, gradient, memory.direction(gradient))
            progress(iteration, new_value / count)
            done = value - new_value <= _TOLERANCE * abs(value)
            memory.add(step, new_gradient - gradient)
            point, value, gradient = point + step, new_value, new_gradient
            if done:
                break
        weights, bias = frame.leave(point)
    if not bool(weights.isfinite().all() and bias.isfinite().all()):
        raise FailedPrecondition("training overflows on these vectors: scale them to lengths near 1")
    return LinearFit(weights=weights, bias=bias, iterations=iteration, objective=value)


def _search(
    frame: _Frame, point: torch.Tensor, value: float, gradient: torch.Tensor, direction: torch.Tensor
) -> tuple[torch.Tensor, float, torch.Tensor]:
    """Halve the step until the objective falls enough (Armijo); a step of 0 where rounding leaves nothing to gain."""
    slope = float((direction * gradient).sum())
    length = 1.0
    while length >= _SHORTEST_STEP:
        step = direction * -length
        new_value, new_gradient = frame.value_and_gradient(point + step)
        if new_value <= value - 1e-4 * length * slope:
            return step, new_value, new_gradient
        length /= 2
    return torch.zeros_like(point), value, gradient
