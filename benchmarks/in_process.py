"""What the server is held against: FAISS and NumPy in this process, as someone who knows them would write it."""

from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from sealpool.types import Vectors

_BLOCK_ROWS: Final = 16_384
IVF_PROBES: Final = 32
HNSW_NEIGHBORS: Final = 32
HNSW_EF_SEARCH: Final = 256


def flat_index(vectors: Vectors) -> Any:
    """Return an exact index over `vectors`, by inner product."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def like_the_server(engine: str, vectors: Vectors) -> Any:
    """Return FAISS's index of the server's engine with the server's defaults. KeyError for one not compared here."""
    return {"flat": flat_index, "ivf_flat": _ivf_flat, "hnsw": _hnsw}[engine](vectors)


def _ivf_flat(vectors: Vectors) -> Any:
    items, dimension = vectors.shape
    lists = round(4 * np.sqrt(items))
    index: Any = faiss.index_factory(dimension, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    # A quarter of FAISS's own cap: what is measured here is searching, and the clusters are hardly worse.
    index.cp.max_points_per_centroid = 64
    index.train(vectors)
    index.add(vectors)
    index.nprobe = IVF_PROBES
    index.make_direct_map(True)
    return index


def _hnsw(vectors: Vectors) -> Any:
    index = faiss.IndexHNSWFlat(vectors.shape[1], HNSW_NEIGHBORS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 200
    index.hnsw.efSearch = HNSW_EF_SEARCH
    index.add(vectors)
    return index


def exact_neighbors(index: Any, vectors: Vectors, rows: list[int], k: int) -> NDArray[np.int64]:
    """Return the k nearest rows of each of `rows`, itself left out by number: (len(rows), k)."""
    _, found = index.search(vectors[rows], k + 1)
    return np.array([[row for row in some if row != own][:k] for own, some in zip(rows, found, strict=True)])


def linear_scan(vectors: Vectors, weights: Vectors, count: int) -> NDArray[np.int64]:
    """Return the `count` rows of highest entropy under a softmax over `weights` (classes, d), best first.

    In blocks that stay in the processor's cache, which is faster than whole columns.
    """
    entropies = np.empty(len(vectors), np.float32)
    transposed = np.ascontiguousarray(weights.T)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        logits = vectors[start : start + _BLOCK_ROWS] @ transposed
        logits -= logits.max(axis=1, keepdims=True)
        powers = np.exp(logits)
        sums = powers.sum(axis=1)
        entropies[start : start + _BLOCK_ROWS] = np.log(sums) - (powers * logits).sum(axis=1) / sums
    best = np.argpartition(-entropies, count)[:count]
    return best[np.argsort(-entropies[best], kind="stable")]
