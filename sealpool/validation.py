"""Checks at the edge, the same in every service: names, ids, vectors.

FAISS accepts NaN, repeated ids and a wrong order of bytes in silence, so whatever passes here is all that stands
between a caller's mistake and a wrong answer.
"""

import json
import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from sealpool.errors import InvalidArgument, ResourceExhausted
from sealpool.types import ItemId, Vectors

MAX_ID_BYTES = 256
MAX_TEXT_BYTES = 1 << 20
MAX_URI_BYTES = 2048
MAX_METADATA_BYTES = 64 << 10
MAX_DIMENSION = 65_536

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")


def check_name(field: str, name: str) -> str:
    """Return `name` if it can name a pool or a campaign; raise InvalidArgument otherwise."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            field, f"{name[:140]!r} is not 1 to 128 characters of [A-Za-z0-9._@-] that begin with a letter or digit"
        )
    return name


def check_ids(
    field: str, ids: Iterable[str], *, limit: int | None = None, setting: str = "", seen: set[str] | None = None
) -> list[ItemId]:
    """Return `ids` as a list if each is usable and none is repeated.

    Parameters
    ----------
    limit, setting
        How many ids are allowed, and the setting that says so.
    seen
        Ids of earlier messages of the same stream: an id in there is a repetition too. Those of this call are added.

    Raises
    ------
    InvalidArgument
        An id is empty, longer than 256 bytes, holds a zero byte, or is repeated.
    ResourceExhausted
        More than `limit` ids.
    """
    checked = [ItemId(item_id) for item_id in ids]
    if limit is not None and len(checked) > limit:
        raise ResourceExhausted(f"{field}: {len(checked):,} ids", limit=limit, setting=setting)
    seen = set() if seen is None else seen
    for position, item_id in enumerate(checked):
        # Up to 64 characters an id has at most 256 bytes, so most need no encoding to be measured.
        if not item_id or (len(item_id) > MAX_ID_BYTES // 4 and len(item_id.encode()) > MAX_ID_BYTES):
            raise InvalidArgument(field, f"the id at position {position} is empty or over {MAX_ID_BYTES} bytes")
        if "\0" in item_id:
            raise InvalidArgument(
                field, f"the id at position {position} holds a zero byte, which PostgreSQL cannot keep"
            )
        if item_id in seen:
            raise InvalidArgument(field, f"{item_id!r} is repeated")
        seen.add(item_id)
    return checked


def check_vectors(
    field: str, vectors: Vectors, *, rows: int | None = None, dimension: int | None = None, allow_zero: bool = True
) -> Vectors:
    """Return `vectors` (n, d) if they have the shape asked for and only finite numbers.

    Raises
    ------
    InvalidArgument
        Another number of rows or dimensions, NaN, infinity, or, unless `allow_zero`, a vector of length 0.
    """
    if vectors.ndim != 2:
        raise InvalidArgument(field, f"has {vectors.ndim} axes, not 2")
    if rows is not None and len(vectors) != rows:
        raise InvalidArgument(field, f"has {len(vectors):,} rows, not {rows:,}")
    if dimension is not None and vectors.shape[1] != dimension:
        raise InvalidArgument(field, f"has dimension {vectors.shape[1]:,}, not {dimension:,}")
    squared_lengths = _squared_lengths(vectors)
    bad = np.flatnonzero(~np.isfinite(squared_lengths))
    if len(bad):
        raise InvalidArgument(field, f"row {bad[0]} holds NaN or infinity")
    if not allow_zero and not squared_lengths.all():
        row = int(np.flatnonzero(squared_lengths == 0)[0])
        raise InvalidArgument(field, f"row {row} is a zero vector, which has no direction under cosine")
    return vectors


def _squared_lengths(vectors: Vectors) -> NDArray[np.float64]:
    """Return squared lengths, in float64 where in float32 squares overflow or vanish: (n,)."""
    single = vectors.astype(np.float32, copy=False)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares: NDArray[np.float64] = np.vecdot(single, single).astype(np.float64)
    delicate = np.flatnonzero(~np.isfinite(squares) | (squares == 0))
    squares[delicate] = np.einsum("ij,ij->i", single[delicate], single[delicate], dtype=np.float64)
    return squares


def check_payload_lists(count: int, texts: Sequence[str], uris: Sequence[str], metadata: Sequence[str]) -> None:
    """Check payload columns: each empty or `count` long, within its size, and metadata JSON objects or ""."""
    for field, values, limit in (
        ("payloads.texts", texts, MAX_TEXT_BYTES),
        ("payloads.uris", uris, MAX_URI_BYTES),
        ("payloads.metadata_json", metadata, MAX_METADATA_BYTES),
    ):
        if len(values) not in (0, count):
            raise InvalidArgument(field, f"has {len(values):,} entries for {count:,} ids")
        for position, value in enumerate(values):
            if len(value) > limit // 4 and len(value.encode()) > limit:
                raise InvalidArgument(field, f"entry {position} is over {limit:,} bytes")
    for position, value in enumerate(metadata):
        if value and not _is_json_object(value):
            raise InvalidArgument("payloads.metadata_json", f"entry {position} is not a JSON object")


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
