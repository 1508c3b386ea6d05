"""BADGE."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learner.options import StrategyOptions
from learner.ports import Batch, CandidateView, ScoringContext
from learner.problem import Problem
from sealpool.vocabulary.strategies import Need

PROPOSED_TOGETHER = 64
_CHUNK_ROWS = 1 << 14
_ROUNDING = 1e-6  # of the squared lengths: distances below it are rounding, and count as 0


class Badge:
    """k-means++ on the gradient embeddings g(i) = (p − ŷ) ⊗ h of the last layer, ŷ the prediction as one-hot vector.

    The first pick has the longest g, as in the authors' code; each further one is drawn in proportion to D², the
    squared distance to the nearest pick. The score is D² when picked (for the first, the squared length). Multi-label:
    ŷ is 1 for each class with p > 1/2. Ash et al., Deep batch active learning by diverse, uncertain gradient lower
    bounds, ICLR 2020. Once all D² are 0, the first rows left are taken.

    g is never made: ⟨g, g'⟩ = ⟨p − ŷ, p' − ŷ'⟩ · ⟨h, h'⟩. Nor are all D² found anew for each pick: items are proposed
    in proportion to an older D², which can only have been larger, and taken with probability D² now / D² then, which
    is a draw in proportion to D² now (von Neumann's rejection). Only after 64 proposals of which most were refused is
    D² found anew, for all picks since as one matrix product.

    Cost: O(n·(c + h)·b), in few passes. Memory: O(n) numbers.
    """

    needs = frozenset({Need.MODEL})

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        pass

    def pick(self, view: CandidateView, count: int) -> Batch:
        """Return the picks and their squared distances to the picks before."""
        count = min(count, len(view))
        if count == 0:
            return Batch(rows=np.empty(0, np.int64), scores=np.empty(0))
        draw = _Draw(view)
        while len(draw.rows) < count and draw.total > 0:
            if draw.propose(count) * 2 < PROPOSED_TOGETHER and len(draw.rows) < count:
                draw.renew()
        left = np.setdiff1d(np.arange(len(view)), draw.rows)[: count - len(draw.rows)]
        rows = np.concatenate([np.array(draw.rows, np.int64), left])
        return Batch(rows=rows, scores=np.array(draw.scores + [0.0] * len(left)))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Gradients:
    """Factors of gradient embeddings: `errors` (r, c) and `features` (r, h)."""

    errors: torch.Tensor
    features: torch.Tensor

    def squared_lengths(self) -> torch.Tensor:
        return self.errors.square().sum(dim=1) * self.features.square().sum(dim=1)

    def squared_distances(self, others: "_Gradients") -> torch.Tensor:
        """Return (r, o), what is rounding made 0."""
        lengths = self.squared_lengths()[:, None] + others.squared_lengths()
        products = (self.errors @ others.errors.T).mul_(self.features @ others.features.T)
        distances = lengths - 2 * products
        return torch.where(distances > _ROUNDING * lengths, distances, torch.zeros_like(distances))

    def to(self, dtype: torch.dtype) -> "_Gradients":
        return _Gradients(errors=self.errors.to(dtype), features=self.features.to(dtype))

    def part(self, places: slice | list[int]) -> "_Gradients":
        return _Gradients(errors=self.errors[places], features=self.features[places])


def _gradients(context: ScoringContext) -> _Gradients:
    p = context.probabilities
    if context.problem.multilabel:
        return _Gradients(errors=p - (p > 0.5).to(p.dtype), features=context.features)
    predicted = torch.nn.functional.one_hot(p.argmax(dim=1), p.shape[1])
    return _Gradients(errors=p - predicted.to(p.dtype), features=context.features)


class _Draw:
    """The draw so far. `bounds` (n,) are squared distances as they were or could have been; 0 for what is picked."""

    def __init__(self, view: CandidateView) -> None:
        self._view = view
        self._random = np.random.default_rng(view.seed)
        self._bounds = np.empty(len(view))
        for rows, context in view.blocks():
            self._bounds[rows] = _gradients(context).squared_lengths().cpu().numpy()
        first = int(np.argmax(self._bounds))
        self.rows, self.scores = [first], [float(self._bounds[first])]
        self._picked = self._of(np.array([first]))
        self._renewed = 0
        self.renew()

    def _of(self, rows: NDArray[np.int64]) -> _Gradients:
        return _gradients(self._view.at(rows)).to(torch.float64)

    def renew(self) -> None:
        """Find the squared distances of all."""
        recent = self._picked.part(slice(self._renewed, None)).to(torch.float32)
        for rows, context in self._view.blocks():
            gradients = _gradients(context)
            step = max(1, min(_CHUNK_ROWS, (1 << 22) // len(recent.errors)))
            for start in range(0, len(gradients.errors), step):
                some = gradients.part(slice(start, start + step))
                nearest = some.squared_distances(recent).amin(dim=1).cpu().numpy()
                place = slice(rows.start + start, rows.start + start + len(nearest))
                old = self._bounds[place]
                self._bounds[place] = nearest if self._renewed == 0 else np.minimum(old, nearest)
        self._bounds[self.rows] = 0
        self._renewed = len(self.rows)
        self._ends = self._bounds.cumsum()

    @property
    def total(self) -> float:
        return float(self._ends[-1])

    def propose(self, count: int) -> int:
        """Propose some items, take those that stand, up to `count` picks in all, and return how many were taken."""
        draws = self._random.random((2, PROPOSED_TOGETHER))
        proposed = np.searchsorted(self._ends, draws[0] * self.total, side="right")
        proposed = np.minimum(proposed, np.flatnonzero(self._bounds)[-1])
        gradients = self._of(proposed)
        recent = self._picked.part(slice(self._renewed, None))
        now = self._bounds[proposed]
        if len(recent.errors):
            now = np.minimum(now, gradients.squared_distances(recent).amin(dim=1).cpu().numpy())
        between = gradients.squared_distances(gradients).cpu().numpy()
        taken = []
        for place, row in enumerate(proposed):
            if len(self.rows) < count and row not in self.rows and draws[1, place] * self._bounds[row] < now[place]:
                taken.append(place)
                self.rows.append(int(row))
                self.scores.append(float(now[place]))
                now = np.minimum(now, between[place])
        self._picked = _joined(self._picked, gradients.part(taken))
        return len(taken)


def _joined(first: _Gradients, second: _Gradients) -> _Gradients:
    return _Gradients(
        errors=torch.cat([first.errors, second.errors]), features=torch.cat([first.features, second.features])
    )
