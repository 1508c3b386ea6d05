"""Vectors of a campaign's candidates, from where they lie: the device, this process's memory, the index server."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learner.candidates import Candidates, Slot
from learner.device import Mirror
from sealpool.types import ItemId, Items

ReadItems = Callable[[Sequence[ItemId]], Items]
"""Reads items with their vectors from the index server, leaving out those that the pool no longer has."""


class ItemsGoneError(Exception):
    """Candidates that were to be scored have been deleted from the pool since they were told. `ids` are those."""

    def __init__(self, ids: Sequence[ItemId]) -> None:
        super().__init__(f"{len(ids):,} candidates are gone")
        self.ids = ids


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateSource:
    """Candidates, and their vectors on a device.

    Both methods raise ItemsGoneError where vectors lie with the index server and it has lost some of them.
    """

    candidates: Candidates
    mirror: Mirror
    read: ReadItems
    device: torch.device

    def __len__(self) -> int:
        return len(self.candidates)

    def span(self, start: int, stop: int) -> torch.Tensor:
        """Return the vectors (stop − start, d) float32 of consecutive slots."""
        if self.candidates.streamed:
            return self._read(range(start, stop))
        return self.mirror.rows(self.candidates, start, stop)

    def take(self, slots: NDArray[np.int64]) -> torch.Tensor:
        """Return the vectors (n, d) float32 of some slots, in that order."""
        if self.candidates.streamed:
            return self._read(slots.tolist())
        return self.mirror.take(self.candidates, slots)

    def _read(self, slots: Sequence[int]) -> torch.Tensor:
        ids = [self.candidates.id_at(Slot(slot)) for slot in slots]
        if not ids:
            return torch.empty(0, self.candidates.dimension, device=self.device)
        items = self.read(ids)
        if len(items) < len(ids):
            raise ItemsGoneError(sorted(set(ids).difference(items.ids)))
        # What came in a message is a read-only view of it, which torch does not take.
        return torch.from_numpy(np.require(items.vectors, np.float32, "W")).to(self.device)
