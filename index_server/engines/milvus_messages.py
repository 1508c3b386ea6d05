"""Milvus's messages, to and from NumPy."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_server.spec import Metric
from sealpool.errors import FailedPrecondition
from sealpool.types import Vectors

Keys = NDArray[np.int64]
"""Primary keys in Milvus."""


@dataclass(frozen=True, slots=True)
class Messages:
    """The generated modules of pymilvus. It ships no types for them."""

    common: Any
    schema: Any
    milvus: Any
    services: Any

    @classmethod
    def load(cls) -> "Messages":
        """Import them; raise FailedPrecondition where pymilvus is not installed."""
        try:
            package = import_module("pymilvus.grpc_gen")
        except ImportError as error:
            raise FailedPrecondition("milvus_uri needs pymilvus: pip install 'sealpool[milvus]'") from error
        names = ("common_pb2", "schema_pb2", "milvus_pb2", "milvus_pb2_grpc")
        return cls(*(import_module(f"{package.__name__}.{name}") for name in names))

    def pairs(self, values: Mapping[str, str]) -> list[Any]:
        """Return `values` as Milvus takes them."""
        return [self.common.KeyValuePair(key=key, value=value) for key, value in values.items()]

    def collection(self, name: str, *, key: str, vector: str, dimension: int) -> bytes:
        """Return the schema of a collection of vectors by key."""
        schema = self.schema
        fields = [
            schema.FieldSchema(name=key, data_type=schema.DataType.Int64, is_primary_key=True),
            schema.FieldSchema(
                name=vector,
                data_type=schema.DataType.FloatVector,
                type_params=self.pairs({"dim": str(dimension)}),
            ),
        ]
        content: bytes = schema.CollectionSchema(name=name, fields=fields).SerializeToString()
        return content

    def index(self, kind: str, metric: Metric, parameters: Mapping[str, int]) -> list[Any]:
        """Return what an index is to be."""
        return self.pairs({"index_type": kind, "metric_type": _metric(metric), "params": json.dumps(dict(parameters))})

    def key_column(self, name: str, keys: Keys) -> Any:
        """Return a column of keys."""
        schema = self.schema
        scalars = schema.ScalarField(long_data=schema.LongArray(data=keys.tolist()))
        return schema.FieldData(type=schema.DataType.Int64, field_name=name, scalars=scalars)

    def vector_column(self, name: str, vectors: Vectors) -> Any:
        """Return a column of vectors (n, d)."""
        schema = self.schema
        content = np.ascontiguousarray(vectors, "<f4").tobytes()
        # Parsed from its encoding (field 1, packed): appending number by number took 3 to 16 times as long.
        floats = schema.FloatArray.FromString(b"\x0a" + _varint(len(content)) + content)
        field = schema.VectorField(dim=vectors.shape[1], float_vector=floats)
        return schema.FieldData(type=schema.DataType.FloatVector, field_name=name, vectors=field)

    def queries(self, queries: Vectors) -> bytes:
        """Return queries (q, d)."""
        place = self.common.PlaceholderValue(
            tag="$0",
            type=self.common.PlaceholderType.FloatVector,
            values=[query.tobytes() for query in np.ascontiguousarray(queries, "<f4")],
        )
        content: bytes = self.common.PlaceholderGroup(placeholders=[place]).SerializeToString()
        return content

    def search(self, vector: str, fetch: int, metric: Metric, parameters: Mapping[str, int]) -> list[Any]:
        """Return how is to be searched."""
        return self.pairs(
            {
                "anns_field": vector,
                "topk": str(fetch),
                "metric_type": _metric(metric),
                "round_decimal": "-1",
                "params": json.dumps(dict(parameters)),
            }
        )


def found_keys(results: Any, queries: int, fetch: int) -> Keys:
    """Return what was found, which Milvus sends query after query, as one row a query: (q, fetch), −1 for none."""
    found = np.fromiter(results.ids.int_id.data, np.int64)
    counts = np.array(results.topks, np.int64) if len(results.topks) else np.zeros(queries, np.int64)
    keys = np.full((queries, fetch), -1, np.int64)
    keys[np.arange(fetch) < counts[:, None]] = found
    return keys


def _metric(metric: Metric) -> str:
    return "L2" if metric is Metric.L2 else "IP"


def _varint(value: int) -> bytes:
    content = bytearray()
    while value >= 0x80:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*content, value])
