"""Train: from labelled ids to a checkpoint."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum

import torch

from learner.checkpoint_info import Calibration, CheckpointInfo
from learner.checkpoints import Checkpoint, CheckpointStore
from learner.fitting import Fit, fit_round
from learner.index_port import Index
from learner.metrics import LearnerMetrics
from learner.models import make_classifier
from learner.options import ModelOptions, Retrain
from learner.pools import usable_pool
from learner.ports import CancelCheck, FitReport, MakeClassifier, Progress
from learner.problem import Problem, check_labels, class_counts, encode_targets
from learner.training_memory import training_bytes
from learner.vectors import FoundItems, VectorReader
from learner.waiting import KeyedLocks, PlaceTold, TrainingQueue
from sealpool import failpoint
from sealpool.errors import FailedPrecondition, NotFound
from sealpool.runtime.tracing import NO_TRACING, Tracer
from sealpool.types import LabelledItems
from sealpool.v1 import index_pb2


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOrder:
    """What is to be trained: the header of Train, with defaults filled in."""

    campaign: str
    round: int
    pool: str
    problem: Problem
    model: ModelOptions
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOutcome:
    """The checkpoint and what it took. Seconds are 0 where it was there already."""

    info: CheckpointInfo
    train_seconds: float
    fetch_seconds: float
    from_checkpoint: bool


class Trainer:
    """Trains models and keeps their checkpoints. Safe to share between threads.

    Parameters
    ----------
    queue
        How many train at once, and how many wait.
    """

    def __init__(
        self,
        index: Index,
        *,
        reader: VectorReader,
        checkpoints: CheckpointStore,
        queue: TrainingQueue,
        device: torch.device,
        metrics: LearnerMetrics,
        make: MakeClassifier = make_classifier,
        clock: Callable[[], float] = time.perf_counter,
        tracer: Tracer = NO_TRACING,
    ) -> None:
        self._index = index
        self._reader = reader
        self._checkpoints = checkpoints
        self._queue = queue
        self._device = device
        self._metrics = metrics
        self._make = make
        self._clock = clock
        self._tracer = tracer
        self._campaigns = KeyedLocks()

    def train(
        self,
        order: TrainOrder,
        examples: LabelledItems,
        *,
        progress: Progress,
        place_told: PlaceTold,
        cancelled: CancelCheck,
    ) -> TrainOutcome:
        """Train the model of a round, or return its checkpoint if it was trained on just this.

        Parameters
        ----------
        place_told
            Told the place in the queue while the training waits, and 0 when it begins.

        Raises
        ------
        InvalidArgument
            An unknown model, or labels that do not fit the task.
        NotFound
            There is no such pool.
        FailedPrecondition
            No example is left in the pool, fewer than two classes among them, or one has no text and the model reads
            texts.
        ResourceExhausted
            Too many trainings wait.
        Cancelled
            The caller left.
        """
        reads_text = self._make(order.model, order.problem).needs_text
        check_labels(order.problem, examples.labels)
        examples = _sorted(examples)
        pool = usable_pool(self._index, order.pool)
        # The campaign's lock first: a repeated call waits for the first one, and then finds its checkpoint.
        with self._campaigns.turn(order.campaign, cancelled):
            before = self._before(order, pool)
            mark = fingerprint(order, examples, pool, before)
            known = self._known(order, mark)
            if known is not None:
                return TrainOutcome(info=known, train_seconds=0, fetch_seconds=0, from_checkpoint=True)
            started = self._clock()
            found = self._reader.read(pool, examples.ids, texts=reads_text)
            fetched = self._clock()
            if not len(found.rows):
                raise FailedPrecondition(f"none of the {len(examples):,} examples is in pool {order.pool!r}")
            needed = training_bytes(order.model, order.problem, found, self._device)
            with self._queue.turn(needed, place_told, cancelled):
                begun = self._clock()
                with self._tracer.span(
                    "train",
                    campaign=order.campaign,
                    round=order.round,
                    model=order.model.name,
                    examples=len(found.rows),
                ):
                    fit = self._fit(order, examples, found, before, progress, cancelled)
                trained = self._clock()
            self._metrics.observe("train", trained - begun)
            info = self._keep(order, examples, pool, found, mark, before, fit)
        return TrainOutcome(
            info=info, train_seconds=trained - begun, fetch_seconds=fetched - started, from_checkpoint=False
        )

    def _before(self, order: TrainOrder, pool: index_pb2.Pool) -> Checkpoint | None:
        """Return the model that a warm round goes on from: the latest earlier one of the same spec.

        Where it takes vectors, they were of the pool's present dimension.
        """
        if order.model.retrain is Retrain.SCRATCH:
            return None
        # The round before by its name, not from the list alone: NFS may list what another learner saved a little late.
        rounds = {order.round - 1, *self._checkpoints.rounds(order.campaign)}
        for round_number in sorted(rounds, reverse=True):
            if 0 <= round_number < order.round:
                try:
                    found = self._checkpoints.load_anew(order.campaign, round_number)
                except (NotFound, FailedPrecondition):  # an older one may be readable
                    continue
                same_spec = (found.info.model, found.info.problem) == (order.model, order.problem)
                reads_these = found.classifier.needs_text or found.info.dimension == pool.spec.dimension
                if same_spec and reads_these:
                    return found
        return None

    def _known(self, order: TrainOrder, mark: str) -> CheckpointInfo | None:
        try:
            info = self._checkpoints.load(order.campaign, order.round).info
        except (NotFound, FailedPrecondition):  # none, or none that can be read: it is trained again
            return None
        return info if info.fingerprint == mark else None

    def _fit(
        self,
        order: TrainOrder,
        examples: LabelledItems,
        found: FoundItems,
        before: Checkpoint | None,
        progress: Progress,
        cancelled: CancelCheck,
    ) -> Fit:
        return fit_round(
            order.model,
            order.problem,
            self._make,
            ids=[examples.ids[row] for row in found.rows],
            vectors=found.vectors,
            texts=found.texts,
            targets=encode_targets(order.problem, [examples.labels[row] for row in found.rows]),
            before=before,
            seed=order.seed,
            device=self._device,
            progress=progress,
            cancelled=cancelled,
        )

    def _keep(
        self,
        order: TrainOrder,
        examples: LabelledItems,
        pool: index_pb2.Pool,
        found: FoundItems,
        mark: str,
        before: Checkpoint | None,
        fit: Fit,
    ) -> CheckpointInfo:
        labels: Sequence[Sequence[int]] = [examples.labels[row] for row in found.rows]
        counts = class_counts(order.problem, encode_targets(order.problem, labels))
        info = CheckpointInfo(
            campaign=order.campaign,
            round=order.round,
            problem=order.problem,
            model=order.model,
            seed=order.seed,
            fingerprint=mark,
            examples_digest=_digest([examples.ids[row] for row in found.rows]),
            class_counts=tuple(counts.tolist()),
            pool=pool.spec.name,
            pool_version=pool.version,
            dimension=pool.spec.dimension,
            examples=fit.examples,
            missing=len(examples) - len(found.rows),
            iterations=fit.report.iterations,
            loss=fit.report.loss,
            validation_examples=fit.validation_examples,
            validation_score=None if math.isnan(fit.validation_score) else fit.validation_score,
            warm_from_round=before.info.round if before is not None and fit.warm else None,
            calibration=_calibration(fit.report),
            notes=fit.notes,
        )
        failpoint.reach("learner.train.before_checkpoint")
        saved = self._checkpoints.save(Checkpoint(info=info, classifier=fit.classifier))
        failpoint.reach("learner.train.after_checkpoint")
        return saved


def fingerprint(order: TrainOrder, examples: LabelledItems, pool: index_pb2.Pool, before: Checkpoint | None) -> str:
    """Return the SHA-256 of what decides a model: header, examples, which pool has the name, and what it goes on from.

    The pool's version is left out: a repeated call is answered from the checkpoint also when items were added since.
    """
    header = asdict(order) | {"problem": [order.problem.task.value, *order.problem.classes]}
    labels = [sorted(some) for some in examples.labels]
    content = [header, pool.created_at.ToNanoseconds(), list(examples.ids), labels]
    content.append(before.info.fingerprint if before is not None else "")
    return _digest([json.dumps(content, sort_keys=True, default=_plain)])


def _calibration(report: FitReport) -> Calibration | None:
    if report.temperature is None:
        return None
    return Calibration(temperature=report.temperature, error_before=report.error_before, error_after=report.error_after)


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} has no place in a fingerprint")


def _digest(parts: list[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _sorted(examples: LabelledItems) -> LabelledItems:
    """Put examples in the order of their ids, so that the order they came in changes nothing."""
    order = sorted(range(len(examples)), key=examples.ids.__getitem__)
    return replace(
        examples, ids=[examples.ids[place] for place in order], labels=[examples.labels[place] for place in order]
    )
