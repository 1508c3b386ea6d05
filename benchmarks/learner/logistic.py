"""Logistic regression beside scikit-learn's lbfgs, stopped at the same loss."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import gaussian_mixture
from benchmarks.learner.beside import PeerMissingError, peer_module
from benchmarks.learner.workbench import CLASSES, Workbench, fitted, targets_of
from benchmarks.report import Figure, at_least, at_most
from benchmarks.statistics import median, side_by_side
from learner.models.logistic_regression import DEFAULT_L2_SHARE
from sealpool.types import Vectors

_LABELS = 2000
_NOISE = 0.5
"""Of the labels: without any, a linear model tells all of them apart."""
_SAME_LOSS = 1e-4
_TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def measure(bench: Workbench, figure: Figure) -> None:
    """Measure with the learner's default penalty, from zero weights."""
    size = min(_LABELS, max(bench.share(_LABELS), 10 * CLASSES))
    vectors = gaussian_mixture(20 * size, bench.options.dimension, seed=2)[:size].copy()
    targets = targets_of(vectors, noise=_NOISE)
    head = fitted(vectors, targets).save()
    ours = _objective(vectors, targets, head["weights"], head["bias"])
    figure.add(f"{size:,} labels × {vectors.shape[1]} × {CLASSES} classes, our loss an item", ours)
    try:
        tolerance, theirs, fit = _loosest(vectors, targets, ours)
    except PeerMissingError as error:
        figure.skip("scikit-learn", str(error))
        return
    figure.add(f"scikit-learn's lbfgs at tol = {tolerance:g}, loss an item", theirs)
    figure.add("our loss above theirs, as a share of it", (ours - theirs) / theirs, "", at_most(_SAME_LOSS))
    times = side_by_side(
        {"ours": lambda _: fitted(vectors, targets), "theirs": lambda _: fit(tolerance)},
        repetitions=max(5, bench.options.repetitions),
    )
    figure.add("ours", median(times["ours"]), "s")
    figure.add("scikit-learn", median(times["theirs"]), "s")
    ratio = median(times["theirs"]) / median(times["ours"])
    figure.add("scikit-learn / ours", ratio, "×", bench.at_full_size(at_least(1)))


def _loosest(
    vectors: Vectors, targets: NDArray[np.int64], wanted: float
) -> tuple[float, float, Callable[[float], Any]]:
    """Return the loosest tolerance at which scikit-learn comes within _SAME_LOSS of a loss, its loss, and its fit."""
    make = peer_module("sklearn.linear_model", "scikit-learn").LogisticRegression

    def fit(tolerance: float) -> Any:
        return make(C=1 / DEFAULT_L2_SHARE, tol=tolerance, max_iter=5000).fit(vectors, targets)

    for tolerance in _TOLERANCES:
        model = fit(tolerance)
        loss = _objective(vectors, targets, model.coef_.T, model.intercept_)
        if loss <= wanted * (1 + _SAME_LOSS):
            break
    return tolerance, loss, fit


def _objective(
    vectors: Vectors, targets: NDArray[np.int64], weights: NDArray[np.generic], bias: NDArray[np.generic]
) -> float:
    """Return the mean loss an item, penalty included, in float64."""
    w = weights.astype(np.float64)
    z = vectors.astype(np.float64) @ w + bias.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), targets]
    return float((losses.sum() + DEFAULT_L2_SHARE / 2 * (w**2).sum()) / len(z))
