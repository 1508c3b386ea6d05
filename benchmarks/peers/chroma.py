"""Chroma's server over HTTP on loopback."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.port import Vectors, new_ids, without
from benchmarks.statistics import seconds

_START_TIMEOUT_S = 60.0
_COLLECTION = "items"


class ChromaPeer:
    """HNSW with 32 links. Excluded ids are asked for too and dropped: a filter over ids is slower than that here."""

    efforts: Sequence[int] = (100, 128, 192, 256, 384, 512, 1024)
    effort_name = "ef_search"

    def start(self, folder: Path, dimension: int) -> str:
        """Start `chroma run` and make a collection."""
        import chromadb

        self._folder, self._dimension = folder, dimension
        self._serve()
        self._batch = self._client.get_max_batch_size()
        self._collection: Any = self._client.create_collection(
            _COLLECTION,
            configuration={"hnsw": {"space": "ip", "max_neighbors": 32, "ef_construction": 200, "ef_search": 100}},
            embedding_function=None,
        )
        return f"Chroma {chromadb.__version__}, HTTP server, HNSW, 32 links, ef_construction 200"

    def _serve(self) -> None:
        import chromadb

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [str(Path(sys.executable).with_name("chroma")), "run", "--path", str(self._folder / "chroma")]
        with (self._folder / "chroma.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=log, stderr=log, cwd=self._folder
            )
        settings = chromadb.Settings(anonymized_telemetry=False)
        self._client: Any = self._connect(lambda: chromadb.HttpClient(host="127.0.0.1", port=port, settings=settings))

    def _connect(self, connect: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                return connect()
            except ValueError:  # its word for a server that is not there yet
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.1)

    def ingest(self, ids: Sequence[str], vectors: Vectors) -> str:
        """Add in the largest batches that it takes."""
        for start in range(0, len(ids), self._batch):
            stop = start + self._batch
            self._collection.add(ids=list(ids[start:stop]), embeddings=vectors[start:stop])
        return "in its log, an SQLite file; how far it is synced is left to SQLite's settings"

    def build(self) -> float:
        """Search once: what was not yet indexed is by then, or is scanned."""
        query = np.zeros((1, self._dimension), np.float32)
        return seconds(lambda: self._collection.query(query_embeddings=query, n_results=1, include=[]))

    def tune(self, effort: int) -> None:
        """Set ef_search of the collection, and start the server anew: 1.5.9 keeps the old one in a loaded index."""
        self._collection.modify(configuration={"hnsw": {"ef_search": effort}})
        self.close()
        self._serve()
        self._collection = self._client.get_collection(_COLLECTION, embedding_function=None)

    def search(self, queries: Vectors, k: int, exclude: Sequence[str]) -> list[list[str]]:
        """Query for k and as many more as are excluded."""
        found = self._collection.query(query_embeddings=queries, n_results=k + len(exclude), include=[])["ids"]
        return [without(some, exclude, k) for some in found]

    def expand(self, ids: Sequence[str], queries: Vectors, k: int) -> tuple[list[str], Vectors]:
        """Query for k + 1, the item itself being one, subtract, and get the vectors."""
        found = self._collection.query(query_embeddings=queries, n_results=k + 1, include=[])["ids"]
        fresh = new_ids(found, ids)
        parts = [self._vectors(fresh[start : start + self._batch]) for start in range(0, len(fresh), self._batch)]
        return fresh, np.concatenate(parts)

    def _vectors(self, ids: list[str]) -> Vectors:
        answer = self._collection.get(ids=ids, include=["embeddings"])
        place = {item_id: row for row, item_id in enumerate(answer["ids"])}
        return np.asarray(answer["embeddings"], np.float32)[[place[item_id] for item_id in ids]]

    def close(self) -> None:
        """Stop the server."""
        self._process.terminate()
        self._process.wait(30)
