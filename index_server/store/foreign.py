"""A pool over a Lance data set of another system: read-only, at the version that was the newest when it was opened."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from index_server.ports import Addresses, Upload
from index_server.spec import LanceSource, Metric, PoolSpec
from index_server.store.lance_snapshot import Columns, LanceSnapshot
from sealpool.durable import write_durably
from sealpool.errors import FailedPrecondition, InvalidArgument

_FILE: Final = "source.json"
_MAX_ID_BYTES: Final = 256


class ForeignLanceStore:
    """A Lance data set of which one version is read, and nothing written."""

    def __init__(self, spec: PoolSpec, snapshot: LanceSnapshot) -> None:
        self._name = spec.name
        self._snapshot = snapshot

    @classmethod
    def create(cls, directory: Path, spec: PoolSpec) -> None:
        """Check the newest version of `spec.source`, every item of it, and keep in `directory` which one that is.

        Raises
        ------
        InvalidArgument
            The data set cannot be read or does not fit the pool: names the field of `spec.source`.
        """
        source = _source_of(spec)
        try:
            dataset = lance.dataset(source.uri)
        except (OSError, ValueError) as error:
            raise InvalidArgument("spec.source.uri", f"cannot be opened as a Lance data set: {error}") from error
        _check_columns(dataset.schema, source, spec)
        _check_items(_snapshot(dataset, source), source, spec.metric)
        write_durably(directory / _FILE, json.dumps({"uri": source.uri, "version": dataset.version}).encode())

    @classmethod
    def open(cls, directory: Path, spec: PoolSpec) -> "ForeignLanceStore":
        """Open the version that `create` kept.

        Raises
        ------
        FailedPrecondition
            It is not there any more, or which one it is cannot be read.
        """
        source = _source_of(spec)
        try:
            version = int(json.loads((directory / _FILE).read_bytes())["version"])
            dataset = lance.dataset(source.uri, version=version)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FailedPrecondition(f"pool {spec.name}: {source.uri} cannot be read as it was: {error}") from error
        return cls(spec, _snapshot(dataset, source))

    @property
    def version(self) -> int:
        """The version that is read."""
        return self._snapshot.version

    def snapshot(self) -> LanceSnapshot:
        """Return the data set."""
        return self._snapshot

    def begin(self) -> Upload:
        """Raise FailedPrecondition."""
        self._refuse()

    def commit(self, uploads: Sequence[Upload], superseded: Addresses) -> None:  # noqa: ARG002
        """Raise FailedPrecondition."""
        self._refuse()

    def wants_compaction(self) -> bool:
        """Return False."""
        return False

    def prepare_compaction(self, budget_bytes: int) -> object | None:  # noqa: ARG002
        """Raise FailedPrecondition."""
        self._refuse()

    def prepare_purge(self, budget_bytes: int) -> object | None:  # noqa: ARG002
        """Raise FailedPrecondition."""
        self._refuse()

    def collect(self, *, before: int) -> bool:  # noqa: ARG002
        """Return True: no earlier version is kept."""
        return True

    def commit_compaction(self, rewrite: object) -> bool:  # noqa: ARG002
        """Raise FailedPrecondition."""
        self._refuse()

    def close(self) -> None:
        """Do nothing: no file is held open."""

    def _refuse(self) -> NoReturn:
        raise FailedPrecondition(f"pool {self._name} is read-only: its items belong to another system", field="pool")


def _source_of(spec: PoolSpec) -> LanceSource:
    if spec.source is None:
        raise ValueError("a pool of its own has no source")
    return spec.source


def _snapshot(dataset: lance.LanceDataset, source: LanceSource) -> LanceSnapshot:
    columns = Columns(
        id=source.id_column,
        vector=source.vector_column,
        text=source.text_column,
        uri=source.uri_column,
        metadata_json=source.metadata_column,
    )
    return LanceSnapshot(dataset, root=_local_path(source.uri), columns=columns)


def _local_path(uri: str) -> Path | None:
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(parts.path)
    return None if parts.scheme else Path(uri)


def _check_columns(schema: pa.Schema, source: LanceSource, spec: PoolSpec) -> None:
    id_type = _type_of(schema, source.id_column, "id_column")
    if not (_is_text(id_type) or pa.types.is_integer(id_type)):
        raise InvalidArgument("spec.source.id_column", f"holds {id_type}, not strings or integers")
    _check_vector_type(_type_of(schema, source.vector_column, "vector_column"), spec)
    for field in ("text_column", "uri_column", "metadata_column"):
        name = getattr(source, field)
        if name and not _is_text(_type_of(schema, name, field)):
            raise InvalidArgument(f"spec.source.{field}", f"{name!r} holds {schema.field(name).type}, not strings")


def _check_vector_type(vector_type: Any, spec: PoolSpec) -> None:
    field = "spec.source.vector_column"
    if not pa.types.is_fixed_size_list(vector_type):
        raise InvalidArgument(field, f"holds {vector_type}, not fixed_size_list of float32 or float16")
    if vector_type.value_type not in (pa.float32(), pa.float16()):
        raise InvalidArgument(field, f"holds {vector_type.value_type} numbers: write them as float32 or float16")
    if vector_type.list_size != spec.dimension:
        raise InvalidArgument(field, f"has {vector_type.list_size:,} dimensions where the pool has {spec.dimension:,}")
    found = np.dtype(vector_type.value_type.to_pandas_dtype())
    if found != spec.vector_type.dtype:
        raise InvalidArgument(field, f"holds {found}, and spec.vector_type is {spec.vector_type}")


def _type_of(schema: pa.Schema, name: str, field: str) -> Any:
    if name not in schema.names:
        raise InvalidArgument(f"spec.source.{field}", f"there is no column {name!r}, but {', '.join(schema.names)}")
    return schema.field(name).type


def _is_text(column_type: Any) -> bool:
    return bool(pa.types.is_string(column_type) or pa.types.is_large_string(column_type))


def _check_items(snapshot: LanceSnapshot, source: LanceSource, metric: Metric) -> None:
    for field, name in (("id_column", source.id_column), ("vector_column", source.vector_column)):
        if nulls := snapshot.dataset.count_rows(filter=f"`{name}` IS NULL"):
            raise InvalidArgument(f"spec.source.{field}", f"{name!r} is null in {nulls:,} rows")
    _check_ids(snapshot.dataset.to_table(columns=[source.id_column])[source.id_column])
    for batch in snapshot.dataset.to_batches(columns=[source.vector_column], batch_size=4096):
        flat = batch.column(source.vector_column).flatten()
        vectors = flat.to_numpy(zero_copy_only=False).reshape(len(batch), -1)
        if flat.null_count or not np.isfinite(vectors).all():
            raise InvalidArgument("spec.source.vector_column", "has numbers that are null, NaN or infinite")
        if metric is Metric.COSINE and not vectors.any(axis=1).all():
            raise InvalidArgument("spec.source.vector_column", "has zero vectors, which have no direction under cosine")


def _check_ids(column: pa.ChunkedArray) -> None:
    field = "spec.source.id_column"
    unique = pc.count_distinct(column).as_py()
    if unique != len(column):
        counts = pc.value_counts(column)
        repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))[0].as_py()
        raise InvalidArgument(field, f"{len(column) - unique:,} rows repeat an id, {str(repeated)!r} for one")
    if pa.types.is_integer(column.type):
        return  # 20 digits at most
    lengths = pc.min_max(pc.binary_length(column)).as_py()
    if len(column) and not 1 <= lengths["min"] <= lengths["max"] <= _MAX_ID_BYTES:
        raise InvalidArgument(field, f"ids have {lengths['min']} to {lengths['max']:,} bytes, not 1 to {_MAX_ID_BYTES}")
