"""What the client and the services pass around beside protobuf messages: ids and NumPy arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NewType

import numpy as np
from numpy.typing import NDArray

ItemId = NewType("ItemId", str)
"""What users know an item by: UTF-8, 1 to 256 bytes. Where it lies is a Row, and only the index server knows."""

Vectors = NDArray[np.float32]
"""Vectors, one a row: (n, d) float32, C order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """What a person or a text model reads of an item."""

    text: str = ""
    uri: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Items:
    """Some items. `vectors` (n, d) and `payloads` (n) are parallel to `ids`, or None where not asked for."""

    ids: Sequence[ItemId]
    vectors: Vectors | None = None
    payloads: Sequence[Payload] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledItems:
    """Items with the indices of their classes, parallel."""

    ids: Sequence[ItemId]
    labels: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.ids)
