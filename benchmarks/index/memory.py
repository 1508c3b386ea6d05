"""Resident memory of a server with one exact pool, after a restart, against the raw vectors."""

from benchmarks.index.workbench import Workbench
from benchmarks.report import Figure, at_most
from benchmarks.server import IndexServer


def measure(bench: Workbench, figure: Figure) -> None:
    """Measure after a search, which leaves FAISS's own working memory in place."""
    raw = bench.gaussian_vectors.nbytes
    with IndexServer(bench.options.folder / "empty") as server:
        idle = server.resident_bytes
    with IndexServer(bench.flat_folder) as server, server.client() as client:
        client.search("flat", k=10, vectors=bench.gaussian_vectors[:10])
        resident = server.resident_bytes
    figure.add("raw vectors", raw / 1e6, "MB")
    figure.add("VmRSS of an idle server", idle / 1e6, "MB")
    figure.add(f"VmRSS with {bench.options.items:,} items, flat", resident / 1e6, "MB")
    figure.add("(VmRSS − idle) / raw vectors", (resident - idle) / raw, "×", bench.at_full_size(at_most(1.2)))
    figure.add("VmRSS / raw vectors", resident / raw, "×")
