"""BAIT."""

import numpy as np
import torch

from learner.options import StrategyOptions
from learner.ports import Batch, CandidateView
from learner.problem import Problem
from learner.strategies.fisher import Projection, fisher_sum, projection_of
from sealpool.vocabulary.strategies import Need

_MOST_BYTES = 128 << 20
_CHUNK_ROWS = 1 << 12
_EQUAL = 1e-5  # of the best: gains nearer than that differ by float32's rounding, and the first row wins


class Bait:
    """Greedy descent of tr(M⁻¹ F): F the mean Fisher information of the candidates, M that of labelled and picked.

    I(i) = (diag(p) − p pᵀ) ⊗ h hᵀ is that of the last layer at item i, and M = λ1 + Σ I(i) over labelled items and
    picks, with λ the mean of F's diagonal, so that it does not depend on the scale of h. 2·count items are taken one by
    one, each the one that lowers tr(M⁻¹ F) most, and then count of them given back, each the one that raises it least.
    Ash et al., Gone fishing: neural active learning with Fisher embeddings, NeurIPS 2021. Picks are in the order taken;
    the score is by how much tr(M⁻¹ F) falls with the item when taken.

    It is computed in d·q ≤ 1,152 dimensions, d ≤ 128 principal axes of the features and q ≤ 9 contrasts of the classes
    (see `learner.strategies.fisher`; nothing is lost up to 10 classes and 128 features). By Woodbury's identity, with
    S = XᵀM⁻¹X, T = XᵀM⁻¹FM⁻¹X, X = 1 ⊗ h, A = diag(p) − p pᵀ, an item lowers it by tr((1 + AS)⁻¹ A T); S and T, q × q
    an item, follow each pick by rank q.

    Cost: O(n·d²·q²) once, then O(n·(d·q² + q³)) a pick, of 3·count. Memory: 4·(d + 3q²) bytes a candidate up to 128 MB;
    beyond it picks come from the first rows, a uniform draw of the candidates, and F is still of all.
    """

    needs = frozenset({Need.MODEL, Need.LABELLED})

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        pass

    def pick(self, view: CandidateView, count: int) -> Batch:
        """Return the picks and how far each lowered tr(M⁻¹ F)."""
        count = min(count, len(view))
        if count == 0:
            return Batch(rows=np.empty(0, np.int64), scores=np.empty(0))
        greedy = _Greedy(view, count)
        for _ in range(min(2 * count, len(greedy.candidates))):
            greedy.take()
        while len(greedy.rows) > count:
            greedy.give_back()
        return Batch(rows=np.array(greedy.rows, np.int64), scores=np.array(greedy.scores))


class _Candidates:
    """Some candidates' `features` (r, d) and `spreads` (r, q, q), float32."""

    def __init__(self, features: torch.Tensor, spreads: torch.Tensor) -> None:
        self.features, self.spreads = features, spreads

    def __len__(self) -> int:
        return len(self.features)

    def inner(self, matrix: torch.Tensor, view: CandidateView) -> torch.Tensor:
        """Return Xᵀ `matrix` X, (r, q, q), of a symmetric (q·d, q·d) matrix. Raises Cancelled as `view` does."""
        kept, count = self.spreads.shape[1], self.features.shape[1]
        blocks = matrix.to(torch.float32).view(kept, count, kept, count)
        found = torch.empty_like(self.spreads)
        for first in range(kept):
            for second in range(first, kept):
                view.at(np.empty(0, np.int64))
                for start in range(0, len(self), _CHUNK_ROWS):
                    h = self.features[start : start + _CHUNK_ROWS]
                    found[start : start + _CHUNK_ROWS, first, second] = (
                        (h @ blocks[first, :, second]).mul_(h).sum(dim=1)
                    )
                found[:, second, first] = found[:, first, second]
        return found

    def across(self, columns: torch.Tensor, some: slice) -> torch.Tensor:
        """Return Xᵀ `columns`, (r, q, q), of (q·d, q) columns."""
        kept, count = self.spreads.shape[1], self.features.shape[1]
        flat = columns.to(torch.float32).view(kept, count, kept).permute(1, 0, 2).reshape(count, kept * kept)
        return (self.features[some] @ flat).view(-1, kept, kept)


class _Greedy:
    """M and what each candidate would change; `rows` and `scores` of the picks so far."""

    def __init__(self, view: CandidateView, count: int) -> None:
        self._view = view
        projection = projection_of(view)
        self.candidates, self._fisher = _gather(view, projection, count)
        labelled = view.labelled
        self._prior = float(self._fisher.diagonal().mean()) or 1.0
        matrix = self._prior * torch.eye(len(self._fisher), dtype=torch.float64, device=view.device)
        if len(labelled):
            matrix += fisher_sum(projection.features(labelled.features), projection.spreads(labelled.probabilities))
        self._inverse = torch.linalg.inv(matrix)
        self._changed = self._inverse @ self._fisher @ self._inverse
        self._s, self._t = (self.candidates.inner(m, view) for m in (self._inverse, self._changed))
        self._gains = torch.empty(len(self.candidates), dtype=torch.float32, device=view.device)
        self._gains = torch.cat([self._gain(some) for some in self._slices()])
        self.rows: list[int] = []
        self.scores: list[float] = []

    def _slices(self) -> list[slice]:
        return [slice(start, start + _CHUNK_ROWS) for start in range(0, len(self.candidates), _CHUNK_ROWS)]

    def _gain(self, some: slice) -> torch.Tensor:
        a, s, t = self.candidates.spreads[some], self._s[some], self._t[some]
        identity = torch.eye(a.shape[1], device=a.device)
        lowered: torch.Tensor = torch.linalg.solve(identity + a @ s, a @ t)
        return lowered.diagonal(dim1=1, dim2=2).sum(dim=1)

    def _exact(self, row: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return X (q·d, q), A (q, q) and M⁻¹X, float64, of one candidate."""
        a = self.candidates.spreads[row].to(torch.float64)
        h = self.candidates.features[row].to(torch.float64)
        x = torch.kron(torch.eye(len(a), dtype=torch.float64, device=a.device), h[:, None])
        return x, a, self._inverse @ x

    def take(self) -> None:
        """Take the candidate that lowers the trace most."""
        gains = self._gains.cpu().numpy().copy()
        gains[self.rows] = -np.inf
        best = gains.max()
        row = int(np.argmax(gains >= best - _EQUAL * abs(best)))
        x, a, u = self._exact(row)
        w = self._changed @ x
        s, t = x.T @ u, x.T @ w
        middle = torch.linalg.solve(torch.eye(len(a), dtype=torch.float64, device=a.device) + a @ s, a)
        self.rows.append(row)
        self.scores.append(max(0.0, float((middle * t).sum())))
        self._inverse -= u @ middle @ u.T
        y = u @ middle
        half = w - 0.5 * y @ t
        self._changed -= y @ half.T + half @ y.T
        self._follow(u, middle, half)

    def _follow(self, u: torch.Tensor, middle: torch.Tensor, half: torch.Tensor) -> None:
        """Bring S, T and the gains up to date with M⁻¹ − U C Uᵀ."""
        gains = []
        self._view.at(np.empty(0, np.int64))  # raises where the caller has left
        for some in self._slices():
            across_u = self.candidates.across(u, some)
            y = across_u @ middle.to(torch.float32)
            product = y @ self.candidates.across(half, some).transpose(1, 2)
            self._s[some] -= y @ across_u.transpose(1, 2)
            self._t[some] -= product + product.transpose(1, 2)
            gains.append(self._gain(some))
        self._gains = torch.cat(gains)

    def give_back(self) -> None:
        """Give back the pick without which the trace rises least; the latest of equals."""
        self._view.at(np.empty(0, np.int64))
        risen = []
        for row in self.rows:
            x, a, u = self._exact(row)
            middle = torch.linalg.solve(torch.eye(len(a), dtype=torch.float64, device=a.device) - a @ (x.T @ u), a)
            risen.append((float((middle * (u.T @ self._fisher @ u)).sum()), middle, u))
        place = len(risen) - 1 - int(np.argmin(np.array([rise for rise, _, _ in risen])[::-1]))
        _, middle, u = risen[place]
        self._inverse += u @ middle @ u.T
        del self.rows[place], self.scores[place]


def _gather(view: CandidateView, projection: Projection, count: int) -> tuple[_Candidates, torch.Tensor]:
    """Return the candidates that may be picked and the mean Fisher information of all."""
    kept, width = projection.contrasts.shape[1], projection.axes.shape[1]
    most = max(2 * count, _MOST_BYTES // (4 * (width + 3 * kept * kept)))
    features, spreads = [], []
    total = torch.zeros(kept * width, kept * width, dtype=torch.float64, device=view.device)
    for rows, context in view.blocks():
        h, a = projection.features(context.features), projection.spreads(context.probabilities)
        total += fisher_sum(h, a)
        if rows.start < most:
            features.append(h[: most - rows.start])
            spreads.append(a[: most - rows.start])
    return _Candidates(torch.cat(features), torch.cat(spreads)), total / len(view)
