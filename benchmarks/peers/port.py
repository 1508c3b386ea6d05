"""What is asked of a peer. NumPy alone: this is imported in each peer's own environment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Peer(Protocol):
    """A store of unit vectors under cosine or inner product, as a user of it would call it. Used by one thread."""

    efforts: Sequence[int]
    """What its recall is tuned by (ef, nprobe), from fast to thorough; at least one."""
    effort_name: str

    def start(self, folder: Path, dimension: int) -> str:
        """Start with its data in `folder`, and say what it is: version, index, options."""

    def ingest(self, ids: Sequence[str], vectors: Vectors) -> str:
        """Store the items until it says that they are, and say what that means for them."""

    def build(self) -> float:
        """Return once the index over all items serves, with the seconds that it took from the call."""

    def tune(self, effort: int) -> None:
        """Search with this effort from now on."""

    def search(self, queries: Vectors, k: int, exclude: Sequence[str]) -> list[list[str]]:
        """Return the ids of the k nearest of each query, nearest first, without `exclude`."""

    def expand(self, ids: Sequence[str], queries: Vectors, k: int) -> tuple[list[str], Vectors]:
        """Return the k nearest items of each of `ids` that are not among `ids`, each once, with their vectors.

        `queries` are the vectors of `ids`.
        """

    def close(self) -> None:
        """Stop it."""


def new_ids(found: Sequence[Sequence[str]], known: Sequence[str]) -> list[str]:
    """Return what was found and is not known, each once, in the order found: a user's own bookkeeping."""
    seen = set(known)
    fresh = []
    for some in found:
        for item_id in some:
            if item_id not in seen:
                seen.add(item_id)
                fresh.append(item_id)
    return fresh


def without(found: Sequence[str], exclude: Sequence[str], k: int) -> list[str]:
    """Return the first k that are not in `exclude`, where a peer has no filter by id and was asked for more."""
    left_out = set(exclude)
    return [item_id for item_id in found if item_id not in left_out][:k]
