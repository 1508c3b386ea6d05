"""Select: bring the candidates up to date, score them, and pick the batch of a round."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import torch
from numpy.typing import NDArray

from learner.candidates import Candidates
from learner.checkpoints import Checkpoint, CheckpointStore
from learner.draws import derived_seed
from learner.expansion import Expander, HeldCampaign, HeldCampaigns, LabelledSet
from learner.growing import pick_growing
from learner.metrics import LearnerMetrics
from learner.pools import check_dimension, usable_pool
from learner.ports import CancelCheck, CandidateUpdate, DensityOver, Index, QueryStrategy, StrategyOptions
from learner.scoring import ScoredItem, Scorer
from learner.strategies import make_strategy
from learner.waiting import KeyedLocks
from sealpool import failpoint
from sealpool.errors import FailedPrecondition
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, index_pb2

_EXPLORATION, _FILL = 1, 2  # purposes of seeds


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectOrder:
    """The header of Select, checked. `policy` goes to the index server as it is; it says when candidates grow."""

    campaign: str
    round: int
    pool: str
    strategy: StrategyOptions
    policy: common_pb2.PolicySpec
    batch_size: int
    exploration: float
    fill_random: bool
    seed: int


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
        device: torch.device,
        metrics: LearnerMetrics,
        batch_rows: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._index = index
        self._checkpoints = checkpoints
        self._campaigns = campaigns
        self._expander = expander
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
        checkpoint = self._checkpoints.load(order.campaign, order.round)
        pool = self._pool(order, checkpoint)
        # Its own name from here on: an alias may be given to another pool while we work.
        order = replace(order, pool=pool.spec.name)
        strategy = make_strategy(order.strategy, checkpoint.info.problem)
        check_dimension("header.pool", pool, checkpoint)
        if not pool.size:
            raise FailedPrecondition(f"pool {order.pool!r} is empty", field="header.pool")
        with self._turns.turn(order.campaign, cancelled):
            held = self._campaigns.get(pool, order.campaign)
            started = self._clock()
            update = self._expander.expand(
                held,
                labelled,
                pool=order.pool,
                campaign=order.campaign,
                round_number=order.round,
                policy=order.policy,
            )
            expanded = self._clock()
            failpoint.reach("learner.select.after_expand")
            scorer = Scorer(
                problem=checkpoint.info.problem,
                classifier=checkpoint.classifier,
                strategy=strategy,
                direction=_direction(strategy, held.candidates, update),
                device=self._device,
                batch_rows=self._batch_rows,
                seed=order.seed,
            )
            picks, preview_s = self._pick(order, labelled, held, scorer, cancelled)
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
        )

    def _pool(self, order: SelectOrder, checkpoint: Checkpoint) -> index_pb2.Pool:
        """Return the pool to pick from: the one named, or that an alias stands for.

        Where an alias was given to another pool since the round's model was trained, it is the pool of the model, so
        that the round ends where it began: the new pool's vectors may mean something else.
        """
        pool, trained_on = usable_pool(self._index, order.pool), checkpoint.info.pool
        if pool.spec.name in (order.pool, trained_on) or trained_on == order.pool:
            return pool
        return usable_pool(self._index, trained_on)

    def _pick(
        self, order: SelectOrder, labelled: LabelledSet, held: HeldCampaign, scorer: Scorer, cancelled: CancelCheck
    ) -> tuple[list[Pick], float]:
        """Draw the exploration share, take the best candidates, fill up; also return the seconds of previews.

        Where too little lies outside the candidate pool to explore, candidates take the places.
        """
        share = math.floor(order.exploration * order.batch_size + 0.5)
        explored = self._draw(order, share, _EXPLORATION, labelled, [])
        barred = {*labelled.excluded, *labelled.expands, *explored}
        count = order.batch_size - len(explored)
        chosen, preview_s = self._choose(order, held, scorer, count, barred, cancelled)
        picks = [Pick(id=item.id, score=item.score, origin=Origin.CANDIDATE) for item in chosen]
        picks += [Pick(id=item_id, score=0.0, origin=Origin.EXPLORATION) for item_id in explored]
        short = order.batch_size - len(picks) if order.fill_random else 0
        filled = self._draw(order, short, _FILL, labelled, [pick.id for pick in picks])
        return picks + [Pick(id=item_id, score=0.0, origin=Origin.FILL) for item_id in filled], preview_s

    def _choose(
        self,
        order: SelectOrder,
        held: HeldCampaign,
        scorer: Scorer,
        count: int,
        barred: set[ItemId],
        cancelled: CancelCheck,
    ) -> tuple[list[ScoredItem], float]:
        if order.policy.growth != common_pb2.CANDIDATE_GROWTH_PICK:
            slots = held.candidates.slots_of(barred)
            return scorer.pick(held.candidates, held.mirror, count=count, barred=slots, cancelled=cancelled), 0.0

        def preview(item_id: ItemId) -> CandidateUpdate:
            return self._index.expand_candidates(
                order.pool,
                order.campaign,
                [item_id],
                policy=order.policy,
                held_version=held.candidates.version,
                preview=True,
            )

        grown = pick_growing(held, scorer, preview, count=count, barred=barred, cancelled=cancelled, clock=self._clock)
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


def _direction(
    strategy: QueryStrategy, candidates: Candidates, update: CandidateUpdate
) -> NDArray[np.float32] | NDArray[np.float64] | None:
    match strategy.density_over:
        case None:
            return None
        case DensityOver.CANDIDATES:
            return candidates.direction
        case DensityOver.POOL:
            return update.pool_direction
