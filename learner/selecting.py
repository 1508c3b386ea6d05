"""Select: bring the candidates up to date, score them, and pick the batch of a round."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import torch
from numpy.typing import NDArray

from learner.candidates import Slot
from learner.checkpoints import Checkpoint, CheckpointStore
from learner.choosing import Chosen, StrategyChooser
from learner.contexts import Lens
from learner.draws import derived_seed
from learner.expansion import Expander, HeldCampaign, HeldCampaigns, LabelledSet
from learner.growing import pick_growing
from learner.index_port import CandidateUpdate, Index
from learner.metrics import LearnerMetrics
from learner.options import DensityOver, StrategyOptions
from learner.pools import check_dimension, usable_pool
from learner.ports import BatchStrategy, CancelCheck, Classifier
from learner.problem import Problem
from learner.scoring import BatchPicker, ScoredItem, Scorer
from learner.sources import CandidateSource, ItemsGoneError
from learner.strategies import strategy_entry
from learner.subpool import SUBPOOL_POLICY, draw_subpool
from learner.vectors import require_texts
from learner.waiting import KeyedLocks
from sealpool import failpoint
from sealpool.errors import FailedPrecondition, InvalidArgument
from sealpool.types import ItemId, Items
from sealpool.v1 import common_pb2, index_pb2
from sealpool.vocabulary.models import ESTIMATORS

_EXPLORATION, _FILL, _SUBPOOL = 1, 2, 3  # purposes of seeds
_DIRECTION_ROWS = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectOrder:
    """The header of Select, checked. `policy` goes to the index server as it is; it says when candidates grow.

    Parameters
    ----------
    problem
        Where there is no model yet; None where the round has a checkpoint, which knows.
    """

    campaign: str
    round: int
    pool: str
    strategy: StrategyOptions
    policy: common_pb2.PolicySpec
    batch_size: int
    exploration: float
    fill_random: bool
    seed: int
    problem: Problem | None = None


class Origin(Enum):
    """Where a pick came from."""

    CANDIDATE = "candidate"
    EXPLORATION = "exploration"
    FILL = "fill"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pick:
    """An item of the batch. `score` is 0 for what was drawn at random."""

    id: ItemId
    score: float
    origin: Origin


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The batch of a round. `info.added` and `.removed` count what the learner took over in this round."""

    picks: list[Pick]
    info: common_pb2.CandidatePoolInfo
    expand_seconds: float
    score_seconds: float
    pool_version: int
    strategy: str
    strategy_reason: str


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
    ) -> None:
        self._index = index
        self._checkpoints = checkpoints
        self._campaigns = campaigns
        self._expander = expander
        self._chooser = chooser
        self._device = device
        self._metrics = metrics
        self._batch_rows = batch_rows
        self._clock = clock
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
        _check_growth(order)
        pool = self._pool(order, model)
        # Its own name from here on: an alias may be given to another pool while we work.
        order = replace(order, pool=pool.spec.name)
        if not pool.size:
            raise FailedPrecondition(f"pool {order.pool!r} is empty", field="header.pool")
        with self._turns.turn(order.campaign, cancelled):
            started = self._clock()
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
            picks, preview_s = self._pick_from_what_is_there(order, labelled, held, update, model, chosen, cancelled)
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
                return self._pick(order, labelled, source, lens, chosen, cancelled)
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

    def _pick(
        self,
        order: SelectOrder,
        labelled: LabelledSet,
        source: CandidateSource,
        lens: Lens,
        chosen: Chosen,
        cancelled: CancelCheck,
    ) -> tuple[list[Pick], float]:
        """Draw the exploration share, take the best candidates, fill up; also return the seconds of previews.

        Where too little lies outside the candidate pool to explore, candidates take the places.
        """
        share = math.floor(order.exploration * order.batch_size + 0.5)
        explored = self._draw(order, share, _EXPLORATION, labelled, [])
        barred = {*labelled.excluded, *labelled.expands, *explored}
        count = order.batch_size - len(explored)
        best, preview_s = self._choose(order, source, lens, chosen, count, barred, cancelled)
        picks = [Pick(id=item.id, score=item.score, origin=Origin.CANDIDATE) for item in best]
        picks += [Pick(id=item_id, score=0.0, origin=Origin.EXPLORATION) for item_id in explored]
        short = order.batch_size - len(picks) if order.fill_random else 0
        filled = self._draw(order, short, _FILL, labelled, [pick.id for pick in picks])
        return picks + [Pick(id=item_id, score=0.0, origin=Origin.FILL) for item_id in filled], preview_s

    def _choose(
        self,
        order: SelectOrder,
        source: CandidateSource,
        lens: Lens,
        chosen: Chosen,
        count: int,
        barred: set[ItemId],
        cancelled: CancelCheck,
    ) -> tuple[list[ScoredItem], float]:
        strategy = chosen.strategy
        if isinstance(strategy, BatchStrategy):
            picker = BatchPicker(lens=lens, strategy=strategy, batch_rows=self._batch_rows)
            return picker.pick(source, count=count, barred=source.candidates.slots_of(barred), cancelled=cancelled), 0.0
        scorer = Scorer(lens=lens, strategy=strategy, batch_rows=self._batch_rows)
        if order.policy.growth != common_pb2.CANDIDATE_GROWTH_PICK:
            return scorer.pick(source, count=count, barred=source.candidates.slots_of(barred), cancelled=cancelled), 0.0

        def preview(item_id: ItemId) -> CandidateUpdate:
            update = self._index.expand_candidates(
                order.pool,
                order.campaign,
                [item_id],
                policy=order.policy,
                held_version=source.candidates.version,
                payloads=source.candidates.with_texts,
                preview=True,
            )
            if lens.reads_text:
                require_texts(update.added.ids, [payload.text for payload in update.added.payloads or ()])
            return update

        grown = pick_growing(
            source, scorer, preview, count=count, barred=barred, cancelled=cancelled, clock=self._clock
        )
        return grown.items, grown.preview_seconds

    def _draw(
        self, order: SelectOrder, count: int, purpose: int, labelled: LabelledSet, picked: Sequence[ItemId]
    ) -> list[ItemId]:
        if count <= 0:
            return []
        return self._index.sample_items(
            order.pool,
            count,
            seed=derived_seed(order.seed, purpose),
            campaign=order.campaign,
            exclude=sorted({*labelled.excluded, *picked}),
        )


def _check_growth(order: SelectOrder) -> None:
    entry = strategy_entry(order.strategy.name)
    if order.policy.growth == common_pb2.CANDIDATE_GROWTH_PICK and not entry.per_item:
        problem = f"{entry.name} picks a batch as a whole; growth after each pick needs a score for each item"
        raise InvalidArgument("header.policy.growth", problem)


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
