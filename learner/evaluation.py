"""Evaluate: the quality of a checkpoint on held-out items."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learner.checkpoints import CheckpointStore
from learner.index_port import Index
from learner.metrics import LearnerMetrics
from learner.pools import check_dimension, usable_pool
from learner.ports import CancelCheck, Classifier
from learner.predicting import predict
from learner.problem import Problem, Targets, check_labels, encode_targets
from learner.scoring import TEXT_ROWS
from learner.uncertainty.calibration import expected_calibration_error
from learner.vectors import FoundItems, VectorReader
from sealpool.errors import Cancelled, FailedPrecondition
from sealpool.types import LabelledItems


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassQuality:
    """Quality in one class; NaN where a number has no meaning. As in the proto."""

    name: str
    support: int
    average_precision: float
    roc_auc: float
    f1: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """Quality over all classes. As in the proto."""

    items: int
    accuracy: float
    macro_f1: float
    micro_f1: float
    macro_roc_auc: float
    mean_average_precision: float
    expected_calibration_error: float
    classes: tuple[ClassQuality, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """A quality, and what it was measured on. `positives_found` (c) counts the examples trained on."""

    quality: Quality
    positives_found: tuple[int, ...]
    missing: int
    seconds: float
    pool_version: int


def measure(problem: Problem, probabilities: NDArray[np.float32], targets: Targets) -> Quality:
    """Compare probabilities (n, c) with the truth, n ≥ 1.

    The prediction is the most likely class, or for multi-label every class over 0.5. Average precision and ROC-AUC
    are of one class against the rest, and NaN unless the class has both a positive and a negative. F1 is NaN where a
    class is neither there nor predicted. Means leave NaN out.
    """
    truth, predicted = _truth_and_predicted(problem, probabilities, targets)
    supports = truth.sum(axis=0)
    ranked = [
        _ranking(truth[:, column], probabilities[:, column]) if 0 < support < len(truth) else (np.nan, np.nan)
        for column, support in enumerate(supports)
    ]
    right, claimed = (truth & predicted).sum(axis=0), predicted.sum(axis=0)
    f1 = _f1(right, supports + claimed)
    average_precision, roc_auc = np.array(ranked).T
    return Quality(
        items=len(truth),
        accuracy=float((truth == predicted).all(axis=1).mean()),
        macro_f1=_mean(f1),
        micro_f1=float(_f1(right.sum(), (supports + claimed).sum())),
        macro_roc_auc=_mean(roc_auc),
        mean_average_precision=_mean(average_precision),
        expected_calibration_error=expected_calibration_error(problem, probabilities, targets),
        classes=tuple(
            ClassQuality(name=name, support=int(support), average_precision=float(ap), roc_auc=float(auc), f1=float(f))
            for name, support, ap, auc, f in zip(problem.classes, supports, average_precision, roc_auc, f1, strict=True)
        ),
    )


def macro_f1(problem: Problem, probabilities: NDArray[np.float32], targets: Targets) -> float:
    """Return the mean F1 of those classes that are there or predicted, as `measure` does; n ≥ 1."""
    truth, predicted = _truth_and_predicted(problem, probabilities, targets)
    return _mean(_f1((truth & predicted).sum(axis=0), truth.sum(axis=0) + predicted.sum(axis=0)))


def _truth_and_predicted(
    problem: Problem, probabilities: NDArray[np.float32], targets: Targets
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    if problem.multilabel:
        return targets.astype(np.bool_), probabilities > 0.5
    columns = np.arange(len(problem.classes))
    return targets[:, None] == columns, probabilities.argmax(axis=1)[:, None] == columns


def _ranking(truth: NDArray[np.bool_], scores: NDArray[np.float32]) -> tuple[float, float]:
    """Return average precision and ROC-AUC of one class with positives and negatives; equal scores are one step."""
    order = np.argsort(-scores)
    lasts = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    found = np.cumsum(truth[order])[lasts]
    missed = lasts + 1 - found
    new_found, new_missed = np.diff(found, prepend=0), np.diff(missed, prepend=0)
    average_precision = np.sum(new_found * found / (lasts + 1)) / found[-1]
    roc_auc = np.sum(new_missed * (found - new_found / 2)) / (found[-1] * missed[-1])
    return float(average_precision), float(roc_auc)


def _f1(right: NDArray[np.int64], there_and_claimed: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return 2·right / (there + claimed); NaN where a class is neither there nor predicted."""
    blank = np.full(np.shape(right), np.nan)
    f1: NDArray[np.float64] = np.divide(2 * right, there_and_claimed, out=blank, where=there_and_claimed > 0)
    return f1


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


class Evaluator:
    """Measures checkpoints. Safe to share between threads."""

    def __init__(
        self,
        index: Index,
        *,
        reader: VectorReader,
        checkpoints: CheckpointStore,
        device: torch.device,
        metrics: LearnerMetrics,
        batch_rows: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._index = index
        self._reader = reader
        self._checkpoints = checkpoints
        self._device = device
        self._metrics = metrics
        self._batch_rows = batch_rows
        self._clock = clock

    def evaluate(
        self, campaign: str, round_number: int, pool_name: str, examples: LabelledItems, *, cancelled: CancelCheck
    ) -> Evaluation:
        """Measure the model of a round on labelled items of a pool.

        Raises
        ------
        NotFound
            No such pool or checkpoint.
        InvalidArgument
            Labels that do not fit the model's task, or a pool of another dimension.
        FailedPrecondition
            No example is left in the pool, or the checkpoint cannot be read.
        Cancelled
            The caller left.
        """
        started = self._clock()
        pool = usable_pool(self._index, pool_name)
        checkpoint = self._checkpoints.load(campaign, round_number)
        problem = checkpoint.info.problem
        check_labels(problem, examples.labels)
        check_dimension("header.pool", pool, checkpoint)
        found = self._reader.read(pool, examples.ids, texts=checkpoint.classifier.needs_text)
        if not len(found.rows):
            raise FailedPrecondition(f"none of the {len(examples):,} examples is in pool {pool_name!r}")
        probabilities = self._probabilities(checkpoint.classifier, found, cancelled)
        labels: Sequence[Sequence[int]] = [examples.labels[row] for row in found.rows]
        quality = measure(problem, probabilities, encode_targets(problem, labels))
        seconds = self._clock() - started
        self._metrics.observe("evaluate", seconds)
        return Evaluation(
            quality=quality,
            positives_found=checkpoint.info.class_counts,
            missing=len(examples) - len(found.rows),
            seconds=seconds,
            pool_version=pool.version,
        )

    def _probabilities(self, classifier: Classifier, found: FoundItems, cancelled: CancelCheck) -> NDArray[np.float32]:
        rows = min(self._batch_rows, TEXT_ROWS) if classifier.needs_text else self._batch_rows
        parts = []
        for start in range(0, len(found.vectors), rows):
            if cancelled():
                raise Cancelled("the caller left while the model was evaluated")
            some = slice(start, start + rows)
            texts = None if found.texts is None else found.texts[some]
            parts.append(predict(classifier, found.vectors[some], self._device, texts=texts))
        return np.concatenate(parts)
