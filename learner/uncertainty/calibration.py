"""How far probabilities are from shares."""

import numpy as np
from numpy.typing import NDArray

from learner.problem import Problem, Targets

BINS = 15


def expected_calibration_error(problem: Problem, probabilities: NDArray[np.floating], targets: Targets) -> float:
    """Return Σ_b (n_b / n)·|share right in b − mean confidence in b| over 15 bins of equal width, NaN for no items.

    An item's confidence is its largest probability, and it is right where that is its class; of equals the first
    counts. For multi-label, each item and class is a prediction of its own: its confidence is the probability, and it
    is right where the item has the class. Bin b holds confidences above b/15 and up to (b + 1)/15.

    Naeini, Cooper and Hauskrecht, AAAI 2015; Guo et al., ICML 2017.

    Parameters
    ----------
    probabilities
        (n, c).
    targets
        (n,) int64, or (n, c) bool for multi-label.
    """
    if not probabilities.size:
        return float("nan")
    right: NDArray[np.bool_]
    if problem.multilabel:
        confidences, right = probabilities.ravel(), targets.ravel().astype(np.bool_)
    else:
        confidences, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    bins = np.clip(np.ceil(confidences.astype(np.float64) * BINS).astype(np.int64) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=right.astype(np.float64) - confidences, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidences))
