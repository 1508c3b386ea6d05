"""Fisher information of a model's last layer, item by item, in few dimensions."""

from dataclasses import dataclass

import numpy as np
import torch

from learner.ports import CandidateView

MOST_FEATURES = 128
MOST_CONTRASTS = 9
_MOST_DIMENSIONS = 576
_ROWS_FOR_AXES = 1 << 16
_CHUNK_ROWS = 1 << 13
_CHUNK_NUMBERS = 1 << 21
_SINGULAR = 1e-8


@dataclass(frozen=True, kw_only=True, slots=True)
class Projection:
    """What features and classes are projected to: `axes` (h, d) and `contrasts` (c, q), both of orthonormal columns.

    The Fisher information of an item is (diag(p) − p pᵀ) ⊗ h hᵀ. Its first factor has no extent along (1, …, 1), so q
    is c − 1 and nothing is lost, up to 9; of more classes, 9 directions drawn by the seed are kept. Features keep the
    128 principal axes (about 0) of the first 65,536 candidates, fewer where d·q would pass 576.
    """

    axes: torch.Tensor
    contrasts: torch.Tensor

    def features(self, features: torch.Tensor) -> torch.Tensor:
        """Return (r, d) float32 of features (r, h)."""
        return features.to(torch.float32) @ self.axes.to(torch.float32)

    def spreads(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return Qᵀ (diag(p) − p pᵀ) Q, (r, q, q) float32, of probabilities (r, c).

        As Σ_c p_c (Q_c − μ) (Q_c − μ)ᵀ, μ = Qᵀp: the difference would leave nothing but rounding of a p near 1.
        """
        contrasts = self.contrasts.to(torch.float32)
        found = []
        step = max(1, _CHUNK_NUMBERS // contrasts.numel())
        for start in range(0, max(1, len(probabilities)), step):
            p = probabilities[start : start + step].to(torch.float32)
            away = (contrasts - (p @ contrasts)[:, None]) * p.clamp_min(0).sqrt()[:, :, None]
            found.append(away.transpose(1, 2) @ away)
        return torch.cat(found)


def projection_of(view: CandidateView) -> Projection:
    """Return the projection for the candidates of a view, n ≥ 1."""
    moment, seen, classes = None, 0, len(view.problem.classes)
    for rows, context in view.blocks():
        some = context.features[: _ROWS_FOR_AXES - rows.start].to(torch.float64)
        moment = some.T @ some if moment is None else moment + some.T @ some
        seen += len(some)
        if seen >= _ROWS_FOR_AXES:
            break
    if moment is None:
        raise ValueError("a projection of no candidates")
    kept = min(MOST_CONTRASTS, classes - 1)
    axes = torch.linalg.eigh(moment.cpu()).eigenvectors.flip(1)[:, : min(MOST_FEATURES, _MOST_DIMENSIONS // kept)]
    drawn = np.random.default_rng(view.seed).standard_normal((classes, kept))
    contrasts = np.linalg.qr(np.concatenate([np.ones((classes, 1)), drawn], axis=1))[0][:, 1:]
    return Projection(axes=axes.to(view.device), contrasts=torch.from_numpy(contrasts).to(view.device))


def fisher_sum(features: torch.Tensor, spreads: torch.Tensor) -> torch.Tensor:
    """Return Σ_i A_i ⊗ h_i h_iᵀ, (q·d, q·d) float64, of features (r, d) and spreads A (r, q, q)."""
    count, kept = features.shape[1], spreads.shape[1]
    total = torch.zeros(kept, kept, count, count, dtype=torch.float64, device=features.device)
    for start in range(0, len(features), _CHUNK_ROWS):
        h, a = features[start : start + _CHUNK_ROWS], spreads[start : start + _CHUNK_ROWS]
        for first in range(kept):
            for second in range(first, kept):
                part = ((h * a[:, first, second, None]).T @ h).to(torch.float64)
                total[first, second] += part
                if first != second:
                    total[second, first] += part
    return total.permute(0, 2, 1, 3).reshape(kept * count, kept * count)


def roots(spreads: torch.Tensor) -> torch.Tensor:
    """Return lower triangular R (q, q, r) with R Rᵀ = A, of spreads A (r, q, q); 0 where A has no extent."""
    left = spreads.permute(1, 2, 0).clone()
    found = torch.zeros_like(left)
    least = _SINGULAR * spreads.diagonal(dim1=1, dim2=2).amax(dim=1)
    for k in range(len(left)):
        pivot = left[k, k]
        scale = torch.where(pivot > least, pivot.clamp_min(1e-30).rsqrt(), torch.zeros_like(pivot))
        found[k:, k] = left[k:, k] * scale
        left[k + 1 :, k + 1 :].addcmul_(found[k + 1 :, None, k], found[None, k + 1 :, k], value=-1)
    return found


def trace_of_solved(spreads: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return tr((1 + S)⁻¹ T), (r,), of symmetric S and T (q, q, r), 1 + S positive definite.

    Elimination without pivots for all items at once, from both sides: a fourth of the time of batched LAPACK at q = 9.
    """
    left, right = spreads.clone(), others.clone()
    left.diagonal().add_(1)
    total = torch.zeros_like(left[0, 0])
    for k in range(len(left)):
        share = left[k + 1 :, k] / left[k, k]
        total += right[k, k] / left[k, k]
        half = torch.addcmul(right[k + 1 :, k], share, right[k, k], value=-0.5)
        left[k + 1 :, k + 1 :].addcmul_(share[:, None], left[None, k, k + 1 :], value=-1)
        right[k + 1 :, k + 1 :].addcmul_(share[:, None], half[None], value=-1)
        right[k + 1 :, k + 1 :].addcmul_(half[:, None], share[None], value=-1)
    return total
