"""Score the candidates of a campaign and find the best."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learner.candidates import Candidates, Slot
from learner.device import Mirror
from learner.draws import draws_of
from learner.ports import CancelCheck, Classifier, QueryStrategy, ScoringContext
from learner.problem import Problem
from learner.selection import Scores, best, finalists, round_scores
from sealpool.errors import Cancelled, FailedPrecondition
from sealpool.types import ItemId


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredItem:
    """An item and how much it is worth a label."""

    id: ItemId
    score: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """A strategy over a model's view of candidates.

    Parameters
    ----------
    direction
        (d,) float32, where the strategy needs one.
    batch_rows
        Candidates scored at once.
    """

    problem: Problem
    classifier: Classifier
    strategy: QueryStrategy
    direction: NDArray[np.float32] | None
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

        The picks are a function of the items, the model and the seed, not of the order in the cache: who may be among
        the best after rounding is scored once more, in the order of the ids' hashes; then scores are rounded, and
        ties go by a draw from seed and id.
        """
        mirror.sync(candidates)
        scores = np.empty(len(candidates))
        for start, stop in self._batches(len(candidates), cancelled):
            slots = np.arange(start, stop)
            scores[start:stop] = self._score(candidates, slots, mirror.rows(candidates, start, stop))
        scores[barred] = -np.inf
        few = finalists(scores, count)
        few = few[np.argsort(candidates.keys[few], kind="stable")]
        exact = np.empty(len(few))
        for start, stop in self._batches(len(few), cancelled):
            vectors = torch.from_numpy(candidates.vectors[few[start:stop]]).to(self.device)
            exact[start:stop] = self._score(candidates, few[start:stop], vectors)
        exact = round_scores(exact)
        chosen = best(exact, draws_of(candidates.keys[few], self.seed), count)
        return [ScoredItem(id=candidates.id_at(Slot(few[place])), score=float(exact[place])) for place in chosen]

    def _batches(self, size: int, cancelled: CancelCheck) -> Iterator[tuple[int, int]]:
        for start in range(0, size, self.batch_rows):
            if cancelled():
                raise Cancelled("the caller left while candidates were scored")
            yield start, min(start + self.batch_rows, size)

    def _score(self, candidates: Candidates, slots: NDArray[np.int64], vectors: torch.Tensor) -> Scores:
        draws = (draws_of(candidates.keys[slots], self.seed) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        context = ScoringContext(
            problem=self.problem,
            probabilities=self.classifier.predict_proba(vectors),
            vectors=vectors,
            inverse_lengths=torch.from_numpy(candidates.inverse_lengths[slots]).to(self.device),
            direction=None if self.direction is None else torch.from_numpy(self.direction).to(self.device),
            draws=torch.from_numpy(draws).to(self.device),
        )
        scores: Scores = self.strategy.score(context).cpu().numpy()
        if not np.isfinite(scores).all():
            raise FailedPrecondition("scoring overflows on these vectors: scale them to lengths near 1")
        return scores
