"""Messages of the contract, and the plain types they stand for."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from index_server.campaigning import NamedReason
from index_server.candidates.book import CampaignView
from index_server.candidates.state import Standing
from index_server.catalog import PoolState, PoolStatus
from index_server.records import PayloadColumns, Records
from index_server.scoring import LinearModel
from index_server.spec import (
    DEFAULT_GRAPH_NEIGHBORS,
    DEFAULT_MIN_RECALL,
    Device,
    EngineOptions,
    GraphKind,
    GraphSpec,
    LanceSource,
    Metric,
    PoolSpec,
    VectorType,
)
from sealpool.errors import InvalidArgument
from sealpool.matrix import from_matrix, write_matrix
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, index_pb2
from sealpool.validation import check_payload_lists

_METRICS = {
    index_pb2.METRIC_UNSPECIFIED: Metric.COSINE,
    index_pb2.METRIC_COSINE: Metric.COSINE,
    index_pb2.METRIC_INNER_PRODUCT: Metric.INNER_PRODUCT,
    index_pb2.METRIC_L2: Metric.L2,
}
_VECTOR_TYPES = {
    common_pb2.DTYPE_UNSPECIFIED: VectorType.FLOAT32,
    common_pb2.DTYPE_FLOAT32: VectorType.FLOAT32,
    common_pb2.DTYPE_FLOAT16: VectorType.FLOAT16,
}
_METRICS_ON_WIRE = {metric: number for number, metric in _METRICS.items() if number}
_VECTOR_TYPES_ON_WIRE = {vector_type: number for number, vector_type in _VECTOR_TYPES.items() if number}
_STATES = {
    PoolState.LOADING: index_pb2.POOL_STATE_LOADING,
    PoolState.READY: index_pb2.POOL_STATE_READY,
    PoolState.FAILED: index_pb2.POOL_STATE_FAILED,
}
_OPTIONS = [field.name for field in fields(EngineOptions)]
_GRAPH_KINDS = {
    index_pb2.NEIGHBOR_GRAPH_KIND_UNSPECIFIED: GraphKind.NONE,
    index_pb2.NEIGHBOR_GRAPH_KIND_NONE: GraphKind.NONE,
    index_pb2.NEIGHBOR_GRAPH_KIND_LAZY: GraphKind.LAZY,
    index_pb2.NEIGHBOR_GRAPH_KIND_FULL: GraphKind.FULL,
}
_GRAPH_KINDS_ON_WIRE = {kind: number for number, kind in _GRAPH_KINDS.items() if number}
_STANDINGS = {
    Standing.OUTSIDE: index_pb2.CANDIDATE_STATE_OUTSIDE,
    Standing.CANDIDATE: index_pb2.CANDIDATE_STATE_CANDIDATE,
    Standing.LABELLED: index_pb2.CANDIDATE_STATE_LABELLED,
    Standing.LEFT: index_pb2.CANDIDATE_STATE_LEFT,
}
_SOURCE_FIELDS = [field.name for field in fields(LanceSource)]


def from_spec(spec: index_pb2.PoolSpec) -> PoolSpec:
    """Return a spec with its defaults filled in.

    Raises
    ------
    InvalidArgument
        A metric, dtype, device or kind of graph that the contract does not have.
    """
    if spec.metric not in _METRICS:
        raise InvalidArgument("spec.metric", f"{spec.metric} is not a metric")
    if spec.dtype not in _VECTOR_TYPES:
        raise InvalidArgument("spec.dtype", f"{spec.dtype} is not a dtype")
    if spec.device not in ("", *Device):
        raise InvalidArgument("spec.device", f"{spec.device!r} is not one of {', '.join(Device)}")
    if spec.neighbor_graph.kind not in _GRAPH_KINDS:
        raise InvalidArgument("spec.neighbor_graph.kind", f"{spec.neighbor_graph.kind} is not a kind of graph")
    return PoolSpec(
        name=spec.name,
        dimension=spec.dimension,
        metric=_METRICS[spec.metric],
        vector_type=_VECTOR_TYPES[spec.dtype],
        engine=spec.engine or "auto",
        device=Device(spec.device or "auto"),
        options=EngineOptions(**{name: getattr(spec.options, name) for name in _OPTIONS}),
        min_recall=spec.min_recall or DEFAULT_MIN_RECALL,
        graph=GraphSpec(
            kind=_GRAPH_KINDS[spec.neighbor_graph.kind],
            neighbors=spec.neighbor_graph.neighbors or DEFAULT_GRAPH_NEIGHBORS,
        ),
        source=_from_source(spec.source) if spec.HasField("source") else None,
    )


def to_spec(spec: PoolSpec) -> index_pb2.PoolSpec:
    """Encode a spec."""
    return index_pb2.PoolSpec(
        name=spec.name,
        dimension=spec.dimension,
        metric=_METRICS_ON_WIRE[spec.metric],
        dtype=_VECTOR_TYPES_ON_WIRE[spec.vector_type],
        engine=spec.engine,
        device=spec.device.value,
        options=index_pb2.EngineOptions(**{name: getattr(spec.options, name) for name in _OPTIONS}),
        min_recall=spec.min_recall,
        neighbor_graph=index_pb2.NeighborGraph(
            kind=_GRAPH_KINDS_ON_WIRE[spec.graph.kind], neighbors=spec.graph.neighbors
        ),
        source=None
        if spec.source is None
        else index_pb2.LanceSource(**{name: getattr(spec.source, name) for name in _SOURCE_FIELDS}),
    )


def to_pool(status: PoolStatus) -> index_pb2.Pool:
    """Encode a pool's status."""
    pool = index_pb2.Pool(
        spec=to_spec(status.spec) if status.spec else index_pb2.PoolSpec(name=status.name),
        state=_STATES[status.state],
        engine_reason=status.failure,
        aliases=status.aliases,
        loaded_share=status.loaded_share,
    )
    if status.created_at is not None:
        pool.created_at.FromDatetime(status.created_at)
    if status.pool is not None:
        index = status.pool.index
        pool.version, pool.size = status.pool.version, status.pool.size
        pool.engine, pool.device = index.engine.name, index.engine.device
        pool.engine_reason = status.failure or index.choice.reason
        pool.index_bytes = index.memory_bytes
        pool.campaigns.extend(status.pool.campaign_sizes())
        pool.recall = index.recall
        pool.building = status.pool.upkeep.building
        pool.graph_items = status.pool.graph_items
        pool.read_only = status.pool.spec.source is not None
    return pool


def to_reason(reason: NamedReason) -> index_pb2.CandidateReason:
    """Encode why an item is, or is not, a candidate."""
    return index_pb2.CandidateReason(
        id=reason.item_id,
        state=_STANDINGS[reason.reason.standing],
        source_id=reason.source_id,
        score=reason.reason.score,
        version=reason.reason.version,
    )


def from_model(request: index_pb2.ScoreCandidatesRequest, *, dimension: int) -> LinearModel:
    """Decode a linear model of vectors of this dimension.

    Raises
    ------
    InvalidArgument, ResourceExhausted
        It is none, or too large.
    """
    if not request.HasField("weights"):
        raise InvalidArgument("weights", "is missing")
    weights = from_matrix(request.weights, field="weights").astype(np.float32)
    biases = np.zeros(len(weights), np.float32)
    if request.HasField("biases"):
        biases = from_matrix(request.biases, field="biases").astype(np.float32).reshape(-1)
    model = LinearModel(weights=weights, biases=biases, multilabel=request.multilabel)
    model.check(dimension)
    return model


def from_items(batch: common_pb2.ItemBatch) -> Records:
    """Decode items with vectors; ids and numbers are not looked at.

    Raises
    ------
    InvalidArgument
        The matrix or the payload lists do not fit.
    """
    vectors = from_matrix(batch.vectors, field="items.vectors") if batch.HasField("vectors") else None
    count = len(batch.ids)
    payloads = batch.payloads
    check_payload_lists(count, payloads.texts, payloads.uris, payloads.metadata_json)
    ids: list[ItemId] = list(batch.ids)  # type: ignore[arg-type]  # an ItemId is a str
    columns = (payloads.texts, payloads.uris, payloads.metadata_json)
    if not any(map(len, columns)):
        return Records(ids=ids, vectors=vectors)
    texts, uris, metadata = (list(column) or ("",) * count for column in columns)
    return Records(ids=ids, vectors=vectors, payloads=PayloadColumns(texts=texts, uris=uris, metadata_json=metadata))


def to_items(records: Records) -> common_pb2.ItemBatch:
    """Encode items; a payload column without any content is left empty."""
    batch = common_pb2.ItemBatch(ids=records.ids)
    if records.vectors is not None:
        write_matrix(batch.vectors, records.vectors)
    if records.payloads is not None:
        batch.payloads.CopyFrom(
            common_pb2.Payloads(
                texts=_column(records.payloads.texts),
                uris=_column(records.payloads.uris),
                metadata_json=_column(records.payloads.metadata_json),
            )
        )
    return batch


def to_info(view: CampaignView, *, pool_size: int) -> common_pb2.CandidatePoolInfo:
    """Encode the state of a candidate pool."""
    return common_pb2.CandidatePoolInfo(
        version=view.version,
        size=view.size,
        pool_share=view.size / pool_size if pool_size else 0.0,
        added=len(view.difference.added),
        removed=len(view.difference.removed),
        labelled=view.labelled_count,
    )


def _from_source(source: index_pb2.LanceSource) -> LanceSource:
    told = {name: getattr(source, name) for name in _SOURCE_FIELDS}
    return LanceSource(**{name: value for name, value in told.items() if value}, **({} if source.uri else {"uri": ""}))


def _column(values: Sequence[str]) -> Sequence[str]:
    return values if any(values) else ()
