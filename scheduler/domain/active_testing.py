"""Active testing: which test points are chosen, and what their losses say of all points they were chosen from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sealpool.statistics import NORMAL_95

Numbers = NDArray[np.float64]

UNIFORM_SHARE = 0.2
"""Of the proposal. A model that is sure and wrong would hide its errors behind probabilities near 0, and the one found
by chance would then outweigh all others; with this share no point weighs over 5 times what a uniform draw gives it."""
_LEAST_PROBABILITY = 1e-7


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A mean loss over all points of a test pool, and its standard error (NaN with fewer than two points)."""

    mean: float
    standard_error: float

    @property
    def margin(self) -> float:
        """Half the width of the 95 % interval."""
        return NORMAL_95 * self.standard_error


def expected_loss(probabilities: NDArray[np.floating], *, multilabel: bool) -> Numbers:
    """Return the 0/1 loss that the model itself expects of each item, (n,): 1 − the probability of its prediction.

    Parameters
    ----------
    probabilities
        (n, c). Multi-label: of each label, taken as independent; the prediction is right if all its labels are.
    """
    each = probabilities.astype(np.float64)
    if multilabel:
        return np.asarray(1 - np.maximum(each, 1 - each).prod(axis=1))
    return np.asarray(1 - each.max(axis=1))


def proposal(expected: Numbers) -> Numbers:
    """Return the probability of each point that is left, (n,), to be chosen next; all positive, of sum 1.

    In proportion to its expected loss, the first-order choice for the risk (Kossen, Farquhar, Gal and Rainforth, Active
    Testing, ICML 2021), mixed with `UNIFORM_SHARE` of a uniform draw.
    """
    doubt = np.maximum(expected, 0)
    total = doubt.sum()
    if not total > 0:
        return np.full(len(doubt), 1 / len(doubt))
    return np.asarray(UNIFORM_SHARE / len(doubt) + (1 - UNIFORM_SHARE) * (doubt / total))


def choose(expected: Numbers, count: int, *, seed: int) -> list[tuple[int, float]]:
    """Choose points one after another, without replacement, each by the proposal over those left.

    Returns
    -------
    list
        Up to `count` pairs of a position in `expected` (n,) and the probability that it had when it was chosen.
    """
    rng = np.random.default_rng(seed)
    left = np.arange(len(expected))
    chosen: list[tuple[int, float]] = []
    while len(left) and len(chosen) < count:
        probabilities = proposal(expected[left])
        cumulated = probabilities.cumsum()
        place = min(int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right")), len(left) - 1)
        chosen.append((int(left[place]), float(probabilities[place])))
        left = np.delete(left, place)
    return chosen


def lure_weights(probabilities: Sequence[float] | Numbers, *, pool: int) -> Numbers:
    """Return the weight v_m of each chosen point's loss, (M,), that makes their weighted mean an unbiased risk.

    v_m = 1 + (N − M) / (N − m) · (1 / ((N − m + 1) · q_m) − 1) for m = 1 … M (Farquhar, Gal and Rainforth, On
    Statistical Bias in Active Learning, ICLR 2021). With all N points chosen every weight is 1.

    Parameters
    ----------
    probabilities
        q_m of each point when it was chosen, in the order chosen; above 0.
    pool
        N, the points that there were to choose from; at least M.
    """
    q = np.asarray(probabilities, np.float64)
    chosen = len(q)
    if chosen == pool:
        return np.ones(chosen)
    left = pool - np.arange(chosen)  # N − m + 1
    return np.asarray(1 + (pool - chosen) / (left - 1) * (1 / (left * q) - 1))


def lure_estimate(losses: Numbers, weights: Numbers) -> Estimate:
    """Return (1/M) Σ v_m · L_m and the standard error of the weighted terms, which it takes as independent."""
    terms = losses * weights
    error = float(terms.std(ddof=1) / np.sqrt(len(terms))) if len(terms) > 1 else float("nan")
    return Estimate(mean=float(terms.mean()), standard_error=error)


def without_unlabelable(
    probabilities: Sequence[float], usable: Sequence[bool], *, pool: int
) -> tuple[list[float], int]:
    """Leave out points that nobody can label, as if they had never been in the pool.

    Returns
    -------
    tuple
        The probabilities of the usable points, scaled to the draw without those others, and the size of the pool
        without them. How likely one was before it was drawn is not known; it is taken as uniform over what was left,
        so the correction is exact for a uniform proposal and of order 1 / pool otherwise.
    """
    gone = len(usable) - sum(usable)
    kept: list[float] = []
    later = gone
    for place, (probability, is_usable) in enumerate(zip(probabilities, usable, strict=True)):
        left = pool - place
        if is_usable:
            kept.append(min(1.0, probability * left / max(left - later, 1)))
        else:
            later -= 1
    return kept, pool - gone


def zero_one_losses(
    probabilities: NDArray[np.floating], labels: Sequence[Sequence[int]], *, multilabel: bool
) -> Numbers:
    """Return 1 for each item whose prediction is not exactly right and 0 for the others: (n,).

    The prediction is the most likely class; multi-label: every class over 0.5.
    """
    if multilabel:
        wrong = ((probabilities > 0.5) != _indicator(labels, probabilities.shape[1])).any(axis=1)
    else:
        wrong = probabilities.argmax(axis=1) != np.array([of_item[0] for of_item in labels], np.int64)
    return np.asarray(wrong, np.float64)


def log_losses(probabilities: NDArray[np.floating], labels: Sequence[Sequence[int]], *, multilabel: bool) -> Numbers:
    """Return −log of the probability of each item's truth, (n,), at most 16.1; multi-label: the mean over labels."""
    each = np.clip(probabilities.astype(np.float64), _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    if multilabel:
        truth = _indicator(labels, each.shape[1])
        return np.asarray(-np.log(np.where(truth, each, 1 - each)).mean(axis=1))
    true = np.array([of_item[0] for of_item in labels], np.int64)
    return np.asarray(-np.log(each[np.arange(len(each)), true]))


def _indicator(labels: Sequence[Sequence[int]], classes: int) -> NDArray[np.bool_]:
    truth = np.zeros((len(labels), classes), np.bool_)
    for row, of_item in enumerate(labels):
        truth[row, list(of_item)] = True
    return truth
