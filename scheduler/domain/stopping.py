"""When a campaign has learnt enough: what successive models say of one set of items, and the criteria on that."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.domain.stopping_spec import measure_of, patience_of
from sealpool.v1 import common_pb2, scheduler_pb2

BINS = 20
KAPPA_WINDOW = 3
"""Comparisons of successive models over which kappa is averaged (Bloodgood and Vijay-Shanker, CoNLL 2009)."""

Classes = NDArray[np.uint16] | NDArray[np.bool_]
"""What a model says of each item: the class (n,) uint16, or, multi-label, which classes (n, c) bool."""
_ABSENT = np.iinfo(np.uint16).max


def predicted_classes(probabilities: NDArray[np.floating], *, multilabel: bool) -> Classes:
    """Return the most likely class of each item; multi-label: every class over 0.5."""
    if multilabel:
        return np.asarray(probabilities > 0.5)
    return np.asarray(probabilities.argmax(axis=1), np.uint16)


def uncertainties(probabilities: NDArray[np.floating], *, multilabel: bool) -> NDArray[np.float64]:
    """Return each item's entropy as a share of the largest there can be, (n,) in 0 to 1.

    Multi-label: the mean over the labels of their binary entropies.
    """
    each = probabilities.astype(np.float64)
    if multilabel:
        shares = (_p_log_p(each) + _p_log_p(1 - each)) / -math.log(2)
        return np.asarray(np.clip(shares.mean(axis=1), 0, 1))
    return np.asarray(np.clip(-_p_log_p(each).sum(axis=1) / math.log(each.shape[1]), 0, 1))


def uncertainty_counts(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how many shares lie in each of 20 bins of equal width of 0 to 1; 1 itself is in the last."""
    return np.histogram(shares, bins=BINS, range=(0, 1))[0]


def predicted_counts(predicted: Classes, classes: int) -> NDArray[np.int64]:
    """Return how many items are predicted to be of each class, (classes,)."""
    if predicted.ndim == 2:
        return np.asarray(predicted.sum(axis=0), np.int64)
    return np.bincount(predicted, minlength=classes)


def kappa(before: Classes, now: Classes) -> float:
    """Return Cohen's kappa of two models' predictions; multi-label: the mean of the labels' kappas.

    κ = (p_o − p_e) / (1 − p_e) with p_o the share of items on which they agree and p_e what chance alone would give
    (Cohen, Educational and Psychological Measurement 20, 1960). 1 where both say one and the same class of all items;
    NaN without items.
    """
    if not len(now):
        return math.nan
    if now.ndim == 2:
        return float(np.mean([_kappa(before[:, label], now[:, label]) for label in range(now.shape[1])]))
    return _kappa(before, now)


def classification_change(before: Classes, now: Classes) -> float:
    """Return the share of items that two models class otherwise; multi-label: in any label. NaN without items."""
    if not len(now):
        return math.nan
    differs = before != now
    return float((differs.any(axis=1) if differs.ndim == 2 else differs).mean())


def pack(predicted: Classes, present: NDArray[np.bool_]) -> bytes:
    """Return predictions of those items of a stop set that are still there, by place in the stop set, as bytes.

    Parameters
    ----------
    present
        (items of the stop set,) bool: which ones `predicted` is of, in their order.
    """
    if predicted.ndim == 1:
        placed = np.full(len(present), _ABSENT, np.uint16)
        placed[present] = predicted
        return placed.tobytes()
    bits = np.zeros((len(present), predicted.shape[1] + 1), np.bool_)  # the first: whether the item is there
    bits[present, 0] = True
    bits[present, 1:] = predicted
    return np.packbits(bits).tobytes()


def unpack(packed: bytes, *, items: int, classes: int, multilabel: bool) -> tuple[Classes, NDArray[np.bool_]]:
    """Return predictions by place in the stop set, and which places have one: the inverse of `pack`."""
    if not multilabel:
        placed = np.frombuffer(packed, np.uint16)
        return placed, placed != _ABSENT
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=items * (classes + 1))
    table = bits.reshape(items, classes + 1).astype(np.bool_)
    return table[:, 1:], table[:, 0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What the criteria look at after a round; NaN for what there is none of."""

    target: float
    kappa: float
    overall_uncertainty: float
    classification_change: float


def target_value(
    spec: scheduler_pb2.StoppingSpec,
    quality: common_pb2.Quality | None,
    active_test: scheduler_pb2.ActiveTest | None,
) -> float:
    """Return the target measure on held-out items; with test points alone, the accuracy that they estimate."""
    measure = measure_of(spec)
    if quality is not None:
        return float(getattr(quality, measure))
    return active_test.accuracy if active_test is not None and measure == "accuracy" else math.nan


def mean_kappa(earlier: Sequence[float], now: float) -> float:
    """Return the mean of the last three comparisons, oldest first in `earlier`; NaN while there are fewer."""
    last = [*earlier, now][-KAPPA_WINDOW:]
    return sum(last) / KAPPA_WINDOW if len(last) == KAPPA_WINDOW else math.nan


def verdicts(
    spec: scheduler_pb2.StoppingSpec, measured: Measured, before: Sequence[scheduler_pb2.StoppingVerdict]
) -> Iterator[scheduler_pb2.StoppingVerdict]:
    """Yield one verdict for each criterion that has a threshold.

    Parameters
    ----------
    before
        Those of the survey before. A criterion whose threshold has changed since begins to count anew.
    """
    met_before = {(one.criterion, one.threshold): one.rounds_met for one in before}
    for criterion, value, threshold, is_met in (
        ("target_score", measured.target, spec.target_score, measured.target >= spec.target_score),
        ("kappa", measured.kappa, spec.kappa, measured.kappa >= spec.kappa),
        (
            "overall_uncertainty",
            measured.overall_uncertainty,
            spec.overall_uncertainty,
            measured.overall_uncertainty <= spec.overall_uncertainty,
        ),
        (
            "classification_change",
            measured.classification_change,
            spec.classification_change,
            measured.classification_change <= spec.classification_change,
        ),
    ):
        if threshold:
            yield scheduler_pb2.StoppingVerdict(
                criterion=criterion,
                value=value,
                threshold=threshold,
                rounds_met=met_before.get((criterion, threshold), 0) + 1 if is_met else 0,
            )


def why_stop(spec: scheduler_pb2.StoppingSpec, judged: Sequence[scheduler_pb2.StoppingVerdict]) -> str:
    """Return in words why to stop, or "" while no criterion was met in as many rounds in a row as patience asks."""
    return "; ".join(_reason(spec, one) for one in judged if one.rounds_met >= patience_of(spec))


def _reason(spec: scheduler_pb2.StoppingSpec, verdict: scheduler_pb2.StoppingVerdict) -> str:
    at_least = verdict.criterion in ("target_score", "kappa")
    name = {
        "target_score": f"{measure_of(spec)} of",
        "kappa": "agreement of successive models (kappa) of",
        "overall_uncertainty": "mean uncertainty on the stop set of",
        "classification_change": "share of the stop set classed otherwise of",
    }[verdict.criterion]
    bound = "at least" if at_least else "at most"
    rounds = f"{verdict.rounds_met} rounds in a row" if verdict.rounds_met > 1 else "this round"
    return f"{name} {bound} {verdict.threshold:g} for {rounds} (now {verdict.value:.4g})"


def _p_log_p(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    return probabilities * np.log(np.where(probabilities > 0, probabilities, 1))


def _kappa(before: NDArray[np.generic], now: NDArray[np.generic]) -> float:
    observed = float((before == now).mean())
    values = np.union1d(before, now)
    chance = sum(float((before == value).mean()) * float((now == value).mean()) for value in values)
    return 1.0 if chance >= 1 else (observed - chance) / (1 - chance)
