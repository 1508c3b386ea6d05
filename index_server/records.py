"""Items column by column, as they travel between the store, the pool and the wire."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sealpool.types import ItemId

_OVERHEAD = 16

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
    if not len(records):
        return
    if records.payloads is None:
        yield from _cut_evenly(records, chunk_bytes)
        return
    ends = np.cumsum(_encoded_bytes(records, records.payloads))
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + chunk_bytes, side="right")))
        yield records.slice(start, stop)
        start = stop


def _cut_evenly(records: Records, chunk_bytes: int) -> Iterator[Records]:
    size = max(1, chunk_bytes // (_text_bytes(max(map(len, records.ids))) + _vector_bytes(records)))
    for start in range(0, len(records), size):
        yield records if size >= len(records) else records.slice(start, start + size)


def _encoded_bytes(records: Records, payloads: PayloadColumns) -> NDArray[np.int64]:
    """Return an upper bound of each item's bytes on the wire: (n,) int64."""
    sizes = np.fromiter((_text_bytes(len(item_id)) for item_id in records.ids), np.int64, len(records))
    sizes += _vector_bytes(records)
    for column in (payloads.texts, payloads.uris, payloads.metadata_json):
        sizes += np.fromiter((_text_bytes(len(text)) for text in column), np.int64, len(records))
    return sizes


def _text_bytes(characters: int) -> int:
    # A character takes at most 4 bytes of UTF-8; most take one, and a chunk may well be smaller than it could be.
    return 4 * characters + _OVERHEAD


def _vector_bytes(records: Records) -> int:
    return 0 if records.vectors is None else records.vectors.shape[1] * records.vectors.dtype.itemsize
