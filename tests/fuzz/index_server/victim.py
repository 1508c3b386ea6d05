"""A pool to be fuzzed, what its requests look like, and a pool beside it that must not change."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from sealpool.matrix import to_matrix
from sealpool.v1 import common_pb2, index_pb2, index_pb2_grpc
from tests.support.index_workload import State, read_state
from tests.support.mutate import Templates

DIMENSION = 4
POOL, SPARE, CONTROL = "victim", "spare", "control-3b1f"
ITEMS = 40
CAMPAIGN = "red"
LIMITS = {
    "max_pools": 20,
    "max_upsert_rows": 2000,
    "max_ids": 2000,
    "max_k": 200,
    "max_queries": 200,
    "max_neighbors": 5000,
    "max_sample": 2000,
    "max_candidates": 2000,
    "max_campaigns": 10,
}


def vectors(rows: int, seed: int, columns: int = DIMENSION) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Draw vectors."""
    return np.random.default_rng(seed).standard_normal((rows, columns), dtype=np.float32)


def batch(prefix: str, count: int, seed: int) -> common_pb2.ItemBatch:
    """Draw items named by `prefix` and their number."""
    payloads = common_pb2.Payloads(texts=[f"text {number}" for number in range(count)])
    ids = [f"{prefix}-{number}" for number in range(count)]
    return common_pb2.ItemBatch(ids=ids, vectors=to_matrix(vectors(count, seed)), payloads=payloads)


def templates(chance: random.Random, uri_root: Path) -> Templates:
    """Return how to draw requests that a live server takes."""
    return Templates(
        chance,
        messages={
            "sealpool.v1.Matrix": lambda c: to_matrix(vectors(c.choice([1, 1, 2, 5]), c.randrange(99))),
            "sealpool.v1.ItemBatch": lambda c: batch(c.choice(["item", "new"]), c.choice([1, 3, 20]), c.randrange(99)),
        },
        fields={
            "pool": lambda c: c.choice([*[POOL] * 9, SPARE, "nobody"]),
            # A pool made or deleted: seldom the victim itself.
            "name": lambda c: c.choice([SPARE, SPARE, f"made-{c.randrange(4)}", POOL, ""]),
            "PolicySpec.name": lambda c: c.choice(["", "", "seals", "full", "anchoral", "random_subset"]),
            "campaign": lambda c: c.choice([CAMPAIGN, CAMPAIGN, "blue", ""]),
            "alias": lambda c: f"alias-{c.randrange(3)}",
            "uri": lambda c: str(uri_root / f"snapshot-{c.randrange(5)}"),
            "dimension": lambda _: DIMENSION,
            "engine": lambda c: c.choice(["", "auto", "flat", "ivf_flat", "ivf_pq", "hnsw", "lsh", "cagra"]),
            "device": lambda c: c.choice(["", "auto", "cpu", "cuda"]),
            "strategy": lambda c: c.choice(["", "entropy", "margin", "least_confidence", "most_likely_positive"]),
            "k": lambda c: c.choice([0, 1, 5, 100]),
            "count": lambda c: c.choice([1, 5, 100]),
            "labels": lambda c: [c.randrange(3) for _ in range(3)],
            "label_counts": lambda _: [1, 1, 1],
            "ids": lambda c: _ids(c, c.choice([1, 3, 10])),
            "exclude": lambda c: _ids(c, c.choice([0, 3])),
            # The one has to be among the other.
            "labelled_ids": lambda c: [f"item-{number}" for number in range(c.choice([3, 3, 10]))],
            "expand_from_ids": lambda c: [f"item-{number}" for number in range(c.choice([0, 1, 3]))],
        },
    )


def _ids(chance: random.Random, count: int) -> list[str]:
    return [f"item-{number}" for number in chance.sample(range(ITEMS), count)]


def make_pools(stub: index_pb2_grpc.IndexServiceStub, names: Sequence[str]) -> None:
    """Make pools and fill them, those that are not there."""
    there = {pool.spec.name for pool in stub.ListPools(index_pb2.ListPoolsRequest(), timeout=10).pools}
    for name in names:
        if name in there:
            continue
        spec = index_pb2.PoolSpec(name=name, dimension=DIMENSION, metric=index_pb2.METRIC_L2)
        try:
            stub.CreatePool(index_pb2.CreatePoolRequest(spec=spec), timeout=10)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise
            continue  # a caller who left had begun to make it
        items = batch("item", ITEMS, 1)
        stub.Upsert(iter([index_pb2.UpsertRequest(pool=name, items=items, last=True)]), timeout=10)
        request = index_pb2.ExpandCandidatesRequest(pool=name, campaign=CAMPAIGN)
        request.labelled_ids.extend(["item-1", "item-2"])
        request.expand_from_ids.extend(["item-1"])
        list(stub.ExpandCandidates(request, timeout=10))


def control_state(stub: index_pb2_grpc.IndexServiceStub) -> tuple[State, list[str], bytes]:
    """Return all that can be seen of the control pool, and what a search in it finds."""
    request = index_pb2.SearchRequest(pool=CONTROL, k=10)
    request.vectors.CopyFrom(to_matrix(vectors(5, 7)))
    found = stub.Search(request, timeout=10)
    return read_state(stub)[CONTROL], list(found.ids), found.scores.data


def wrong_pools(stub: index_pb2_grpc.IndexServiceStub) -> list[str]:
    """Return the pools whose items are not as many as the pool says, or whose vectors are not finite."""
    wrong = []
    for name, state in read_state(stub).items():
        if "failed" in state:
            wrong.append(f"{name}: {state['failed']}")
            continue
        whole = all(np.isfinite(vector).all() for vector, _ in state["items"].values())
        if state["size"] != len(state["items"]) or not whole:
            wrong.append(f"{name}: {state['size']} items, {len(state['items'])} read, finite: {whole}")
    return wrong
