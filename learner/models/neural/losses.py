"""The loss of logits against targets, item by item, each as much as its weight says."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from learner.problem import Problem, Targets


def weighted_losses(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, *, multilabel: bool, smoothing: float = 0.0
) -> torch.Tensor:
    """Return (b,) losses: cross-entropy, or for multi-label the mean of the classes' binary cross-entropies.

    Parameters
    ----------
    logits
        (b, c) float32.
    targets
        (b,) int64, or for multi-label (b, c) float32 of 0 and 1.
    weights
        (b,) or for multi-label also (b, c).
    smoothing
        Label smoothing ε: the target is (1 − ε)·target + ε/c (multi-label: + ε/2). Szegedy et al., CVPR 2016.
    """
    if multilabel:
        smooth = targets * (1 - smoothing) + smoothing / 2
        losses = functional.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
        return (losses * (weights if weights.ndim == 2 else weights[:, None])).mean(dim=1)
    return functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing) * weights


def targets_tensor(problem: Problem, targets: Targets, device: torch.device) -> torch.Tensor:
    """Return targets as `weighted_losses` takes them."""
    dtype = np.float32 if problem.multilabel else np.int64
    return torch.from_numpy(np.ascontiguousarray(targets, dtype)).to(device)


def mean_weight(weights: NDArray[np.float32]) -> float:
    """Return the mean of the weights, never 0, so that it can be divided by."""
    return max(float(weights.mean(dtype=np.float64)), 1e-12)
