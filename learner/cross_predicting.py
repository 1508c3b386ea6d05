"""CrossPredict: labelled items predicted by models that had not seen their labels."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learner.fitting import fit_round
from learner.folds import assign_folds
from learner.index_port import Index
from learner.metrics import LearnerMetrics
from learner.models import make_classifier
from learner.pools import usable_pool
from learner.ports import CancelCheck, Classifier, MakeClassifier
from learner.predicting import PredictedChunk, answer_rows, predict
from learner.problem import Targets, check_labels, encode_targets
from learner.scoring import TEXT_ROWS
from learner.training import TrainOrder
from learner.training_memory import training_bytes
from learner.vectors import FoundItems, VectorReader
from learner.waiting import TrainingQueue
from sealpool.errors import Cancelled, FailedPrecondition, InvalidArgument
from sealpool.types import ItemId, LabelledItems

DEFAULT_FOLDS = 5
_MOST_FOLDS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class _Labelled:
    """The labelled items that the pool has, all parallel."""

    ids: Sequence[ItemId]
    found: FoundItems
    targets: Targets

    def part(self, rows: NDArray[np.int64]) -> "_Labelled":
        texts = None if self.found.texts is None else [self.found.texts[row] for row in rows.tolist()]
        return _Labelled(
            ids=[self.ids[row] for row in rows.tolist()],
            found=FoundItems(rows=self.found.rows[rows], vectors=self.found.vectors[rows], texts=texts),
            targets=self.targets[rows],
        )


class CrossPredictor:
    """Predicts labelled items by models of the other folds. Keeps no checkpoint. Safe to share between threads.

    Parameters
    ----------
    queue
        That of the trainings: each fold's model waits there for its turn.
    """

    def __init__(
        self,
        index: Index,
        *,
        reader: VectorReader,
        queue: TrainingQueue,
        device: torch.device,
        metrics: LearnerMetrics,
        batch_rows: int,
        make: MakeClassifier = make_classifier,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._index = index
        self._reader = reader
        self._queue = queue
        self._device = device
        self._metrics = metrics
        self._batch_rows = batch_rows
        self._make = make
        self._clock = clock

    def predict(
        self, order: TrainOrder, examples: LabelledItems, *, folds: int, cancelled: CancelCheck
    ) -> Iterator[PredictedChunk]:
        """Yield the probabilities of the examples, in their order; those that the pool no longer has are left out.

        Same order, examples and folds: same answer, whatever order the examples came in. Each fold is trained from
        scratch.

        Parameters
        ----------
        folds
            2 to 20; 0 means 5. Where there are fewer examples, as many as there are.

        Raises
        ------
        InvalidArgument
            Folds, an unknown model, or labels that do not fit the task.
        NotFound
            There is no such pool.
        FailedPrecondition
            Fewer than two examples are in the pool, or those outside a fold cannot train a model.
        ResourceExhausted
            Too many trainings wait.
        Cancelled
            The caller left.
        """
        folds = folds or DEFAULT_FOLDS
        if not 2 <= folds <= _MOST_FOLDS:
            raise InvalidArgument("folds", f"{folds:,} is not 2 to {_MOST_FOLDS}")
        check_labels(order.problem, examples.labels)
        reads_text = self._make(order.model, order.problem).needs_text
        pool = usable_pool(self._index, order.pool)
        found = self._reader.read(pool, examples.ids, texts=reads_text)
        labelled = _Labelled(
            ids=[examples.ids[row] for row in found.rows],
            found=found,
            targets=encode_targets(order.problem, [examples.labels[row] for row in found.rows]),
        )
        if len(labelled.ids) < 2:
            raise FailedPrecondition(f"pool {order.pool!r} has {len(labelled.ids)} of the examples: two are needed")
        probabilities = self._by_others(order, labelled, min(folds, len(labelled.ids)), cancelled)
        rows = answer_rows(len(order.problem.classes))
        for start in range(0, len(labelled.ids), rows):
            some = slice(start, start + rows)
            yield PredictedChunk(ids=labelled.ids[some], probabilities=probabilities[some], pool_version=pool.version)

    def _by_others(
        self, order: TrainOrder, labelled: _Labelled, folds: int, cancelled: CancelCheck
    ) -> NDArray[np.float32]:
        fold_of = assign_folds(order.problem, labelled.ids, labelled.targets, folds=folds, seed=order.seed)
        probabilities = np.empty((len(labelled.ids), len(order.problem.classes)), np.float32)
        # In the order of the ids, so that the order they came in changes no sum.
        by_id = np.array(sorted(range(len(labelled.ids)), key=labelled.ids.__getitem__), np.int64)
        for fold in range(folds):
            inside = np.flatnonzero(fold_of == fold)
            model = self._fit(order, labelled.part(by_id[fold_of[by_id] != fold]), fold, cancelled)
            probabilities[inside] = self._predict(model, labelled.part(inside).found, cancelled)
        return probabilities

    def _fit(self, order: TrainOrder, others: _Labelled, fold: int, cancelled: CancelCheck) -> Classifier:
        needed = training_bytes(order.model, order.problem, others.found, self._device)
        # A turn a fold, not one for all of them: rounds of other campaigns go on in between.
        with self._queue.turn(needed, lambda _: None, cancelled):
            begun = self._clock()
            try:
                fit = fit_round(
                    order.model,
                    order.problem,
                    self._make,
                    ids=others.ids,
                    vectors=others.found.vectors,
                    texts=others.found.texts,
                    targets=others.targets,
                    before=None,
                    seed=order.seed,
                    device=self._device,
                    progress=lambda *_: None,
                    cancelled=cancelled,
                )
            except FailedPrecondition as error:
                raise FailedPrecondition(f"without fold {fold + 1}: {error.message}", field=error.field) from error
        self._metrics.observe("train", self._clock() - begun)
        return fit.classifier

    def _predict(self, model: Classifier, found: FoundItems, cancelled: CancelCheck) -> NDArray[np.float32]:
        rows = min(self._batch_rows, TEXT_ROWS) if model.needs_text else self._batch_rows
        parts = []
        for start in range(0, len(found.vectors), rows):
            if cancelled():
                raise Cancelled("the caller left while labelled items were predicted")
            some = slice(start, start + rows)
            texts = None if found.texts is None else found.texts[some]
            parts.append(predict(model, found.vectors[some], self._device, texts=texts))
        return np.concatenate(parts)
