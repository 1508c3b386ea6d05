"""Messages of the contract, and the plain types they stand for."""

from collections.abc import Sequence

from index_server.candidates.book import CampaignView
from index_server.catalog import PoolState, PoolStatus
from index_server.records import PayloadColumns, Records
from index_server.spec import Device, EngineOptions, Metric, PoolSpec, VectorType
from sealpool.errors import InvalidArgument
from sealpool.matrix import from_matrix, to_matrix
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
_OPTIONS = ("ivf_lists", "ivf_probes", "hnsw_neighbors", "hnsw_ef_construction", "hnsw_ef_search")


def from_spec(spec: index_pb2.PoolSpec) -> PoolSpec:
    """Return a spec with its defaults filled in.

    Raises
    ------
    InvalidArgument
        A metric, dtype or device that the contract does not have.
    """
    if spec.metric not in _METRICS:
        raise InvalidArgument("spec.metric", f"{spec.metric} is not a metric")
    if spec.dtype not in _VECTOR_TYPES:
        raise InvalidArgument("spec.dtype", f"{spec.dtype} is not a dtype")
    if spec.device not in ("", *Device):
        raise InvalidArgument("spec.device", f"{spec.device!r} is not one of {', '.join(Device)}")
    return PoolSpec(
        name=spec.name,
        dimension=spec.dimension,
        metric=_METRICS[spec.metric],
        vector_type=_VECTOR_TYPES[spec.dtype],
        engine=spec.engine or "auto",
        device=Device(spec.device or "auto"),
        options=EngineOptions(**{name: getattr(spec.options, name) for name in _OPTIONS}),
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
    )


def to_pool(status: PoolStatus) -> index_pb2.Pool:
    """Encode a pool's status."""
    pool = index_pb2.Pool(
        spec=to_spec(status.spec) if status.spec else index_pb2.PoolSpec(name=status.name),
        state=_STATES[status.state],
        engine_reason=status.failure,
    )
    if status.created_at is not None:
        pool.created_at.FromDatetime(status.created_at)
    if status.pool is not None:
        index = status.pool.index
        pool.version, pool.size = status.pool.version, status.pool.size
        pool.engine, pool.device = index.engine.name, index.engine.device
        pool.engine_reason = status.failure or index.choice.reason
        pool.index_bytes = index.engine.memory_bytes
        pool.campaigns.extend(status.pool.campaign_sizes())
    return pool


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
    blank = PayloadColumns.blank(count)
    return Records(
        ids=[ItemId(item_id) for item_id in batch.ids],
        vectors=vectors,
        payloads=PayloadColumns(
            texts=list(payloads.texts) or blank.texts,
            uris=list(payloads.uris) or blank.uris,
            metadata_json=list(payloads.metadata_json) or blank.metadata_json,
        ),
    )


def to_items(records: Records) -> common_pb2.ItemBatch:
    """Encode items; a payload column without any content is left empty."""
    batch = common_pb2.ItemBatch(ids=records.ids)
    if records.vectors is not None:
        batch.vectors.CopyFrom(to_matrix(records.vectors))
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
        labelled=len(view.labelled),
    )


def _column(values: Sequence[str]) -> Sequence[str]:
    return values if any(values) else ()
