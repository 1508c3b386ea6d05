"""ItemBatch and LabelledBatch on the wire, Items and LabelledItems in memory, cut into chunks of bounded size."""

import json
from collections.abc import Iterator, Sequence

import numpy as np

from sealpool.errors import InvalidArgument
from sealpool.matrix import from_matrix, write_matrix
from sealpool.types import ItemId, Items, LabelledItems, Payload
from sealpool.v1 import common_pb2


def to_batch(items: Items) -> common_pb2.ItemBatch:
    """Encode some items."""
    batch = common_pb2.ItemBatch(
        ids=items.ids, payloads=None if items.payloads is None else to_payloads(items.payloads)
    )
    if items.vectors is not None:
        write_matrix(batch.vectors, items.vectors)
    return batch


def from_batch(batch: common_pb2.ItemBatch) -> Items:
    """Decode some items; `vectors` and `payloads` are None where the batch has none."""
    ids = [ItemId(item_id) for item_id in batch.ids]
    return Items(
        ids=ids,
        vectors=from_matrix(batch.vectors) if batch.HasField("vectors") else None,
        payloads=from_payloads(batch.payloads, len(ids)) if batch.HasField("payloads") else None,
    )


def to_payloads(payloads: Sequence[Payload]) -> common_pb2.Payloads:
    """Encode payloads as columns; a column without any content is left empty."""
    texts = [payload.text for payload in payloads]
    uris = [payload.uri for payload in payloads]
    metadata = [json.dumps(dict(payload.metadata)) if payload.metadata else "" for payload in payloads]
    return common_pb2.Payloads(
        texts=texts if any(texts) else (),
        uris=uris if any(uris) else (),
        metadata_json=metadata if any(metadata) else (),
    )


def from_payloads(payloads: common_pb2.Payloads, count: int) -> list[Payload]:
    """Decode payload columns of `count` items."""
    blank = [""] * count
    columns = zip(payloads.texts or blank, payloads.uris or blank, payloads.metadata_json or blank, strict=True)
    return [
        Payload(text=text, uri=uri, metadata=json.loads(metadata) if metadata else {})
        for text, uri, metadata in columns
    ]


def cut(items: Items, *, chunk_bytes: int) -> Iterator[Items]:
    """Cut items into chunks whose encoded size is about `chunk_bytes` at most; one item is never divided."""
    if items.vectors is None and items.payloads is None:
        rows = max(1, chunk_bytes // 64)
        for start in range(0, len(items), rows):
            yield _slice(items, start, start + rows)
        return
    start = 0
    for stop in _chunk_ends(items, chunk_bytes):
        yield _slice(items, start, stop)
        start = stop


def _chunk_ends(items: Items, chunk_bytes: int) -> Iterator[int]:
    sizes = np.fromiter((len(item_id) for item_id in items.ids), np.int64, len(items))
    if items.vectors is not None:
        sizes += items.vectors.shape[1] * items.vectors.dtype.itemsize
    if items.payloads is not None:
        # Characters for bytes, and 64 a metadata field: near enough for a chunk.
        sizes += np.fromiter(
            (len(p.text) + len(p.uri) + 64 * len(p.metadata) for p in items.payloads), np.int64, len(items)
        )
    start, ends = 0, np.cumsum(sizes)
    while start < len(ends):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + chunk_bytes, side="right")))
        yield stop
        start = stop


def _slice(items: Items, start: int, stop: int) -> Items:
    return Items(
        ids=items.ids[start:stop],
        vectors=None if items.vectors is None else items.vectors[start:stop],
        payloads=None if items.payloads is None else items.payloads[start:stop],
    )


def join(parts: Sequence[Items], *, vectors: bool, payloads: bool, dimension: int = 0) -> Items:
    """Put chunks together. Without any chunk, `vectors` has shape (0, dimension)."""
    arrays = [part.vectors for part in parts if part.vectors is not None]
    return Items(
        ids=[item_id for part in parts for item_id in part.ids],
        vectors=(np.concatenate(arrays) if arrays else np.empty((0, dimension), np.float32)) if vectors else None,
        payloads=[payload for part in parts for payload in part.payloads or ()] if payloads else None,
    )


def to_labelled_batches(items: LabelledItems, *, chunk_rows: int) -> Iterator[common_pb2.LabelledBatch]:
    """Encode labelled items in chunks of `chunk_rows`; without items, nothing."""
    for start in range(0, len(items), chunk_rows):
        labels = items.labels[start : start + chunk_rows]
        yield common_pb2.LabelledBatch(
            ids=items.ids[start : start + chunk_rows],
            label_counts=[len(some) for some in labels],
            labels=[label for some in labels for label in some],
        )


def from_labelled_batch(batch: common_pb2.LabelledBatch) -> LabelledItems:
    """Decode labelled items.

    Raises
    ------
    InvalidArgument
        `label_counts` is not parallel to `ids`, or does not add up to the number of labels.
    """
    if len(batch.label_counts) != len(batch.ids):
        raise InvalidArgument("examples.label_counts", f"has {len(batch.label_counts)} for {len(batch.ids)} ids")
    ends = np.cumsum(batch.label_counts, dtype=np.int64).tolist()
    if (ends[-1] if ends else 0) != len(batch.labels):
        raise InvalidArgument("examples.labels", f"has {len(batch.labels)} entries, not what label_counts add up to")
    flat = list(batch.labels)
    starts = [0, *ends[:-1]]
    return LabelledItems(
        ids=[ItemId(item_id) for item_id in batch.ids],
        labels=[flat[start:end] for start, end in zip(starts, ends, strict=True)] if ends else [],
    )
