"""Nearest candidates by cosine similarity, found in one pass."""

import numpy as np
import torch
from numpy.typing import NDArray

from learner.ports import CandidateView

_SIMILARITIES_TOGETHER = 1 << 23  # float32: 32 MB


def unit_rows(vectors: torch.Tensor) -> torch.Tensor:
    """Return vectors (n, d) at length 1; zero ones stay zero."""
    lengths = vectors.norm(dim=1, keepdim=True)
    return torch.where(lengths > 0, vectors / lengths.clamp_min(1e-30), torch.zeros_like(vectors))


def nearest_candidates(
    view: CandidateView, queries: torch.Tensor, count: int, own: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows (q, k) and similarities (q, k) of the k = min(count, n) candidates nearest to each query.

    Parameters
    ----------
    queries
        (q, d) of length 1 or 0.
    own
        (q,) rows of the queries themselves, which are not their own neighbours; k is at most n − 1 then.
    """
    together = max(0, min(count, len(view) - (own is not None)))
    best = torch.full((len(queries), 0), -2.0, device=view.device)
    rows = torch.empty(len(queries), 0, dtype=torch.int64, device=view.device)
    own_rows = None if own is None else torch.from_numpy(own).to(view.device)[:, None]
    if len(queries) == 0:
        return np.empty((0, together), np.int64), np.empty((0, together), np.float32)
    step = max(1, _SIMILARITIES_TOGETHER // len(queries))
    for block, context in view.blocks():
        units = unit_rows(context.vectors)
        for start in range(0, len(units), step):
            similarities = queries @ units[start : start + step].T
            first = block.start + start
            if own_rows is not None:
                places = torch.arange(first, first + similarities.shape[1], device=view.device)
                similarities.masked_fill_(own_rows == places, -2.0)
            found = similarities.topk(min(together, similarities.shape[1]), dim=1)
            best, rows = torch.cat([best, found.values], dim=1), torch.cat([rows, found.indices + first], dim=1)
            best, order = best.sort(dim=1, descending=True, stable=True)
            best, rows = best[:, :together], rows.gather(1, order[:, :together])
    return rows.cpu().numpy(), best.clamp_min(0).cpu().numpy()
