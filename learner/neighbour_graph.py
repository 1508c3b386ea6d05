"""The graph of nearest neighbours of a whole pool, read from the index server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learner.index_port import Index, Neighbours
from learner.ports import CancelCheck
from sealpool.errors import Cancelled, NotFound
from sealpool.types import ItemId
from sealpool.v1 import index_pb2

_QUERIES_A_CALL = 2_048
_NEIGHBOURS_A_CALL = 200_000
"""Below the index server's max_queries and max_neighbors as they come."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Nothing:
    counts: NDArray[np.int64]
    ids: Sequence[ItemId]
    scores: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Edges:
    """Edges (e,) from items to their neighbours, by rows, with the similarity of both; each at most once."""

    rows: torch.Tensor
    columns: torch.Tensor
    weights: torch.Tensor


def pool_ids(index: Index, pool: str, cancelled: CancelCheck) -> list[ItemId]:
    """Return the ids of a pool in its own order. Raises Cancelled when the caller left."""
    ids: list[ItemId] = []
    for piece in index.scan_items(pool, vectors=False):
        if cancelled():
            raise Cancelled("the caller left while the pool was read")
        ids += piece.ids
    return ids


def read_edges(index: Index, pool: index_pb2.Pool, ids: Sequence[ItemId], *, k: int, cancelled: CancelCheck) -> Edges:
    """Ask for the k nearest neighbours of every item, in chunks.

    The weight is the cosine similarity, 0 where it is negative; 1 in pools of another metric. Items that the pool has
    lost since `ids` were read have no neighbours, and those that it has gained are nobody's.

    Raises
    ------
    InvalidArgument
        The index server takes no such k.
    Cancelled
        The caller left.
    """
    rows_of = {item_id: row for row, item_id in enumerate(ids)}
    weighted = pool.spec.metric in (index_pb2.METRIC_UNSPECIFIED, index_pb2.METRIC_COSINE)
    step = max(1, min(_QUERIES_A_CALL, _NEIGHBOURS_A_CALL // k))
    sources, targets, weights = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for start in range(0, len(ids), step):
        if cancelled():
            raise Cancelled("the caller left while neighbours were read")
        asked, found = _neighbours(index, pool.spec.name, ids[start : start + step], k)
        source = np.repeat(_rows(rows_of, asked), found.counts)
        target = _rows(rows_of, found.ids)
        known = target >= 0
        sources.append(source[known])
        targets.append(target[known])
        scores = np.clip(found.scores, 0, None) if weighted else np.ones(len(target), np.float32)
        weights.append(scores[known].astype(np.float32))
    return Edges(
        rows=torch.from_numpy(np.concatenate(sources)),
        columns=torch.from_numpy(np.concatenate(targets)),
        weights=torch.from_numpy(np.concatenate(weights)),
    )


def _neighbours(index: Index, pool: str, ids: Sequence[ItemId], k: int) -> tuple[Sequence[ItemId], Neighbours]:
    try:
        return ids, index.search(pool, k=k, ids=ids)
    except NotFound as error:
        if error.field == "pool":
            raise
        left = index.get_items(pool, ids, vectors=False, allow_missing=True).ids
        if not left:
            return left, _Nothing(counts=np.empty(0, np.int64), ids=[], scores=np.empty(0, np.float32))
        return left, index.search(pool, k=k, ids=left)


def _rows(rows_of: Mapping[ItemId, int], ids: Sequence[ItemId]) -> NDArray[np.int64]:
    """Return (n,) the rows of ids, −1 for those that are not known."""
    return np.fromiter((rows_of.get(item_id, -1) for item_id in ids), np.int64, len(ids))
