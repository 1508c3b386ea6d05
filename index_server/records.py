"""Items column by column, as they travel between the store, the pool and the wire."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sealpool.types import ItemId

FloatMatrix = NDArray[np.floating]
"""(n, d) float32 or float16, as the pool keeps its vectors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PayloadColumns:
    """Texts, uris and metadata (JSON text, "" for none), parallel."""

    texts: Sequence[str]
    uris: Sequence[str]
    metadata_json: Sequence[str]

    def slice(self, start: int, stop: int) -> "PayloadColumns":
        """Return the payloads from `start` to `stop`."""
        return PayloadColumns(
            texts=self.texts[start:stop], uris=self.uris[start:stop], metadata_json=self.metadata_json[start:stop]
        )

    @classmethod
    def blank(cls, count: int) -> "PayloadColumns":
        """Return `count` empty payloads."""
        empty = ("",) * count
        return cls(texts=empty, uris=empty, metadata_json=empty)


@dataclass(frozen=True, kw_only=True, slots=True)
class Records:
    """Some items. `vectors` and `payloads` are parallel to `ids`, or None where not asked for."""

    ids: Sequence[ItemId]
    vectors: FloatMatrix | None = None
    payloads: PayloadColumns | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def slice(self, start: int, stop: int) -> "Records":
        """Return the items from `start` to `stop`."""
        return Records(
            ids=self.ids[start:stop],
            vectors=None if self.vectors is None else self.vectors[start:stop],
            payloads=None if self.payloads is None else self.payloads.slice(start, stop),
        )


def cut(records: Records, chunk_bytes: int) -> Iterator[Records]:
    """Cut into chunks of at most `chunk_bytes`, or of one item where that alone is larger. Nothing gives nothing."""
    ends = np.cumsum(_encoded_bytes(records))
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + chunk_bytes, side="right")))
        yield records.slice(start, stop)
        start = stop


def _encoded_bytes(records: Records) -> NDArray[np.int64]:
    """Return an upper bound of each item's bytes on the wire: (n,) int64."""
    overhead = 16
    # A character takes at most 4 bytes of UTF-8; most take one, and a chunk may well be smaller than it could be.
    sizes = np.fromiter((4 * len(item_id) + overhead for item_id in records.ids), np.int64, len(records))
    if records.vectors is not None:
        sizes += records.vectors.shape[1] * records.vectors.dtype.itemsize
    if records.payloads is not None:
        for column in (records.payloads.texts, records.payloads.uris, records.payloads.metadata_json):
            sizes += np.fromiter((4 * len(text) + overhead for text in column), np.int64, len(records))
    return sizes
