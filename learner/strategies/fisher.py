"""Fisher information of a model's last layer, item by item, in few dimensions."""

from dataclasses import dataclass

import numpy as np
import torch

from learner.ports import CandidateView

MOST_FEATURES = 128
MOST_CONTRASTS = 9
_MOST_DIMENSIONS = 1152
_ROWS_FOR_AXES = 1 << 16
_CHUNK_ROWS = 1 << 13


@dataclass(frozen=True, kw_only=True, slots=True)
class Projection:
    """What features and classes are projected to: `axes` (h, d) and `contrasts` (c, q), both of orthonormal columns.

    The Fisher information of an item is (diag(p) − p pᵀ) ⊗ h hᵀ. Its first factor has no extent along (1, …, 1), so q
    is c − 1 and nothing is lost, up to 9; of more classes, 9 directions drawn by the seed are kept. Features keep the
    128 principal axes (about 0) of the first 65,536 candidates, fewer where d·q would pass 1,152.
    """

    axes: torch.Tensor
    contrasts: torch.Tensor

    def features(self, features: torch.Tensor) -> torch.Tensor:
        """Return (r, d) float32 of features (r, h)."""
        return features.to(torch.float32) @ self.axes.to(torch.float32)

    def spreads(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return Qᵀ (diag(p) − p pᵀ) Q, (r, q, q) float32, of probabilities (r, c)."""
        contrasts = self.contrasts.to(torch.float32)
        p = probabilities.to(torch.float32)
        means = p @ contrasts
        squares = torch.einsum("ca,cb->cab", contrasts, contrasts).reshape(len(contrasts), -1)
        return (p @ squares).view(len(p), *means.shape[1:], -1) - means[:, :, None] * means[:, None, :]


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
