"""Drawn sequences of calls that change pools, the same for a seed, and what a caller can see after them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sealpool.matrix import from_matrix, to_matrix
from sealpool.v1 import common_pb2, index_pb2, index_pb2_grpc

DIMENSION = 4
BULK, BULK_DELETED = 1500, 1100
"""So many that deleting them makes the store compact itself."""

State = dict[str, Any]
"""What a caller can see, as JSON types: pools by name, each with its items in order and its candidate pools."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its name, and its request or the messages of its stream."""

    method: str
    requests: Sequence[Any]

    def make(self, stub: index_pb2_grpc.IndexServiceStub) -> None:
        """Make the call and take its whole answer."""
        method = getattr(stub, self.method)
        if self.method == "Upsert":
            method(iter(self.requests), timeout=60)
        elif self.method == "ExpandCandidates":
            list(method(self.requests[0], timeout=60))
        else:
            method(self.requests[0], timeout=60)


@dataclass(frozen=True, slots=True)
class Step:
    """One change, or several at once that have no item in common: `parts` are then the ids of each."""

    calls: Sequence[Call]
    parts: Sequence[frozenset[str]] = ()


class Workload:
    """Draws steps. It knows which items there are, and else nothing of what the calls should do."""

    def __init__(self, seed: int, snapshots: Path = Path("snapshots")) -> None:
        self._snapshots = snapshots
        self._random = np.random.default_rng(seed)
        self._ids: list[str] = []
        self._made = 0
        self._other = False
        self._campaigns: set[str] = set()

    def steps(self, count: int) -> Iterator[Step]:
        """Draw `count` steps: each kind at least once if there are enough, in any order."""
        spec = index_pb2.PoolSpec(name="p", dimension=DIMENSION, metric=index_pb2.METRIC_L2)
        spec.neighbor_graph.kind = index_pb2.NEIGHBOR_GRAPH_KIND_FULL
        yield self._create("p", spec)
        yield self._upsert("p", self._new(30))
        kinds = [self._add, self._replace, self._delete, self._grow, self._burst, self._grow_other]
        once = [self._replace_candidates, self._drop, self._bulk, self._other_pool, self._alias, self._mix]
        drawn = [
            *kinds,
            *once,
            self._snapshot,
            *(kinds[i] for i in self._random.integers(len(kinds), size=max(0, count - 20))),
        ]
        for number in self._random.permutation(len(drawn)).tolist():
            yield from drawn[number]()
        yield from self._other_pool()

    def _new(self, count: int) -> list[str]:
        ids = [f"item-{number}" for number in range(self._made, self._made + count)]
        self._made += count
        self._ids += ids
        return ids

    def _some(self, count: int) -> list[str]:
        chosen = self._random.choice(len(self._ids), size=min(count, len(self._ids)), replace=False)
        return [self._ids[i] for i in sorted(chosen.tolist())]

    def _create(self, name: str, spec: index_pb2.PoolSpec) -> Step:
        return Step([Call("CreatePool", [index_pb2.CreatePoolRequest(spec=spec)])])

    def _upsert_call(self, pool: str, ids: Sequence[str]) -> Call:
        middle = len(ids) // 2
        parts = [part for part in (ids[:middle], ids[middle:]) if part]
        requests = [
            index_pb2.UpsertRequest(pool=pool, items=self._items(part), last=number == len(parts))
            for number, part in enumerate(parts, 1)
        ]
        return Call("Upsert", requests)

    def _items(self, ids: Sequence[str]) -> common_pb2.ItemBatch:
        vectors = self._random.standard_normal((len(ids), DIMENSION), dtype=np.float32)
        texts = [f"{item_id} {self._random.integers(1000)}" for item_id in ids]
        return common_pb2.ItemBatch(ids=ids, vectors=to_matrix(vectors), payloads=common_pb2.Payloads(texts=texts))

    def _upsert(self, pool: str, ids: Sequence[str]) -> Step:
        return Step([self._upsert_call(pool, ids)])

    def _add(self) -> Iterator[Step]:
        yield self._upsert("p", self._new(int(self._random.integers(1, 6))))

    def _replace(self) -> Iterator[Step]:
        yield self._upsert("p", self._some(4))

    def _mix(self) -> Iterator[Step]:
        yield self._upsert("p", [*self._some(3), *self._new(3)])

    def _delete(self) -> Iterator[Step]:
        gone = self._some(3)
        self._ids = [item_id for item_id in self._ids if item_id not in gone]
        yield Step([Call("DeleteItems", [index_pb2.DeleteItemsRequest(pool="p", ids=gone)])])

    def _grow(self) -> Iterator[Step]:
        yield self._expand("red", 3)

    def _grow_other(self) -> Iterator[Step]:
        yield self._expand("blue", 1)

    def _expand(self, campaign: str, count: int) -> Step:
        labelled = self._some(count)
        request = index_pb2.ExpandCandidatesRequest(
            pool="p", campaign=campaign, labelled_ids=labelled, expand_from_ids=labelled[:2], include_vectors=True
        )
        request.policy.k = 6
        return Step([Call("ExpandCandidates", [request])])

    def _replace_candidates(self) -> Iterator[Step]:
        yield self._expand("red", 2)
        yield self._upsert("p", self._some(len(self._ids) // 2))

    def _drop(self) -> Iterator[Step]:
        yield self._expand("blue", 2)
        yield Step([Call("DropCandidates", [index_pb2.DropCandidatesRequest(pool="p", campaign="blue")])])

    def _burst(self) -> Iterator[Step]:
        """Change several items at once, which may be committed together."""
        parts = [self._new(2) for _ in range(4)]
        yield Step([self._upsert_call("p", part) for part in parts], [frozenset(part) for part in parts])

    def _bulk(self) -> Iterator[Step]:
        ids = self._new(BULK)
        yield self._upsert("p", ids)
        gone = ids[:BULK_DELETED]
        self._ids = [item_id for item_id in self._ids if item_id not in set(gone)]
        yield Step([Call("DeleteItems", [index_pb2.DeleteItemsRequest(pool="p", ids=gone)])])
        yield from self._add()

    def _other_pool(self) -> Iterator[Step]:
        """Make or delete a pool whose index is trained."""
        if self._other:
            yield Step([Call("DeletePool", [index_pb2.DeletePoolRequest(name="other")])])
        else:
            spec = index_pb2.PoolSpec(name="other", dimension=DIMENSION, engine="ivf_flat")
            spec.options.ivf_lists = 1
            yield self._create("other", spec)
            yield self._upsert("other", [f"other-{number}" for number in range(60)])
        self._other = not self._other

    def _alias(self) -> Iterator[Step]:
        for alias in ("first", "second"):
            yield Step([Call("SetAlias", [index_pb2.SetAliasRequest(alias=alias, pool="p")])])
        yield Step([Call("DeleteAlias", [index_pb2.DeleteAliasRequest(alias="first")])])

    def _snapshot(self) -> Iterator[Step]:
        uri = str(self._snapshots / "one")
        yield Step([Call("CreateSnapshot", [index_pb2.CreateSnapshotRequest(pool="p", uri=uri)])])
        yield Step([Call("RestoreSnapshot", [index_pb2.RestoreSnapshotRequest(uri=uri, name="restored")])])


def read_state(stub: index_pb2_grpc.IndexServiceStub) -> State:
    """Return everything that a caller can see, but for the pools' versions, which compaction also raises."""
    pools = stub.ListPools(index_pb2.ListPoolsRequest(), timeout=60).pools
    return {pool.spec.name: _read_pool(stub, pool) for pool in pools}


def _read_pool(stub: index_pb2_grpc.IndexServiceStub, pool: index_pb2.Pool) -> State:
    name = pool.spec.name
    if pool.state != index_pb2.POOL_STATE_READY:
        return {"failed": pool.engine_reason}
    scan = index_pb2.ScanItemsRequest(pool=name, include_vectors=True, include_payloads=True)
    items: dict[str, Any] = {}
    for answer in stub.ScanItems(scan, timeout=60):
        vectors = from_matrix(answer.items.vectors).tolist()
        texts = list(answer.items.payloads.texts) or [""] * len(vectors)  # a column without content comes empty
        for item_id, vector, text in zip(answer.items.ids, vectors, texts, strict=True):
            items[item_id] = [vector, text]
    campaigns = {campaign: _read_candidates(stub, name, campaign) for campaign in pool.campaigns}
    return {"size": pool.size, "items": items, "campaigns": campaigns, "aliases": list(pool.aliases)}


def _read_candidates(stub: index_pb2_grpc.IndexServiceStub, pool: str, campaign: str) -> State:
    request = index_pb2.ListCandidatesRequest(pool=pool, campaign=campaign, include_vectors=True)
    vectors: dict[str, Any] = {}
    info = common_pb2.CandidatePoolInfo()
    for answer in stub.ListCandidates(request, timeout=60):
        if answer.HasField("info"):
            info = answer.info
        else:
            # Under COSINE they come from the index, which has unit vectors, and may differ in the last bits.
            rounded = from_matrix(answer.items.vectors).round(4).tolist()
            vectors.update(zip(answer.items.ids, rounded, strict=True))
    return {"version": info.version, "size": info.size, "labelled": info.labelled, "vectors": vectors}
