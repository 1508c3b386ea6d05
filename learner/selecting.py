"""Select: bring the candidates up to date, score them, and pick the batch of a round."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from learner.assembling import BatchAssembler, check_growth
from learner.candidates import Slot
from learner.checkpoints import Checkpoint, CheckpointStore
from learner.choosing import Chosen, StrategyChooser
from learner.contexts import Lens
from learner.draws import derived_seed
from learner.expansion import Expander, HeldCampaign, HeldCampaigns, LabelledSet
from learner.index_port import CandidateUpdate, Index
from learner.metrics import LearnerMetrics
from learner.options import DensityOver
from learner.pools import check_dimension, usable_pool
from learner.ports import CancelCheck, Classifier
from learner.problem import Problem
from learner.select_order import Pick, Selection, SelectOrder
from learner.sources import CandidateSource, ItemsGoneError
from learner.subpool import SUBPOOL_POLICY, draw_subpool
from learner.vectors import require_texts
from learner.waiting import KeyedLocks
from sealpool import failpoint
from sealpool.errors import FailedPrecondition
from sealpool.runtime.tracing import NO_TRACING, Tracer
from sealpool.types import ItemId, Items
from sealpool.v1 import common_pb2, index_pb2
from sealpool.vocabulary.models import ESTIMATORS

_SUBPOOL = 3  # purpose of a seed; assembling has the others
_DIRECTION_ROWS = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class _Model:
    """What is picked for: the problem, and the checkpoint where there is one."""

    problem: Problem
    checkpoint: Checkpoint | None

    @property
    def classifier(self) -> Classifier | None:
        return None if self.checkpoint is None else self.checkpoint.classifier

    @property
    def draws_samples(self) -> bool:
        if self.checkpoint is None:
            return False
        return ESTIMATORS[self.checkpoint.info.model.uncertainty.estimator].draws

    @property
    def reads_text(self) -> bool:
        return self.classifier is not None and self.classifier.needs_text


class Selector:
    """Picks batches. Safe to share between threads; calls for one campaign take turns.

    Parameters
    ----------
    batch_rows
        Candidates scored at once.
    """

    def __init__(
        self,
        index: Index,
        *,
        checkpoints: CheckpointStore,
        campaigns: HeldCampaigns,
        expander: Expander,
        chooser: StrategyChooser,
        device: torch.device,
        metrics: LearnerMetrics,
        batch_rows: int,
        clock: Callable[[], float] = time.perf_counter,
        tracer: Tracer = NO_TRACING,
    ) -> None:
        self._index = index
        self._checkpoints = checkpoints
        self._campaigns = campaigns
        self._expander = expander
        self._chooser = chooser
        self._device = device
        self._metrics = metrics
        self._assembler = BatchAssembler(index, batch_rows=batch_rows, clock=clock)
        self._clock = clock
        self._tracer = tracer
        self._turns = KeyedLocks()

    def select(self, order: SelectOrder, labelled: LabelledSet, *, cancelled: CancelCheck) -> Selection:
        """Pick a batch.

        Raises
        ------
        NotFound
            No such pool, or no checkpoint of that round.
        InvalidArgument
            An unknown strategy or policy, a parameter that does not fit, a pool of another dimension.
        FailedPrecondition
            The pool is empty, or the checkpoint cannot be read.
        Cancelled
            The caller left.
        """
        model = self._model(order)
        self._chooser.check(order.strategy, model.problem, model.classifier, draws_samples=model.draws_samples)
        check_growth(order)
        pool = self._pool(order, model)
        # Its own name from here on: an alias may be given to another pool while we work.
        order = replace(order, pool=pool.spec.name)
        if not pool.size:
            raise FailedPrecondition(f"pool {order.pool!r} is empty", field="header.pool")
        with self._turns.turn(order.campaign, cancelled):
            started = self._clock()
            with self._tracer.span("expand", campaign=order.campaign, round=order.round, pool=order.pool):
                held, update = self._candidates(order, labelled, pool, with_texts=model.reads_text)
            expanded = self._clock()
            failpoint.reach("learner.select.after_expand")
            chosen = self._chooser.choose(
                order.strategy,
                model.problem,
                model.classifier,
                pool=pool,
                labelled=labelled,
                seed=order.seed,
                cancelled=cancelled,
            )
            with self._tracer.span("score", campaign=order.campaign, round=order.round, strategy=chosen.name):
                picks, preview_s = self._pick_from_what_is_there(
                    order, labelled, held, update, model, chosen, cancelled
                )
            scored = self._clock()
            info = common_pb2.CandidatePoolInfo()
            info.CopyFrom(update.info)
            info.added, info.removed = held.added, held.removed
            self._campaigns.shrink()
        expand_s, score_s = expanded - started + preview_s, scored - expanded - preview_s
        self._metrics.observe("expand", expand_s)
        self._metrics.observe("score", score_s)
        return Selection(
            picks=picks,
            info=info,
            expand_seconds=expand_s,
            score_seconds=score_s,
            pool_version=update.pool_version,
            strategy=chosen.name,
            strategy_reason=chosen.reason,
        )

    def _model(self, order: SelectOrder) -> _Model:
        if order.problem is not None:
            return _Model(problem=order.problem, checkpoint=None)
        checkpoint = self._checkpoints.load(order.campaign, order.round)
        return _Model(problem=checkpoint.info.problem, checkpoint=checkpoint)

    def _candidates(
        self, order: SelectOrder, labelled: LabelledSet, pool: index_pb2.Pool, *, with_texts: bool
    ) -> tuple[HeldCampaign, CandidateUpdate]:
        if order.problem is not None and not labelled.expands and order.policy.name == SUBPOOL_POLICY:
            seed = derived_seed(order.seed ^ order.policy.seed, _SUBPOOL)
            drawn = draw_subpool(self._index, pool, order.policy.subpool_size, seed=seed, exclude=labelled.excluded)
            held = self._campaigns.apart(pool)
            held.candidates.apply(drawn)
            held.added = len(drawn.added)
            return held, drawn
        held = self._campaigns.get(pool, order.campaign, texts=with_texts)
        update = self._expander.expand(
            held,
            labelled,
            pool=order.pool,
            campaign=order.campaign,
            round_number=order.round,
            policy=order.policy,
        )
        return held, update

    def _pick_from_what_is_there(
        self,
        order: SelectOrder,
        labelled: LabelledSet,
        held: HeldCampaign,
        update: CandidateUpdate,
        model: _Model,
        chosen: Chosen,
        cancelled: CancelCheck,
    ) -> tuple[list[Pick], float]:
        """Pick, again without them if candidates turn out to have been deleted since they were told."""
        if model.reads_text:
            ids = [held.candidates.id_at(Slot(slot)) for slot in range(len(held.candidates))]
            require_texts(ids, held.candidates.texts)
        while True:
            source = self._source(order, held)
            try:
                lens = Lens(
                    problem=model.problem,
                    classifier=model.classifier,
                    labelled=chosen.labelled,
                    direction=_direction(chosen, source, update),
                    device=self._device,
                    seed=order.seed,
                )
                return self._assembler.pick(order, labelled, source, lens, chosen, cancelled)
            except ItemsGoneError as gone:
                held.candidates.forget(gone.ids)

    def _source(self, order: SelectOrder, held: HeldCampaign) -> CandidateSource:
        def read(ids: Sequence[ItemId]) -> Items:
            return self._index.get_items(order.pool, ids, allow_missing=True)

        return CandidateSource(candidates=held.candidates, mirror=held.mirror, read=read, device=self._device)

    def _pool(self, order: SelectOrder, model: _Model) -> index_pb2.Pool:
        """Return the pool to pick from: the one named, or that an alias stands for.

        Where an alias was given to another pool since the round's model was trained, it is the pool of the model, so
        that the round ends where it began: the new pool's vectors may mean something else.
        """
        pool, checkpoint = usable_pool(self._index, order.pool), model.checkpoint
        if checkpoint is None:
            return pool
        trained_on = checkpoint.info.pool
        if pool.spec.name not in (order.pool, trained_on) and trained_on != order.pool:
            pool = usable_pool(self._index, trained_on)
        check_dimension("header.pool", pool, checkpoint)
        return pool


def _direction(
    chosen: Chosen, source: CandidateSource, update: CandidateUpdate
) -> NDArray[np.float32] | NDArray[np.float64] | None:
    match chosen.density_over:
        case None:
            return None
        case DensityOver.CANDIDATES:
            return _mean_direction(source)
        case DensityOver.POOL:
            return update.pool_direction


def _mean_direction(source: CandidateSource) -> NDArray[np.float64]:
    """Return the mean unit vector (d,) of all candidates; where vectors are not held, it takes a pass over them."""
    candidates = source.candidates
    if not candidates.streamed:
        return candidates.direction
    total = np.zeros(candidates.dimension)
    for start in range(0, len(candidates), _DIRECTION_ROWS):
        stop = min(start + _DIRECTION_ROWS, len(candidates))
        vectors = source.span(start, stop).cpu().numpy().astype(np.float64)
        total += candidates.inverse_lengths[start:stop].astype(np.float64) @ vectors
    return total / max(len(candidates), 1)
