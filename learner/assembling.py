"""The batch of a round put together: the best candidates, items drawn to explore, and items drawn to fill up."""

import math
from collections.abc import Callable, Sequence

from learner.choosing import Chosen
from learner.contexts import Lens
from learner.draws import derived_seed
from learner.expansion import LabelledSet
from learner.growing import pick_growing
from learner.index_port import CandidateUpdate, Index
from learner.ports import BatchStrategy, CancelCheck
from learner.scoring import BatchPicker, ScoredItem, Scorer
from learner.select_order import Origin, Pick, SelectOrder
from learner.sources import CandidateSource
from learner.strategies import strategy_entry
from learner.vectors import require_texts
from sealpool.errors import InvalidArgument
from sealpool.types import ItemId
from sealpool.v1 import common_pb2

_EXPLORATION, _FILL = 1, 2  # purposes of seeds; selecting has a third


class BatchAssembler:
    """Puts batches together. Safe to share between threads.

    Parameters
    ----------
    batch_rows
        Candidates scored at once.
    """

    def __init__(self, index: Index, *, batch_rows: int, clock: Callable[[], float]) -> None:
        self._index = index
        self._batch_rows = batch_rows
        self._clock = clock

    def pick(
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


def check_growth(order: SelectOrder) -> None:
    """Raise InvalidArgument where the policy grows after each pick and the strategy picks none by itself."""
    entry = strategy_entry(order.strategy.name)
    if order.policy.growth == common_pb2.CANDIDATE_GROWTH_PICK and not entry.per_item:
        problem = f"{entry.name} picks a batch as a whole; growth after each pick needs a score for each item"
        raise InvalidArgument("header.policy.growth", problem)
