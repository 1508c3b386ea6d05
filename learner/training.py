"""Train: from labelled ids to a checkpoint."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch

from learner.checkpoints import Checkpoint, CheckpointInfo, CheckpointStore
from learner.metrics import LearnerMetrics
from learner.models import make_classifier
from learner.pools import usable_pool
from learner.ports import CancelCheck, Classifier, Index, ModelOptions, Progress, TrainingSet
from learner.problem import Problem, check_labels, class_counts, encode_targets
from learner.vectors import VectorReader
from learner.waiting import KeyedLocks, Turns
from sealpool import failpoint
from sealpool.errors import FailedPrecondition, NotFound
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
    turns
        How many train at once, and how many wait.
    """

    def __init__(
        self,
        index: Index,
        *,
        reader: VectorReader,
        checkpoints: CheckpointStore,
        turns: Turns,
        device: torch.device,
        metrics: LearnerMetrics,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._index = index
        self._reader = reader
        self._checkpoints = checkpoints
        self._turns = turns
        self._device = device
        self._metrics = metrics
        self._clock = clock
        self._campaigns = KeyedLocks()

    def train(
        self, order: TrainOrder, examples: LabelledItems, *, progress: Progress, cancelled: CancelCheck
    ) -> TrainOutcome:
        """Train the model of a round, or return its checkpoint if it was trained on just this.

        Raises
        ------
        InvalidArgument
            An unknown model, or labels that do not fit the task.
        NotFound
            There is no such pool.
        FailedPrecondition
            No example is left in the pool, or fewer than two classes among them.
        ResourceExhausted
            Too many trainings wait.
        Cancelled
            The caller left.
        """
        classifier = make_classifier(order.model, order.problem)
        check_labels(order.problem, examples.labels)
        examples = _sorted(examples)
        pool = usable_pool(self._index, order.pool)
        # The campaign's lock first: a repeated call waits for the first one, and then finds its checkpoint.
        with self._campaigns.turn(order.campaign, cancelled):
            mark = fingerprint(order, examples, pool)
            known = self._known(order, mark)
            if known is not None:
                return TrainOutcome(info=known, train_seconds=0, fetch_seconds=0, from_checkpoint=True)
            with self._turns.turn("training", cancelled):
                return self._train(order, examples, pool, classifier, mark, progress, cancelled)

    def _known(self, order: TrainOrder, mark: str) -> CheckpointInfo | None:
        try:
            info = self._checkpoints.load(order.campaign, order.round).info
        except (NotFound, FailedPrecondition):  # none, or none that can be read: it is trained again
            return None
        return info if info.fingerprint == mark else None

    def _train(
        self,
        order: TrainOrder,
        examples: LabelledItems,
        pool: index_pb2.Pool,
        classifier: Classifier,
        mark: str,
        progress: Progress,
        cancelled: CancelCheck,
    ) -> TrainOutcome:
        started = self._clock()
        found = self._reader.read(pool, examples.ids)
        fetched = self._clock()
        if not len(found.rows):
            raise FailedPrecondition(f"none of the {len(examples):,} examples is in pool {order.pool!r}")
        targets = encode_targets(order.problem, [examples.labels[row] for row in found.rows])
        report = classifier.fit(
            TrainingSet(vectors=found.vectors, targets=targets),
            seed=order.seed,
            device=self._device,
            progress=progress,
            cancelled=cancelled,
        )
        trained = self._clock()
        self._metrics.observe("train", trained - fetched)
        info = CheckpointInfo(
            campaign=order.campaign,
            round=order.round,
            problem=order.problem,
            model=order.model,
            seed=order.seed,
            fingerprint=mark,
            examples_digest=_digest([examples.ids[row] for row in found.rows]),
            class_counts=tuple(class_counts(order.problem, targets).tolist()),
            pool=pool.spec.name,
            pool_version=pool.version,
            dimension=pool.spec.dimension,
            examples=len(found.rows),
            missing=len(examples) - len(found.rows),
            iterations=report.iterations,
            loss=report.loss,
        )
        failpoint.reach("learner.train.before_checkpoint")
        self._checkpoints.save(Checkpoint(info=info, classifier=classifier))
        failpoint.reach("learner.train.after_checkpoint")
        return TrainOutcome(
            info=info, train_seconds=trained - fetched, fetch_seconds=fetched - started, from_checkpoint=False
        )


def fingerprint(order: TrainOrder, examples: LabelledItems, pool: index_pb2.Pool) -> str:
    """Return the SHA-256 of what decides a model: header, examples, and which pool has the name.

    The pool's version is left out: a repeated call is answered from the checkpoint also when items were added since.
    """
    header = asdict(order) | {"problem": [order.problem.task.value, *order.problem.classes]}
    labels = [sorted(some) for some in examples.labels]
    content = [header, pool.created_at.ToNanoseconds(), list(examples.ids), labels]
    return _digest([json.dumps(content, sort_keys=True)])


def _digest(parts: list[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _sorted(examples: LabelledItems) -> LabelledItems:
    """Put examples in the order of their ids, so that the order they came in changes nothing."""
    order = sorted(range(len(examples)), key=examples.ids.__getitem__)
    return replace(
        examples, ids=[examples.ids[place] for place in order], labels=[examples.labels[place] for place in order]
    )
