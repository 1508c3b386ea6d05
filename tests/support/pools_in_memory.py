"""Pools of texts in memory, behind the port that re-embedding writes to."""

import threading
from collections.abc import Callable, Iterator

import numpy as np

from sealpool.errors import AlreadyExists, NotFound, SealpoolError
from sealpool.types import Items, Payload
from sealpool.v1 import index_pb2

WAIT_S = 30


class Pools:
    """Pools in memory at the index server's port. `meanwhile` is called at the start of each upsert."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.specs = {"old": index_pb2.PoolSpec(name="old", dimension=2, metric=index_pb2.METRIC_L2, engine="flat")}
        self.items = {
            "old": {i: (Payload(text=t, metadata={"n": i}), np.zeros(2, np.float32)) for i, t in texts.items()}
        }
        self.aliases = {"live": "old"}
        self.upserted: list[str] = []
        self.errors: list[SealpoolError] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def _of(self, name: str):
        if self.errors:
            raise self.errors.pop()
        name = self.aliases.get(name, name)
        if name not in self.items:
            raise NotFound("pool", name)
        return self.items[name]

    def get_pool(self, name: str) -> index_pb2.Pool:
        size = len(self._of(name))
        spec = self.specs[self.aliases.get(name, name)]
        return index_pb2.Pool(spec=spec, size=size, state=index_pb2.POOL_STATE_READY)

    def create_pool(self, spec: index_pb2.PoolSpec) -> index_pb2.Pool:
        if spec.name in self.items:
            raise AlreadyExists("pool", spec.name)
        self.specs[spec.name], self.items[spec.name] = spec, {}
        return index_pb2.Pool(spec=spec)

    def scan_items(self, pool: str, *, vectors: bool = True, payloads: bool = False) -> Iterator[Items]:
        held = dict(self._of(pool))
        ids = list(held)
        for start in range(0, len(ids), 3):
            some = ids[start : start + 3]
            yield Items(ids=some, payloads=[held[i][0] for i in some] if payloads else None)

    def get_items(self, pool: str, ids, *, vectors=True, payloads=False, allow_missing=False) -> Items:
        held = self._of(pool)
        known = [i for i in ids if i in held]
        return Items(ids=known, payloads=[held[i][0] for i in known] if payloads else None)

    def upsert(self, pool: str, items: Items) -> index_pb2.UpsertResponse:
        self.meanwhile()
        held = self._of(pool)
        held.update({i: (p, v) for i, p, v in zip(items.ids, items.payloads, items.vectors, strict=True)})
        self.upserted += items.ids
        return index_pb2.UpsertResponse(inserted=len(items))

    def delete_items(self, pool: str, ids) -> index_pb2.DeleteItemsResponse:
        for item_id in ids:
            self._of(pool).pop(item_id, None)
        return index_pb2.DeleteItemsResponse()

    def set_alias(self, alias: str, pool: str) -> str:
        before, self.aliases[alias] = self.aliases.get(alias, ""), pool
        return before


class Gate:
    """Holds the second upsert until it is opened."""

    def __init__(self, pools: Pools) -> None:
        self.reached, self.open, self._count = threading.Event(), threading.Event(), 0
        pools.meanwhile = self._pass

    def _pass(self) -> None:
        self._count += 1
        if self._count == 2:
            self.reached.set()
            assert self.open.wait(WAIT_S)
