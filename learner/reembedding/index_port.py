"""What re-embedding asks of the index server, beside what all of the learner does."""

from collections.abc import Sequence
from typing import Protocol

from learner.index_port import Index
from sealpool.types import Items
from sealpool.v1 import index_pb2


class WritableIndex(Index, Protocol):
    """An index server that is written to. `sealpool.client.IndexClient` is one; errors are sealpool.errors."""

    def create_pool(self, spec: index_pb2.PoolSpec) -> index_pb2.Pool:
        """Make an empty pool; AlreadyExists if the name is taken."""

    def upsert(self, pool: str, items: Items) -> index_pb2.UpsertResponse:
        """Add or replace items, all of them or none, on disk when this returns."""

    def delete_items(self, pool: str, ids: Sequence[str]) -> index_pb2.DeleteItemsResponse:
        """Delete items; unknown ids are left alone."""

    def set_alias(self, alias: str, pool: str) -> str:
        """Let `alias` stand for `pool`; return the pool that it stood for, "" for none."""
