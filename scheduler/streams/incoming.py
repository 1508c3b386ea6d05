"""Items of a stream as they come in: checked, embedded, and judged by the model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.asking import asking
from scheduler.embedding import embed_texts
from scheduler.pools import read_pool
from scheduler.ports import Index, Learner
from scheduler.streams.judging import Judged, judge, reads_text
from sealpool.errors import FailedPrecondition, InvalidArgument, NotFound
from sealpool.matrix import from_matrix
from sealpool.types import ItemId, Items, Payload, Vectors
from sealpool.v1 import index_pb2, learner_pb2, scheduler_pb2, stream_pb2
from sealpool.validation import check_ids, check_payload_lists, check_vectors

ITEMS_A_CALL = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Incoming:
    """An item as it came. `vector` (d,) is None where it is to be embedded from the text."""

    item_id: ItemId
    vector: Vectors | None
    payload: Payload


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """An item with what the model says of it. One that the pool has is the pool's: what came with it is left aside."""

    item_id: ItemId
    vector: Vectors
    payload: Payload
    in_pool: bool
    probabilities: NDArray[np.float32]  # (c,)
    round: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Intake:
    """What a stream's items are checked against."""

    spec: scheduler_pb2.CampaignSpec
    dimension: int
    cosine: bool

    def check(self, field: str, item: stream_pb2.StreamItem) -> Incoming:
        """Return an item that can be decided of.

        Raises
        ------
        InvalidArgument
            Any part of the item, with `field` before its name.
        """
        item_id = check_ids(f"{field}.id", [item.id])[0]
        check_payload_lists(1, [item.text], [item.uri], [item.metadata_json])
        if reads_text(self.spec) and not item.text:
            raise InvalidArgument(f"{field}.text", f"item {item.id!r} has none, and the campaign's model reads texts")
        vector = self._vector(field, item) if item.HasField("vector") else None
        if vector is None and not item.text:
            raise InvalidArgument(field, f"item {item.id!r} has neither text nor vector")
        if vector is None and not self.spec.stream.encoder.encoder:
            raise InvalidArgument(
                f"{field}.text", f"item {item.id!r} has no vector, and the campaign's spec.stream names no encoder"
            )
        metadata = json.loads(item.metadata_json or "{}")
        return Incoming(
            item_id=item_id, vector=vector, payload=Payload(text=item.text, uri=item.uri, metadata=metadata)
        )

    def _vector(self, field: str, item: stream_pb2.StreamItem) -> Vectors:
        vectors = from_matrix(item.vector, field=f"{field}.vector")
        check_vectors(f"{field}.vector", vectors, rows=1, dimension=self.dimension or None, allow_zero=not self.cosine)
        return np.asarray(vectors[0], np.float32)


def open_intake(index: Index, spec: scheduler_pb2.CampaignSpec) -> Intake:
    """Look at the campaign's pool.

    Raises
    ------
    FailedPrecondition
        The pool is gone, or takes no items.
    """
    try:
        with asking("the index server"):
            pool = read_pool(index, spec.pool)
    except NotFound as error:
        raise FailedPrecondition(f"pool {spec.pool!r} of the campaign is gone", field="campaign") from error
    # 0: a pool that cannot be read does not say.
    return Intake(
        spec=spec,
        dimension=pool.spec.dimension,
        cosine=pool.spec.metric in (index_pb2.METRIC_UNSPECIFIED, index_pb2.METRIC_COSINE),
    )


def prepare(index: Index, learner: Learner, intake: Intake, items: Sequence[Incoming]) -> dict[ItemId, Prepared]:
    """Find each item in the pool or embed it, and let the latest model judge it; `items` are distinct.

    Raises
    ------
    FailedPrecondition
        No model yet, no such encoder, or one that makes vectors of another dimension.
    """
    if not items:
        return {}
    held = _held(index, intake.spec.pool, [item.item_id for item in items])
    vectors = _vectors(learner, intake, items, held)
    payloads = [held[item.item_id][1] if item.item_id in held else item.payload for item in items]
    judged = _judge(learner, intake.spec, vectors, [payload.text for payload in payloads])
    return {
        item.item_id: Prepared(
            item_id=item.item_id,
            vector=vectors[row],
            payload=payloads[row],
            in_pool=item.item_id in held,
            probabilities=judged.probabilities[row],
            round=judged.round,
        )
        for row, item in enumerate(items)
    }


def upsert(index: Index, pool: str, items: Sequence[Prepared]) -> None:
    """Put items into the pool that it does not have; durable on return. Again is harmless."""
    new = [item for item in items if not item.in_pool]
    for start in range(0, len(new), ITEMS_A_CALL):
        some = new[start : start + ITEMS_A_CALL]
        with asking("the index server"):
            index.upsert(
                pool,
                Items(
                    ids=[item.item_id for item in some],
                    vectors=np.stack([item.vector for item in some]),
                    payloads=[item.payload for item in some],
                ),
            )


def _held(index: Index, pool: str, ids: Sequence[ItemId]) -> Mapping[ItemId, tuple[Vectors, Payload]]:
    with asking("the index server"):
        found = index.get_items(pool, ids, vectors=True, payloads=True, allow_missing=True)
    vectors = np.empty((0, 0), np.float32) if found.vectors is None else found.vectors
    return dict(zip(found.ids, zip(vectors, found.payloads or (), strict=True), strict=True))


def _vectors(
    learner: Learner, intake: Intake, items: Sequence[Incoming], held: Mapping[ItemId, tuple[Vectors, Payload]]
) -> Vectors:
    texts = {item.item_id: item.payload.text for item in items if item.vector is None and item.item_id not in held}
    embedded: dict[ItemId, Vectors] = {}
    if texts:
        made = embed_for_pool(learner, intake, intake.spec.stream.encoder, list(texts.values()))
        embedded = dict(zip(texts, made, strict=True))
    rows = []
    for item in items:
        if item.item_id in held:
            rows.append(held[item.item_id][0])
        else:
            rows.append(embedded[item.item_id] if item.vector is None else item.vector)
    return np.stack(rows)


def embed_for_pool(learner: Learner, intake: Intake, encoder: learner_pb2.EmbedHeader, texts: Sequence[str]) -> Vectors:
    """Return one vector a text, (n, d) float32, as the campaign's pool takes them.

    Raises
    ------
    FailedPrecondition
        The learner has no such encoder, or its vectors have another dimension than the pool's.
    """
    with asking("the learner"):
        vectors = embed_texts(learner, encoder, texts)
    if intake.dimension not in (0, vectors.shape[1]):
        raise FailedPrecondition(
            f"encoder {encoder.encoder!r} makes vectors of {vectors.shape[1]:,} dimensions, and pool "
            f"{intake.spec.pool!r} has {intake.dimension:,}: name the encoder that the pool was embedded with",
            field="encoder",
        )
    return vectors


def _judge(learner: Learner, spec: scheduler_pb2.CampaignSpec, vectors: Vectors, texts: Sequence[str]) -> Judged:
    if not reads_text(spec):
        return judge(learner, spec.name, vectors=vectors)
    if not all(texts):
        raise FailedPrecondition("an item of the pool has no text, and the campaign's model reads texts")
    return judge(learner, spec.name, texts=texts)
