"""sealpool itself, through the same port; its environment is ours."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.peers.port import Vectors

_POOL: Final = "items"


class SealpoolPeer:
    """The index server over gRPC on loopback, its engine chosen by itself: it tunes to a recall of 0.95 on its own."""

    efforts: Sequence[int] = (0,)
    effort_name = "the server's own"

    def start(self, folder: Path, dimension: int) -> str:
        """Start the server and make a pool."""
        from benchmarks.server import IndexServer
        from sealpool.v1 import common_pb2, index_pb2

        self._server = IndexServer(folder / "index_server")
        self._server.start()
        self._client = self._server.client()
        self._client.create_pool(index_pb2.PoolSpec(name=_POOL, dimension=dimension, device="cpu"))
        self._policy = common_pb2.PolicySpec(name="seals")
        self._campaigns = itertools.count()
        return "sealpool index server, engine auto"

    def ingest(self, ids: Sequence[str], vectors: Vectors) -> str:
        """Upsert in one stream."""
        from sealpool.types import ItemId, Items

        self._client.upsert(_POOL, Items(ids=[ItemId(item_id) for item_id in ids], vectors=vectors))
        return "synced to disk"

    def build(self) -> float:
        """Wait for the index that is built in the background."""
        from benchmarks.server import wait_until_built

        return wait_until_built(self._client, _POOL)[1]

    def tune(self, effort: int) -> None:
        """Do nothing."""

    def search(self, queries: Vectors, k: int, exclude: Sequence[str]) -> list[list[str]]:
        """Search, with the excluded ids named."""
        found = self._client.search(_POOL, k=k, vectors=queries, exclude=exclude)
        ends = found.counts.cumsum().tolist()
        return [list(found.ids[end - count : end]) for end, count in zip(ends, found.counts.tolist(), strict=True)]

    def expand(
        self,
        ids: Sequence[str],
        queries: Vectors,  # noqa: ARG002 - the server has them
        k: int,
    ) -> tuple[list[str], Vectors]:
        """Expand a new campaign: the ids are enough, and the server subtracts and remembers."""
        self._policy.k = k
        campaign = f"expand-{next(self._campaigns)}"
        added = self._client.expand_candidates(_POOL, campaign, ids, policy=self._policy).added
        assert added.vectors is not None  # noqa: S101 - asked for
        return list(added.ids), added.vectors

    def close(self) -> None:
        """Stop the server."""
        self._client.close()
        self._server.stop()
