"""BAIT."""

import numpy as np
import torch

from learner.options import StrategyOptions
from learner.ports import Batch, CandidateView
from learner.problem import Problem
from learner.strategies.fisher import Projection, fisher_sum, projection_of, roots, trace_of_solved
from sealpool.vocabulary.strategies import Need

_MOST_CANDIDATES = 1 << 14
_LEAST_CANDIDATES_A_PICK = 4
_CHUNK_ROWS = 1 << 12
_RENEWED_EVERY = 32  # picks: float32 subtractions would add up
_EQUAL = 1e-5  # of the best: gains nearer than that differ by float32's rounding, and the first row wins


class Bait:
    """Greedy descent of tr(M⁻¹ F): F the mean Fisher information of the candidates, M that of labelled and picked.

    I(i) = (diag(p) − p pᵀ) ⊗ h hᵀ is that of the last layer at item i, and M = λ1 + Σ I(i) over labelled items and
    picks, with λ the mean of F's diagonal, so that it does not depend on the scale of h. 2·count items are taken one by
    one, each the one that lowers tr(M⁻¹ F) most, and then count of them given back, each the one that raises it least.
    Ash et al., Gone fishing: neural active learning with Fisher embeddings, NeurIPS 2021. Picks are in the order taken;
    the score is by how much tr(M⁻¹ F) falls with the item when taken.

    Where it departs: the paper lets M begin with the mean over labelled items, so that all of them together weigh as
    one pick does; here each weighs as one, as in the objective itself. It is computed in d·q ≤ 576 dimensions, d ≤ 128
    principal axes of the features and q ≤ 9 contrasts of the classes (see `learner.strategies.fisher`; nothing is lost
    up to 10 classes where (c − 1)·h ≤ 576). Of more than 16,384 candidates and 4·count, picks come from so many first
    rows, a uniform draw; F is of all.

    With diag(p) − p pᵀ = R Rᵀ and V = R ⊗ h, an item lowers the trace by tr((1 + S)⁻¹ T), S = VᵀM⁻¹V and
    T = VᵀM⁻¹FM⁻¹V (Woodbury); S and T, q × q an item, follow each pick by rank q. Cost: O(n·d²·q²) once, then
    O(d·q² + q³) a pick for each candidate looked at. Memory: 4·(d + 3q²) bytes of those, at most 22 MB up to 4,096
    picks, and some 70 MB of blocks while F is summed.
    """

    needs = frozenset({Need.MODEL, Need.LABELLED})

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        pass

    def pick(self, view: CandidateView, count: int) -> Batch:
        """Return the picks and how far each lowered tr(M⁻¹ F)."""
        count = min(count, len(view))
        if count == 0:
            return Batch(rows=np.empty(0, np.int64), scores=np.empty(0))
        projection = projection_of(view)
        candidates, fisher = _gather(view, projection, count)
        trace = _Trace(view, projection, fisher)
        candidates.renew(trace)
        rows, scores = _taken(candidates, trace, min(2 * count, len(candidates)))
        kept = _kept(candidates.part(rows), trace, count)
        return Batch(rows=rows[kept], scores=scores[kept])


class _Trace:
    """M⁻¹ and M⁻¹FM⁻¹, (q·d, q·d) float64."""

    def __init__(self, view: CandidateView, projection: Projection, fisher: torch.Tensor) -> None:
        self._view = view
        prior = float(fisher.diagonal().mean()) or 1.0
        matrix = prior * torch.eye(len(fisher), dtype=torch.float64, device=view.device)
        labelled = view.labelled
        if len(labelled):
            matrix += fisher_sum(projection.features(labelled.features), projection.spreads(labelled.probabilities))
        self.inverse = torch.linalg.inv(matrix)
        self.changed = self.inverse @ fisher @ self.inverse

    def still_wanted(self) -> None:
        """Raise Cancelled when the caller has left."""
        self._view.at(np.empty(0, np.int64))

    def add(self, factor: torch.Tensor, sign: float) -> tuple[float, torch.Tensor, torch.Tensor]:
        """Let M be M + sign · V Vᵀ, V the `factor` (q·d, q).

        Returns
        -------
        lowered
            By how much tr(M⁻¹ F) falls.
        first, second
            (q·d, q): M⁻¹ has become M⁻¹ − sign · `first` `first`ᵀ, and M⁻¹FM⁻¹ less `first` `second`ᵀ and its
            transpose.
        """
        solved, worth = self.inverse @ factor, self.changed @ factor
        identity = torch.eye(factor.shape[1], dtype=torch.float64, device=factor.device)
        lower = torch.linalg.cholesky(identity + sign * (factor.T @ solved))
        first = torch.linalg.solve_triangular(lower, solved.T, upper=False).T
        moved = torch.linalg.solve_triangular(lower, worth.T, upper=False).T
        inner = torch.linalg.solve_triangular(lower, factor.T @ moved, upper=False)
        second = sign * moved - 0.5 * first @ inner
        self.inverse -= sign * first @ first.T
        self.changed -= first @ second.T + second @ first.T
        return sign * float(inner.diagonal().sum()), first, second


class _Candidates:
    """Some candidates: `features` (r, d), `roots` R (q, q, r), and S and T (q, q, r)."""

    def __init__(self, features: torch.Tensor, factors: torch.Tensor) -> None:
        self._features, self._roots = features, factors
        self._s, self._t = torch.empty_like(factors), torch.empty_like(factors)

    def __len__(self) -> int:
        return len(self._features)

    def part(self, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> "_Candidates":
        """Return some of them in float64, without S and T."""
        places = torch.from_numpy(rows).to(self._features.device)
        return _Candidates(self._features[places].to(torch.float64), self._roots[:, :, places].to(torch.float64))

    def factor(self, row: int) -> torch.Tensor:
        """Return V (q·d, q) float64 of one of them."""
        return torch.kron(
            self._roots[:, :, row].to(torch.float64).contiguous(), self._features[row, :, None].to(torch.float64)
        )

    def renew(self, trace: _Trace) -> None:
        """Find S and T."""
        for some in self._chunks():
            trace.still_wanted()
            for matrix, found in ((trace.inverse, self._s), (trace.changed, self._t)):
                found[:, :, some] = self._inner(matrix.to(self._features.dtype), some)

    def follow(self, first: torch.Tensor, second: torch.Tensor, sign: float) -> None:
        """Bring S and T up to date with what `_Trace.add` returned."""
        kept, width = self._roots.shape[0], self._features.shape[1]
        flat = torch.cat([first, second], dim=1).to(self._features.dtype)
        flat = flat.view(kept, width, 2 * kept).permute(0, 2, 1).reshape(-1, width)
        for some in self._chunks():
            across = (flat @ self._features[some].T).view(kept, 2 * kept, -1)
            across = _product(self._roots[:, :, some].transpose(0, 1), across)
            one, other = across[:, :kept], across[:, kept:]
            for k in range(kept):
                self._s[:, :, some].addcmul_(one[:, None, k], one[None, :, k], value=-sign)
                self._t[:, :, some].addcmul_(one[:, None, k], other[None, :, k], value=-1)
                self._t[:, :, some].addcmul_(other[:, None, k], one[None, :, k], value=-1)

    def gains(self, sign: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return tr((1 + sign · S)⁻¹ T) of each."""
        found = [trace_of_solved(sign * self._s[:, :, some], self._t[:, :, some]) for some in self._chunks()]
        return torch.cat(found).to(torch.float64).cpu().numpy()

    def _inner(self, matrix: torch.Tensor, some: slice) -> torch.Tensor:
        """Return Vᵀ `matrix` V (q, q, r) of a symmetric matrix."""
        kept, width = self._roots.shape[0], self._features.shape[1]
        blocks, h = matrix.view(kept, width, kept, width), self._features[some]
        found = torch.empty(kept, kept, len(h), dtype=h.dtype, device=h.device)
        for a in range(kept):
            for b in range(a, kept):
                found[a, b] = found[b, a] = (h @ blocks[a, :, b]).mul_(h).sum(dim=1)
        factors = self._roots[:, :, some]
        return _product(factors.transpose(0, 1), _product(found, factors))

    def _chunks(self) -> list[slice]:
        return [slice(start, start + _CHUNK_ROWS) for start in range(0, len(self), _CHUNK_ROWS)]


def _product(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the products (a, c, r) of matrices (a, b, r) and (b, c, r): items last, a third of the time of bmm."""
    found = first[:, None, 0] * second[None, 0]
    for k in range(1, first.shape[1]):
        found.addcmul_(first[:, None, k], second[None, k])
    return found


def _taken(
    candidates: _Candidates, trace: _Trace, count: int
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Return `count` rows, each the one that lowers the trace most, and by how much."""
    rows, scores = np.empty(count, np.int64), np.empty(count)
    for place in range(count):
        trace.still_wanted()
        gains = candidates.gains(1.0)
        gains[rows[:place]] = -np.inf
        best = gains.max()
        row = int(np.argmax(gains >= best - _EQUAL * abs(best)))
        rows[place] = row
        lowered, first, second = trace.add(candidates.factor(row), 1.0)
        scores[place] = max(0.0, lowered)
        if (place + 1) % _RENEWED_EVERY:
            candidates.follow(first, second, 1.0)
        else:
            candidates.renew(trace)
    return rows, scores


def _kept(picks: _Candidates, trace: _Trace, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the places (count,) of those left when the others have been given back, the latest of equals first."""
    picks.renew(trace)
    left = np.arange(len(picks))
    while len(left) > count:
        trace.still_wanted()
        risen = picks.gains(-1.0)[left]
        place = len(left) - 1 - int(np.argmin(risen[::-1]))
        _, first, second = trace.add(picks.factor(int(left[place])), -1.0)
        picks.follow(first, second, -1.0)
        left = np.delete(left, place)
    return left


def _gather(view: CandidateView, projection: Projection, count: int) -> tuple[_Candidates, torch.Tensor]:
    """Return the candidates that may be picked and the mean Fisher information of all."""
    kept, width = projection.contrasts.shape[1], projection.axes.shape[1]
    most = max(_MOST_CANDIDATES, _LEAST_CANDIDATES_A_PICK * count)
    features, factors = [], []
    total = torch.zeros(kept * width, kept * width, dtype=torch.float64, device=view.device)
    for rows, context in view.blocks():
        h, spreads = projection.features(context.features), projection.spreads(context.probabilities)
        total += fisher_sum(h, spreads)
        if rows.start < most:
            features.append(h[: most - rows.start])
            factors.append(roots(spreads[: most - rows.start]))
    return _Candidates(torch.cat(features), torch.cat(factors, dim=2)), total / len(view)
