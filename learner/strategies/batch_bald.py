"""BatchBALD."""

import numpy as np
import torch
from numpy.typing import NDArray

from learner.options import StrategyOptions
from learner.ports import Batch, CandidateView
from learner.problem import Problem
from learner.strategies.joint_entropy import JointEntropy, label_information
from sealpool.vocabulary.strategies import Need

_HELD_NUMBERS = 1 << 24  # float32: 64 MB of posterior samples' probabilities
_CHUNK_NUMBERS = 1 << 20
_LOOKED_AT_TOGETHER = 1024
_EVALUATED_TOGETHER = 16
_EQUAL = 1e-10  # nats: below it gains differ by rounding, and the first row wins
_SAMPLED_SLACK = 0.05  # of the best gain


class BatchBald:
    """φ(Y) = H(Y) − Σ_i E_k[H(y_i | k)], the mutual information of a batch's labels and the model, picked greedily.

    The score of a pick is what it added to φ, in nats, so scores sum to the batch's φ. H(Y) is exact while the picked
    items have at most 10,000 joint labellings (the first 5 picks for 10 classes, 14 for 2; more where labellings tell
    the samples apart fully, since those add nothing); after that it is estimated from 2,000 drawn by the view's seed.
    Kirsch, van Amersfoort and Gal, BatchBALD, NeurIPS 2019.

    φ is submodular: what an item adds can only fall as the batch grows, so what it added when last looked at bounds
    what it adds now, and only items whose bound reaches the best gain found are looked at again. The picks are those of
    looking at all. Sampling makes the bound one in expectation; items within 5 % of the best are then looked at too.

    Cost: O(n·K·c), then O(K·c·configurations) for each item looked at. Memory: O(n) numbers, the samples'
    probabilities of the most informative items up to 64 MB, and some configurations × K float64.
    """

    needs = frozenset({Need.MODEL, Need.SAMPLES})

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        pass

    def pick(self, view: CandidateView, count: int) -> Batch:
        """Return the picks and what each added, in nats."""
        count = min(count, len(view))
        if count == 0:
            return Batch(rows=np.empty(0, np.int64), scores=np.empty(0))
        held = _HeldSamples(view)
        joint = JointEntropy(held.samples, seed=view.seed, device=view.device)
        gains, picked = held.gains, np.empty(count, np.int64)
        scores = np.empty(count)
        for place in range(count):
            row = self._best(held, joint, gains, fresh=place == 0)
            picked[place], scores[place] = row, gains[row]
            gains[row] = -np.inf
            if place + 1 < count:
                joint.add(held.of(np.array([row]))[:, 0])
        return Batch(rows=picked, scores=scores)

    @staticmethod
    def _best(held: "_HeldSamples", joint: JointEntropy, gains: NDArray[np.float64], *, fresh: bool) -> int:
        """Return the row that adds most; `gains` (n,) are upper bounds before and after, and exact for that row."""
        if fresh:
            return int(np.argmax(gains >= gains.max() - _EQUAL))
        look = _Look(held, joint, gains)
        while len(rows := look.promising()):
            look.at(np.sort(rows[np.argsort(-gains[rows], kind="stable")[:_LOOKED_AT_TOGETHER]]))
        return look.best_row()


class _Look:
    """One pick's look at the items that could be the best: bounds first, then what they add."""

    def __init__(self, held: "_HeldSamples", joint: JointEntropy, gains: NDArray[np.float64]) -> None:
        self._held, self._joint, self._gains = held, joint, gains
        self._known = np.zeros(len(gains), np.bool_)
        self._stale = np.isfinite(gains)
        self._slack = 0.0 if joint.exact else _SAMPLED_SLACK
        self._best = 0.0

    def promising(self) -> NDArray[np.int64]:
        return np.flatnonzero(self._stale & (self._gains >= self._best * (1 - self._slack) - _EQUAL))

    def best_row(self) -> int:
        return int(np.argmax(self._known & (self._gains >= self._best - _EQUAL)))

    def at(self, rows: NDArray[np.int64]) -> None:
        samples = self._held.of(rows)
        places = np.arange(len(rows))
        for likeliest in (1, 2):
            bounds = self._joint.bounds(_some(samples, places), likeliest).cpu().numpy()
            self._gains[rows[places]] = bounds
            places = places[np.argsort(-bounds, kind="stable")]
            places = self._evaluate(samples, rows, places[:_EVALUATED_TOGETHER], places[_EVALUATED_TOGETHER:])
        while len(places):
            places = self._evaluate(samples, rows, places[:_EVALUATED_TOGETHER], places[_EVALUATED_TOGETHER:])
        self._stale[rows] = False

    def _evaluate(
        self, samples: torch.Tensor, rows: NDArray[np.int64], some: NDArray[np.int64], others: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Find what the `rows` at places `some` add, and return which of the `others` could still be the best."""
        if len(some):
            self._held.check()
            found = self._joint.gains(_some(samples, some)).cpu().numpy()
            self._gains[rows[some]], self._known[rows[some]] = found, True
            self._best = max(self._best, float(found.max()))
        return others[self._gains[rows[others]] >= self._best - _EQUAL]


def _some(samples: torch.Tensor, places: NDArray[np.int64]) -> torch.Tensor:
    return samples[:, torch.from_numpy(places).to(samples.device)]


class _HeldSamples:
    """Posterior samples of the candidates: all of them, or the most informative and the others when asked for."""

    def __init__(self, view: CandidateView) -> None:
        self._view = view
        self.gains = np.empty(len(view))
        self.samples = self.classes = 0
        pieces = []
        for rows, context in view.blocks():
            samples = context.samples
            self.samples, _, self.classes = samples.shape
            self.gains[rows] = label_information(samples).cpu().numpy()
            if len(view) <= self._most:
                pieces.append(samples)
        self._places = np.full(len(view), -1, np.int64)
        self._hold(pieces)

    @property
    def _most(self) -> int:
        return _HELD_NUMBERS // (self.samples * self.classes)

    def _hold(self, pieces: list[torch.Tensor]) -> None:
        if pieces:
            rows = np.arange(len(self._view))
        else:
            rows = np.sort(np.argsort(-self.gains, kind="stable")[: self._most])
            step = max(1, _CHUNK_NUMBERS // (self.samples * self.classes))
            pieces = [self._view.at(rows[start : start + step]).samples for start in range(0, len(rows), step)]
        self._held = torch.cat(pieces, dim=1) if pieces else None
        self._places[rows] = np.arange(len(rows))

    def of(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Return the probabilities (K, r, c) of some rows. Raises Cancelled when the caller has left."""
        places = self._places[rows]
        if self._held is None or (places < 0).any():
            return self._view.at(rows).samples
        self.check()
        return _some(self._held, places)

    def check(self) -> None:
        """Raise Cancelled when the caller has left."""
        self._view.at(np.empty(0, np.int64))
