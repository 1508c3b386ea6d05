"""Engines by name. A new one is one file and one line here."""

from index_server.engines import flat, hnsw, ivf_flat
from index_server.engines.build import BuildRequest, EngineKind

ENGINES: dict[str, EngineKind] = {
    flat.KIND.name: flat.KIND,
    ivf_flat.KIND.name: ivf_flat.KIND,
    hnsw.KIND.name: hnsw.KIND,
}

__all__ = ["ENGINES", "BuildRequest", "EngineKind"]
