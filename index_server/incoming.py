"""What comes into a pool: checked, in the pool's type, on its way to the store."""

from collections.abc import Iterable
from typing import Final

import numpy as np

from index_server.geometry import lengths_of
from index_server.ports import Upload
from index_server.records import FloatMatrix, Records
from index_server.spec import Metric, PoolSpec, VectorType
from sealpool.errors import InvalidArgument, ResourceExhausted
from sealpool.types import ItemId
from sealpool.validation import check_ids, check_vectors

_MAX_LENGTH: Final = 1e18
"""Beyond it the product of two vectors overflows float32, and FAISS answers with infinity or NaN."""


def receive(spec: PoolSpec, batches: Iterable[Records], upload: Upload, *, max_rows: int) -> list[ItemId]:
    """Check items and write them to `upload`; return their ids. Nothing else of them is kept in memory.

    Raises
    ------
    InvalidArgument
        An id is unusable or repeated, or a vector is.
    ResourceExhausted
        More than `max_rows` items, or the disk is full.
    """
    ids: list[ItemId] = []
    seen: set[str] = set()
    for batch in batches:
        if not batch.ids and batch.vectors is None:
            continue  # a first message may name the pool and no more
        check_ids("items.ids", batch.ids, seen=seen)
        if len(seen) > max_rows:
            raise ResourceExhausted(f"upsert of {len(seen):,} rows", limit=max_rows, setting="max_upsert_rows")
        stored = _stored(spec, batch)
        upload.write(Records(ids=batch.ids, vectors=stored, payloads=batch.payloads))
        ids += batch.ids
    return ids


def check_comparable(spec: PoolSpec, vectors: FloatMatrix, *, field: str, rows: int | None = None) -> None:
    """Raise InvalidArgument unless `vectors` can be compared with the pool's.

    They must be (rows, dimension), finite, not too long, and not zero under cosine.
    """
    cosine = spec.metric is Metric.COSINE
    check_vectors(field, vectors, rows=rows, dimension=spec.dimension, allow_zero=not cosine)
    if not cosine:
        too_long = np.flatnonzero(lengths_of(vectors) > _MAX_LENGTH)
        if len(too_long):
            raise InvalidArgument(field, f"row {too_long[0]} is longer than {_MAX_LENGTH:g}: its products overflow")


def _stored(spec: PoolSpec, batch: Records) -> FloatMatrix:
    """Return the batch's vectors, checked, in the pool's type."""
    if batch.vectors is None:
        raise InvalidArgument("items.vectors", "is missing")
    check_comparable(spec, batch.vectors, field="items.vectors", rows=len(batch.ids))
    if spec.vector_type is VectorType.FLOAT32:
        return batch.vectors
    with np.errstate(over="ignore"):
        stored = batch.vectors.astype(np.float16)
    # Rounding may have made infinity of the large and zero of the small.
    check_comparable(spec, stored, field="items.vectors (as float16)")
    return stored
