"""The Milvus server of PyPI's `milvus` package, one process, over gRPC on loopback."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.port import Vectors, new_ids
from benchmarks.statistics import seconds

_INSERT_ROWS = 10_000
_GET_ROWS = 10_000


class MilvusPeer:
    """HNSW with 32 links. Excluded ids are a filter expression; the neighbours' vectors a query by primary key."""

    efforts: Sequence[int] = (128, 192, 256, 384, 512, 1024)
    effort_name = "ef"

    def start(self, folder: Path, dimension: int) -> str:
        """Start the server and make a collection."""
        import milvus
        from pymilvus import connections

        self._server: Any = milvus.MilvusServer(milvus.MilvusServerConfig(data_dir=str(folder / "milvus")))
        self._server.start()
        connections.connect("default", host="127.0.0.1", port=str(self._server.listen_port))
        self._make_collection(dimension)
        return f"Milvus {milvus.__version__} server (PyPI), HNSW, 32 links, efConstruction 200"

    def _make_collection(self, dimension: int) -> None:
        from pymilvus import Collection, CollectionSchema, DataType, FieldSchema

        fields = [
            FieldSchema("id", DataType.VARCHAR, is_primary=True, max_length=64),
            FieldSchema("vector", DataType.FLOAT_VECTOR, dim=dimension),
        ]
        self._collection: Any = Collection("items", CollectionSchema(fields), consistency_level="Strong")
        # Strong reads wait for the next time tick, 200 ms; what is searched was loaded whole before.
        self._reads = "Eventually"
        self._parameters: dict[str, Any] = {}

    def ingest(self, ids: Sequence[str], vectors: Vectors) -> str:
        """Insert in batches, and flush."""
        for start in range(0, len(ids), _INSERT_ROWS):
            stop = start + _INSERT_ROWS
            self._collection.insert([list(ids[start:stop]), vectors[start:stop].tolist()])
        self._collection.flush()
        return "flushed: written as sealed segments"

    def build(self) -> float:
        """Build the index and load the collection."""
        return seconds(self._build)

    def _build(self) -> None:
        from pymilvus import utility

        parameters = {"M": 32, "efConstruction": 200}
        index = {"index_type": "HNSW", "metric_type": "IP", "params": parameters}
        self._collection.create_index("vector", index)
        utility.wait_for_index_building_complete("items")
        self._collection.load()

    def tune(self, effort: int) -> None:
        """Set ef."""
        self._parameters = {"metric_type": "IP", "params": {self.effort_name: effort}}

    def search(self, queries: Vectors, k: int, exclude: Sequence[str]) -> list[list[str]]:
        """Search with a filter over ids."""
        expression = f"id not in {list(exclude)}" if exclude else None
        found = self._collection.search(
            queries.tolist(), "vector", self._parameters, k, expr=expression, consistency_level=self._reads
        )
        return [list(hits.ids) for hits in found]

    def expand(self, ids: Sequence[str], queries: Vectors, k: int) -> tuple[list[str], Vectors]:
        """Search for k + 1, the item itself being one, subtract, and query the vectors."""
        fresh = new_ids(self.search(queries, k + 1, ()), ids)
        rows: dict[str, Any] = {}
        for start in range(0, len(fresh), _GET_ROWS):
            expression = f"id in {fresh[start : start + _GET_ROWS]}"
            rows |= {row["id"]: row["vector"] for row in self._query(expression)}
        return fresh, np.array([rows[item_id] for item_id in fresh], np.float32)

    def _query(self, expression: str) -> Any:
        return self._collection.query(expression, output_fields=["vector"], consistency_level=self._reads)

    def close(self) -> None:
        """Stop the server."""
        self._server.stop()
