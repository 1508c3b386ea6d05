"""Score the candidates of a campaign and find the best."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray

from learner.candidates import Candidates, Slot
from learner.device import Mirror
from learner.draws import Keys, draws_of
from learner.ports import CancelCheck, Classifier, QueryStrategy
from learner.problem import Problem
from learner.selection import Scores, best, finalists, round_scores
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
    """A strategy over a model's view of candidates.

    Parameters
    ----------
    direction
        (d,), where the strategy needs one.
    batch_rows
        Candidates scored at once.
    """

    problem: Problem
    classifier: Classifier
    strategy: QueryStrategy
    direction: NDArray[np.float32] | NDArray[np.float64] | None
    device: torch.device
    batch_rows: int
    seed: int

    @torch.inference_mode()
    def pick(
        self,
        candidates: Candidates,
        mirror: Mirror,
        *,
        count: int,
        barred: NDArray[np.int64],
        cancelled: CancelCheck,
    ) -> list[ScoredItem]:
        """Return the best `count` candidates but those in the slots `barred`, best first.

        The picks are a function of the items, the model and the seed, not of the order in the cache or of batch_rows:
        all are scored in float32, who may be among the best is scored once more in float64, rounded well above its
        noise, and ties go by a draw from seed and id.
        """
        mirror.sync(candidates)
        scores = np.empty(len(candidates))
        for start, stop in self._batches(len(candidates), cancelled):
            rows = slice(start, stop)
            scores[rows] = self._score(candidates, rows, partial(mirror.rows, candidates, start, stop))
        scores[barred] = -np.inf
        few = finalists(scores, count)
        exact, draws = self._exact(candidates, few, cancelled), draws_of(candidates.keys[few], self.seed)
        return _items(candidates, few, exact, draws, best(exact, draws, count))

    @torch.inference_mode()
    def rate(self, candidates: Candidates, slots: NDArray[np.int64], *, cancelled: CancelCheck) -> list[ScoredItem]:
        """Return the candidates in `slots` (n,), in that order, with the scores and draws that `pick` compares."""
        exact, draws = self._exact(candidates, slots, cancelled), draws_of(candidates.keys[slots], self.seed)
        return _items(candidates, slots, exact, draws, np.arange(len(slots)))

    def _exact(self, candidates: Candidates, slots: NDArray[np.int64], cancelled: CancelCheck) -> Scores:
        exact = np.empty(len(slots))
        for start, stop in self._batches(len(slots), cancelled):
            some = slots[start:stop]
            exact[start:stop] = self._score(candidates, some, partial(self._in_float64, candidates, some))
        return round_scores(exact)

    def _batches(self, size: int, cancelled: CancelCheck) -> Iterator[tuple[int, int]]:
        for start in range(0, size, self.batch_rows):
            if cancelled():
                raise Cancelled("the caller left while candidates were scored")
            yield start, min(start + self.batch_rows, size)

    def _in_float64(self, candidates: Candidates, slots: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(candidates.vectors[slots]).to(self.device, torch.float64)

    def _score(
        self, candidates: Candidates, rows: slice | NDArray[np.int64], vectors: Callable[[], torch.Tensor]
    ) -> Scores:
        scores: Scores = self.strategy.score(_Batch(self, candidates, rows, vectors)).cpu().numpy()
        if not np.isfinite(scores).all():
            raise FailedPrecondition("scoring overflows on these vectors: scale them to lengths near 1")
        return scores


def _items(
    candidates: Candidates, slots: NDArray[np.int64], scores: Scores, draws: Keys, places: NDArray[np.int64]
) -> list[ScoredItem]:
    return [
        ScoredItem(id=candidates.id_at(Slot(slots[place])), score=float(scores[place]), draw=int(draws[place]))
        for place in places
    ]


class _Batch:
    """A ScoringContext of the candidates in `rows`."""

    def __init__(
        self,
        scorer: Scorer,
        candidates: Candidates,
        rows: slice | NDArray[np.int64],
        vectors: Callable[[], torch.Tensor],
    ) -> None:
        self.problem = scorer.problem
        self._scorer = scorer
        self._candidates = candidates
        self._rows = rows
        self._vectors = vectors

    @cached_property
    def vectors(self) -> torch.Tensor:
        return self._vectors()

    @cached_property
    def probabilities(self) -> torch.Tensor:
        return self._scorer.classifier.predict_proba(self.vectors)

    @cached_property
    def inverse_lengths(self) -> torch.Tensor:
        return torch.from_numpy(self._candidates.inverse_lengths[self._rows]).to(self.vectors)

    @cached_property
    def direction(self) -> torch.Tensor | None:
        direction = self._scorer.direction
        return None if direction is None else torch.from_numpy(direction).to(self.vectors)

    @cached_property
    def draws(self) -> torch.Tensor:
        draws: Keys = draws_of(self._candidates.keys[self._rows], self._scorer.seed) >> np.uint64(11)
        return torch.from_numpy(draws.astype(np.float64) * 2.0**-53).to(self._scorer.device)
