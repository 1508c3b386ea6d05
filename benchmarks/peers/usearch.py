"""usearch, in process: an HNSW index without a store; ids are kept beside it, as its users do."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.port import Vectors, new_ids, without


class UsearchPeer:
    """HNSW with 32 links. It has no filter by id: what is excluded is asked for too, and dropped."""

    efforts: Sequence[int] = (100, 128, 192, 256, 384, 512, 1024, 2048)
    effort_name = "expansion_search"

    def start(self, folder: Path, dimension: int) -> str:
        """Make an empty index."""
        import usearch
        from usearch.index import Index

        self._path = folder / "index.usearch"
        self._ids: list[str] = []
        self._index: Any = Index(ndim=dimension, metric="ip", dtype="f32", connectivity=32, expansion_add=200)
        return f"usearch {usearch.__version__}, in process, HNSW, 32 links, expansion_add 200"

    def ingest(self, ids: Sequence[str], vectors: Vectors) -> str:
        """Add, which builds the index, and save it to a file."""
        self._ids = list(ids)
        self._index.add(np.arange(len(ids)), vectors)
        self._index.save(str(self._path))
        return "saved to a file at the end, not synced; ids not included"

    def build(self) -> float:
        """Return 0: adding built it."""
        return 0.0

    def tune(self, effort: int) -> None:
        """Set expansion_search."""
        self._index.expansion_search = effort

    def search(self, queries: Vectors, k: int, exclude: Sequence[str]) -> list[list[str]]:
        """Search for k and as many more as are excluded."""
        keys = np.atleast_2d(self._index.search(queries if len(queries) > 1 else queries[0], k + len(exclude)).keys)
        found = [[self._ids[key] for key in some] for some in keys.tolist()]
        return [without(some, exclude, k) for some in found] if exclude else found

    def expand(self, ids: Sequence[str], queries: Vectors, k: int) -> tuple[list[str], Vectors]:
        """Search for k + 1, the item itself being one, subtract, and get."""
        keys = self._index.search(queries, k + 1).keys
        known = set(ids)
        rows = [key for key in dict.fromkeys(keys.ravel().tolist()) if self._ids[key] not in known]
        fresh = new_ids([[self._ids[key] for key in rows]], ids)
        return fresh, np.asarray(self._index.get(np.array(rows)), np.float32)

    def close(self) -> None:
        """Forget it."""
        del self._index
