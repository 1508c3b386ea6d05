"""What is picked from while nothing is labelled: a part of the pool, drawn at random."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learner.index_port import Index
from sealpool.types import ItemId, Items
from sealpool.v1 import common_pb2, index_pb2

SUBPOOL_POLICY = "random_subset"
_DEFAULT_SIZE = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnSubpool:
    """Candidates drawn here. The fields are those of CandidateUpdate."""

    added: Items
    removed: list[ItemId]
    info: common_pb2.CandidatePoolInfo
    base_version: int
    pool_direction: NDArray[np.float32]
    pool_version: int


def draw_subpool(
    index: Index, pool: index_pb2.Pool, size: int, *, seed: int, exclude: Sequence[ItemId]
) -> DrawnSubpool:
    """Draw what the policy `random_subset` looks at while nothing is labelled.

    The index server draws with the labels that it is told of, so before the first one it has nothing to draw for. What
    is drawn here begins no candidate pool there, and follows from the pool, `size`, `seed` and `exclude` alone.

    Parameters
    ----------
    size
        Items; 0 for the policy's default, 1,000.
    """
    drawn = index.sample_items(
        pool.spec.name, min(size or _DEFAULT_SIZE, pool.size), seed=seed, exclude=sorted(exclude)
    )
    items = index.get_items(pool.spec.name, drawn, allow_missing=True)
    return DrawnSubpool(
        added=items,
        removed=[],
        info=common_pb2.CandidatePoolInfo(size=len(items), pool_share=len(items) / pool.size, added=len(items)),
        base_version=0,
        pool_direction=np.zeros(pool.spec.dimension, np.float32),
        pool_version=pool.version,
    )
