"""Bulk ingest, durable, with ids, against writing and syncing the same bytes to a plain file."""

import os
from pathlib import Path

from benchmarks.data import item_ids
from benchmarks.index.workbench import Workbench, fill
from benchmarks.report import Figure, at_least
from benchmarks.statistics import median, seconds
from sealpool.types import Vectors

_REPETITIONS = 3
_CHUNK_BYTES = 2 << 20


def measure(bench: Workbench, figure: Figure) -> None:
    """Measure an upsert until it is acknowledged, and the file, in turn, on the same file system."""
    vectors, ids = bench.gaussian_vectors, item_ids(bench.options.items)
    names = "".join(ids).encode()
    upserts, files = [], []
    for repetition in range(_REPETITIONS):
        name = f"ingest-{repetition}"
        # Exact, so that no index is built in the background while the file is written.
        upserts.append(fill(bench.client, name, vectors, ids, engine="flat"))
        bench.client.delete_pool(name)
        files.append(seconds(lambda: write_durably(bench.options.folder / "plain", vectors, names)))
        (bench.options.folder / "plain").unlink()
    size = vectors.nbytes + len(names)
    upsert_s, file_s = median(upserts), median(files)
    figure.add(f"{len(ids):,} items, vectors and ids", size / 1e6, "MB")
    figure.add("Upsert over gRPC, until durable", size / upsert_s / 1e6, "MB/s")
    figure.add("Upsert over gRPC, items", len(ids) / upsert_s, "items/s")
    figure.add("plain file, written and synced", size / file_s / 1e6, "MB/s")
    figure.add("Upsert / plain file", file_s / upsert_s, "×", bench.at_full_size(at_least(0.4)))
    loaded = bench.gaussian()
    figure.add(
        f"until the index that the server chose ({loaded.pool.engine}) serves", loaded.upsert_s + loaded.build_s, "s"
    )


def write_durably(path: Path, vectors: Vectors, names: bytes) -> None:
    """Write both to a new file and sync it and its folder."""
    content = vectors.data.cast("B")
    with path.open("wb", buffering=0) as file:
        for part in (content, memoryview(names)):
            for start in range(0, len(part), _CHUNK_BYTES):
                file.write(part[start : start + _CHUNK_BYTES])
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
