"""milvus-lite: Milvus as a library with its data in a file, through pymilvus."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.port import Vectors, new_ids
from benchmarks.statistics import seconds

_INSERT_ROWS = 5_000
_GET_ROWS = 5_000


class MilvusLitePeer:
    """IVF_FLAT with 4·√items lists, which is what it builds beside an exact scan."""

    efforts: Sequence[int] = (16, 32, 48, 64, 96, 128, 192, 256, 512)
    effort_name = "nprobe"

    def start(self, folder: Path, dimension: int) -> str:
        """Open a file and make a collection."""
        from importlib.metadata import version

        from pymilvus import DataType, MilvusClient

        self._client: Any = MilvusClient(str(folder / "lite.db"))
        schema = self._client.create_schema(auto_id=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
        self._client.create_collection("items", schema=schema)
        self._items = 0
        return f"milvus-lite {version('milvus-lite')}, in process, IVF_FLAT, 4·√items lists"

    def ingest(self, ids: Sequence[str], vectors: Vectors) -> str:
        """Insert in batches, and flush."""
        for start in range(0, len(ids), _INSERT_ROWS):
            some = zip(ids[start : start + _INSERT_ROWS], vectors[start : start + _INSERT_ROWS], strict=True)
            self._client.insert("items", [{"id": item_id, "vector": vector} for item_id, vector in some])
        self._client.flush("items")
        self._items = len(ids)
        return "written to its file; whether synced is not said"

    def build(self) -> float:
        """Build the index and load the collection."""
        return seconds(self._build)

    def _build(self) -> None:
        parameters = self._client.prepare_index_params()
        lists = round(4 * self._items**0.5)
        parameters.add_index("vector", index_type="IVF_FLAT", metric_type="IP", params={"nlist": lists})
        self._client.create_index("items", parameters)
        self._client.load_collection("items")

    def tune(self, effort: int) -> None:
        """Set nprobe."""
        self._parameters = {"metric_type": "IP", "params": {"nprobe": effort}}

    def search(self, queries: Vectors, k: int, exclude: Sequence[str]) -> list[list[str]]:
        """Search with a filter over ids."""
        expression = f"id not in {list(exclude)}" if exclude else ""
        found = self._client.search(
            "items", data=list(queries), limit=k, filter=expression, search_params=self._parameters
        )
        return [[hit["id"] for hit in hits] for hits in found]

    def expand(self, ids: Sequence[str], queries: Vectors, k: int) -> tuple[list[str], Vectors]:
        """Search for k + 1, the item itself being one, subtract, and get the vectors."""
        fresh = new_ids(self.search(queries, k + 1, ()), ids)
        rows: dict[str, Any] = {}
        for start in range(0, len(fresh), _GET_ROWS):
            answer = self._client.get("items", ids=fresh[start : start + _GET_ROWS], output_fields=["id", "vector"])
            rows |= {row["id"]: row["vector"] for row in answer}
        return fresh, np.array([rows[item_id] for item_id in fresh], np.float32)

    def close(self) -> None:
        """Close the file."""
        self._client.close()
