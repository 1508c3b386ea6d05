"""Score the candidates of a campaign and find the best."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from learner.candidate_view import View, block_of
from learner.candidates import Candidates, Slot
from learner.contexts import Lens
from learner.draws import Keys, draws_of
from learner.ports import BatchStrategy, CancelCheck, ScoringStrategy
from learner.selection import Scores, best, finalists, round_scores
from learner.sources import CandidateSource
from sealpool.errors import Cancelled, FailedPrecondition
from sealpool.types import ItemId


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredItem:
    """An item, how much it is worth a label, and the draw that orders equal scores."""

    id: ItemId
    score: float
    draw: int

    @property
    def rank(self) -> tuple[float, int, ItemId]:
        """What items are sorted by, best first."""
        return -self.score, self.draw, self.id


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """A strategy that scores item by item, over a model's view of candidates.

    Parameters
    ----------
    batch_rows
        Candidates scored at once.
    """

    lens: Lens
    strategy: ScoringStrategy
    batch_rows: int

    @torch.inference_mode()
    def pick(
        self, source: CandidateSource, *, count: int, barred: NDArray[np.int64], cancelled: CancelCheck
    ) -> list[ScoredItem]:
        """Return the best `count` candidates but those in the slots `barred`, best first.

        The picks are a function of the items, the model and the seed, not of the order in the cache or of batch_rows:
        all are scored in float32, who may be among the best is scored once more in float64, rounded well above its
        noise, and ties go by a draw from seed and id. What a model made of a text is scored once: it has float32 alone.
        """
        candidates = source.candidates
        source.mirror.sync(candidates)
        scores = np.empty(len(candidates))
        for start, stop in self._batches(len(candidates), cancelled):
            scores[start:stop] = self._score(source, slice(start, stop), partial(source.span, start, stop))
        scores[barred] = -np.inf
        few = finalists(scores, count)
        exact = round_scores(scores[few]) if self.lens.reads_text else self._exact(source, few, cancelled)
        draws = draws_of(candidates.keys[few], self.lens.seed)
        return _items(candidates, few, exact, draws, best(exact, draws, count))

    @torch.inference_mode()
    def rate(self, source: CandidateSource, slots: NDArray[np.int64], *, cancelled: CancelCheck) -> list[ScoredItem]:
        """Return the candidates in `slots` (n,), in that order, with the scores and draws that `pick` compares."""
        candidates = source.candidates
        exact, draws = self._exact(source, slots, cancelled), draws_of(candidates.keys[slots], self.lens.seed)
        return _items(candidates, slots, exact, draws, np.arange(len(slots)))

    def _exact(self, source: CandidateSource, slots: NDArray[np.int64], cancelled: CancelCheck) -> Scores:
        exact = np.empty(len(slots))
        for start, stop in self._batches(len(slots), cancelled):
            some = slots[start:stop]
            exact[start:stop] = self._score(source, some, partial(self._in_float64, source, some))
        return round_scores(exact)

    def _in_float64(self, source: CandidateSource, slots: NDArray[np.int64]) -> torch.Tensor:
        return source.take(slots).to(torch.float32 if self.lens.reads_text else torch.float64)

    def _batches(self, size: int, cancelled: CancelCheck) -> Iterator[tuple[int, int]]:
        rows = min(self.batch_rows, TEXT_ROWS) if self.lens.reads_text else self.batch_rows
        for start in range(0, size, rows):
            if cancelled():
                raise Cancelled("the caller left while candidates were scored")
            yield start, min(start + rows, size)

    def _score(
        self, source: CandidateSource, slots: slice | NDArray[np.int64], vectors: Callable[[], torch.Tensor]
    ) -> Scores:
        scores: Scores = self.strategy.score(block_of(self.lens, source, slots, vectors)).cpu().numpy()
        if not np.isfinite(scores).all():
            raise FailedPrecondition("scoring overflows on these vectors: scale them to lengths near 1")
        return scores


TEXT_ROWS = 512
"""Texts predicted at once, at most: a caller who leaves is noticed between two such blocks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchPicker:
    """A strategy that picks a batch as a whole, over a model's view of candidates. Parameters as for Scorer."""

    lens: Lens
    strategy: BatchStrategy
    batch_rows: int

    @torch.inference_mode()
    def pick(
        self, source: CandidateSource, *, count: int, barred: NDArray[np.int64], cancelled: CancelCheck
    ) -> list[ScoredItem]:
        """Return `count` candidates, or all there are, but those in the slots `barred`, in the order picked."""
        candidates = source.candidates
        source.mirror.sync(candidates)
        allowed = np.ones(len(candidates), np.bool_)
        allowed[barred] = False
        slots = np.flatnonzero(allowed)
        if count <= 0 or not len(slots):
            return []
        rows = min(self.batch_rows, TEXT_ROWS) if self.lens.reads_text else self.batch_rows
        view = View(self.lens, source, slots, block_rows=rows, cancelled=cancelled)
        batch = self.strategy.pick(view, count)
        if not np.isfinite(batch.scores).all():
            raise FailedPrecondition("scoring overflows on these vectors: scale them to lengths near 1")
        picked = view.slots[batch.rows]
        draws = draws_of(candidates.keys[picked], self.lens.seed)
        return _items(candidates, picked, batch.scores, draws, np.arange(len(picked)))


def _items(
    candidates: Candidates, slots: NDArray[np.int64], scores: Scores, draws: Keys, places: NDArray[np.int64]
) -> list[ScoredItem]:
    return [
        ScoredItem(id=candidates.id_at(Slot(slots[place])), score=float(scores[place]), draw=int(draws[place]))
        for place in places
    ]
