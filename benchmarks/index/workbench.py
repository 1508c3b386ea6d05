"""What the figures share: a server, and pools filled once."""

import contextlib
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from benchmarks.data import gaussian_mixture, item_ids, random_projection, tiled
from benchmarks.in_process import flat_index
from benchmarks.report import Target
from benchmarks.server import IndexServer, wait_until_built
from benchmarks.titles import title_vectors
from sealpool.client import IndexClient
from sealpool.types import ItemId, Items, Vectors
from sealpool.v1 import common_pb2, index_pb2

FULL_ITEMS: Final = 1_000_000
NOISE: Final = 0.3
"""Of a tiled copy: its cosine similarity to the text it was made of is 0.96 in the mean."""
BATCH: Final = 100
NEIGHBORS: Final = 100
SEALS: Final = common_pb2.PolicySpec(name="seals", k=NEIGHBORS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is measured on.

    Parameters
    ----------
    repetitions
        Of everything that takes a second or less; what takes longer is repeated three times.
    titles
        Texts to embed, None for none.
    graph
        Whether the neighbour graph is built of every item, or lazily, of those asked for.
    """

    items: int
    dimension: int
    repetitions: int
    titles: Path | None
    graph: index_pb2.NeighborGraphKind.ValueType
    cache: Path
    folder: Path

    @property
    def quick(self) -> bool:
        """Whether there are fewer items than the targets speak of."""
        return self.items < FULL_ITEMS


@dataclass(frozen=True, kw_only=True)
class LoadedPool:
    """A pool of the server, with the same vectors in this process."""

    name: str
    vectors: Vectors
    ids: list[ItemId]
    pool: index_pb2.Pool
    upsert_s: float
    build_s: float
    row_of: dict[ItemId, int] = field(repr=False)

    @cached_property
    def exact(self) -> Any:
        """An exact FAISS index over the vectors."""
        return flat_index(self.vectors)

    @property
    def chosen(self) -> str:
        """The engine, its recall as the server says, and why."""
        return (
            f"{self.pool.engine} ({self.pool.engine_reason}; recall by the server's own measure {self.pool.recall:.3f})"
        )


class Workbench:
    """Makes what a figure asks for, once. A context manager: the server and its folder go at the end."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._stack = contextlib.ExitStack()
        self._pools: dict[str, LoadedPool] = {}

    def __enter__(self) -> "Workbench":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def at_full_size(self, target: Target) -> Target | None:
        """Return a target that speaks of FULL_ITEMS items; None where there are fewer."""
        return None if self.options.quick else target

    @cached_property
    def server(self) -> IndexServer:
        """The server that the figures share."""
        return self._stack.enter_context(IndexServer(self.options.folder / "shared"))

    @cached_property
    def client(self) -> IndexClient:
        """A client of it."""
        return self._stack.enter_context(self.server.client())

    @cached_property
    def gaussian_vectors(self) -> Vectors:
        """The mixture of Gaussians."""
        return gaussian_mixture(self.options.items, self.options.dimension)

    @cached_property
    def title_vectors(self) -> Vectors:
        """Embeddings of titles, tiled with noise. NoTitlesError where there are none."""
        count = min(self.options.items, 148_000 if not self.options.quick else self.options.items // 10)
        base = title_vectors(self.options.titles, count, cache=self.options.cache)
        return tiled(random_projection(base, self.options.dimension), self.options.items, noise=NOISE)

    def gaussian(self) -> LoadedPool:
        """Return the pool of the mixture, its engine chosen by the server."""
        return self.load("gaussian", self.gaussian_vectors)

    def titles(self) -> LoadedPool:
        """Return the pool of titles. NoTitlesError where there are none."""
        return self.load("titles", self.title_vectors)

    def load(
        self,
        name: str,
        vectors: Vectors,
        *,
        engine: str = "auto",
        graph: index_pb2.NeighborGraphKind.ValueType = index_pb2.NEIGHBOR_GRAPH_KIND_NONE,
    ) -> LoadedPool:
        """Return the pool `name`, filled with `vectors` and built when it is first asked for."""
        if name not in self._pools:
            ids = item_ids(len(vectors))
            upsert_s = fill(self.client, name, vectors, ids, engine=engine, graph=graph)
            pool, build_s = wait_until_built(self.client, name)
            rows = {item_id: row for row, item_id in enumerate(ids)}
            self._pools[name] = LoadedPool(
                name=name, vectors=vectors, ids=ids, pool=pool, upsert_s=upsert_s, build_s=build_s, row_of=rows
            )
        return self._pools[name]

    def unload(self, name: str) -> None:
        """Delete a pool that later figures have no use for."""
        if self._pools.pop(name, None) is not None:
            self.client.delete_pool(name)

    @cached_property
    def flat_folder(self) -> Path:
        """The data of a stopped server whose only pool is exact."""
        folder = self.options.folder / "flat"
        with IndexServer(folder) as server, server.client() as client:
            fill(client, "flat", self.gaussian_vectors, item_ids(self.options.items), engine="flat")
        return folder


def fill(
    client: IndexClient,
    name: str,
    vectors: Vectors,
    ids: list[ItemId],
    *,
    engine: str = "auto",
    graph: index_pb2.NeighborGraphKind.ValueType = index_pb2.NEIGHBOR_GRAPH_KIND_NONE,
) -> float:
    """Make a pool of these items and return the seconds of the upsert, until it was acknowledged as durable."""
    client.create_pool(
        index_pb2.PoolSpec(
            name=name,
            dimension=vectors.shape[1],
            engine=engine,
            device="cpu",
            neighbor_graph=index_pb2.NeighborGraph(kind=graph, neighbors=NEIGHBORS),
        )
    )
    started = time.perf_counter()
    client.upsert(name, Items(ids=ids, vectors=vectors))
    return time.perf_counter() - started
