"""Engines by name. A new one is one file and one line here."""

from index_server.engines import cagra, flat, hnsw, ivf_flat, ivf_pq, lsh, milvus
from index_server.engines.build import BuildRequest, EngineKind, GpuLayout

ENGINES: dict[str, EngineKind] = {
    flat.KIND.name: flat.KIND,
    ivf_flat.KIND.name: ivf_flat.KIND,
    ivf_pq.KIND.name: ivf_pq.KIND,
    hnsw.KIND.name: hnsw.KIND,
    lsh.KIND.name: lsh.KIND,
    cagra.KIND.name: cagra.KIND,
    milvus.KIND.name: milvus.KIND,
}

__all__ = ["ENGINES", "BuildRequest", "EngineKind", "GpuLayout"]
