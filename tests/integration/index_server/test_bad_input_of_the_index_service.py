"""Every RPC refuses what the contract says it refuses, names the field, and changes nothing."""

import grpc
import numpy as np
import pytest

from sealpool.matrix import to_matrix
from sealpool.v1 import common_pb2 as common
from sealpool.v1 import index_pb2 as pb

INVALID = grpc.StatusCode.INVALID_ARGUMENT
MISSING = grpc.StatusCode.NOT_FOUND
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
DIMENSION = 4
IDS = [f"i{number}" for number in range(40)]
SEALS = common.PolicySpec(name="seals", k=5)


def vectors(count, seed=0, dimension=DIMENSION):
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def matrix(array):
    return to_matrix(np.asarray(array, np.float32))


def items(ids, array=None, **payloads):
    array = vectors(len(ids)) if array is None else array
    batch = common.ItemBatch(ids=ids, vectors=matrix(array))
    if payloads:
        batch.payloads.CopyFrom(common.Payloads(**payloads))
    return batch


def with_value(value):
    array = vectors(2)
    array[1, 2] = value
    return array


def state(stub):
    """Return everything that a refused call must leave as it was."""
    pools = stub.ListPools(pb.ListPoolsRequest()).pools
    scan = list(stub.ScanItems(pb.ScanItemsRequest(pool="p", include_vectors=True, include_payloads=True)))
    candidates = list(stub.ListCandidates(pb.ListCandidatesRequest(pool="p", campaign="c")))
    return pools, scan, candidates


def fill(stub):
    stub.CreatePool(pb.CreatePoolRequest(spec=pb.PoolSpec(name="p", dimension=DIMENSION)))
    stub.CreatePool(pb.CreatePoolRequest(spec=pb.PoolSpec(name="empty", dimension=DIMENSION)))
    stub.Upsert(iter([pb.UpsertRequest(pool="p", items=items(IDS), last=True)]))
    list(stub.ExpandCandidates(expand(labelled_ids=["i0"], expand_from_ids=["i0"])))
    return stub


@pytest.fixture
def filled(stub):
    return fill(stub)


@pytest.fixture(scope="module")
def unchanged(shared_server):
    """One server for all calls that it refuses, since none may change it."""
    return fill(shared_server.stub)


def refused(stub, call, status, field):
    before = state(stub)
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() is status, caught.value.details()
    assert field in caught.value.details()
    assert state(stub) == before


def expand(**fields):
    return pb.ExpandCandidatesRequest(**{"pool": "p", "campaign": "c", "policy": SEALS, **fields})


SPECS = [
    ({"name": ""}, INVALID, "spec.name"),
    ({"name": "../x"}, INVALID, "spec.name"),
    ({"name": "p"}, grpc.StatusCode.ALREADY_EXISTS, "'p'"),
    ({"dimension": 0}, INVALID, "spec.dimension"),
    ({"dimension": 65_537}, INVALID, "spec.dimension"),
    ({"metric": 9}, INVALID, "spec.metric"),
    ({"dtype": 9}, INVALID, "spec.dtype"),
    ({"engine": "magic"}, INVALID, "spec.engine"),
    ({"device": "tpu"}, INVALID, "spec.device"),
    ({"engine": "hnsw", "device": "cuda"}, INVALID, "spec.device"),
    ({"options": pb.EngineOptions(hnsw_neighbors=1)}, INVALID, "spec.options.hnsw_neighbors"),
    ({"options": pb.EngineOptions(ivf_lists=2_000_000)}, INVALID, "spec.options.ivf_lists"),
]


@pytest.mark.parametrize(("fields", "status", "field"), SPECS)
def test_create_pool(unchanged, fields, status, field):
    spec = pb.PoolSpec(**{"name": "new", "dimension": 4, **fields})
    refused(unchanged, lambda: unchanged.CreatePool(pb.CreatePoolRequest(spec=spec)), status, field)


def test_create_pool_without_a_spec_or_beyond_the_limit(filled):
    refused(filled, lambda: filled.CreatePool(pb.CreatePoolRequest()), INVALID, "spec")
    filled.CreatePool(pb.CreatePoolRequest(spec=pb.PoolSpec(name="third", dimension=1)))
    spec = pb.PoolSpec(name="fourth", dimension=1)
    refused(filled, lambda: filled.CreatePool(pb.CreatePoolRequest(spec=spec)), EXHAUSTED, "max_pools")


BAD_MATRICES = [
    (common.Matrix(data=b"\0" * 16, dtype=0, rows=1, columns=4), "items.vectors.dtype"),
    (common.Matrix(data=b"\0" * 16, dtype=7, rows=1, columns=4), "items.vectors.dtype"),
    (common.Matrix(data=b"\0" * 15, dtype=1, rows=1, columns=4), "items.vectors.data"),
    (common.Matrix(data=b"\0" * 16, dtype=2, rows=1, columns=4), "items.vectors.data"),
    (matrix(vectors(2)), "items.vectors"),
    (matrix(vectors(1, dimension=5)), "items.vectors"),
    (matrix(vectors(0)), "items.vectors"),
    (matrix([[0, 0, 0, 0]]), "items.vectors"),
    (matrix([[1, np.nan, 0, 0]]), "items.vectors"),
    (matrix([[1, np.inf, 0, 0]]), "items.vectors"),
    (matrix([[1, -np.inf, 0, 0]]), "items.vectors"),
    (None, "items.vectors"),
]


@pytest.mark.parametrize(("bad", "field"), BAD_MATRICES)
def test_upsert_of_bad_vectors(unchanged, bad, field):
    good = pb.UpsertRequest(pool="p", items=items(["new", "i1"]))
    request = pb.UpsertRequest(items=common.ItemBatch(ids=["x"], vectors=bad))
    refused(unchanged, lambda: unchanged.Upsert(iter([good, request])), INVALID, field)


BAD_STREAMS = [
    ([], INVALID, "pool"),
    ([pb.UpsertRequest(pool="p", items=items(["x"]))], INVALID, "last"),
    ([pb.UpsertRequest(pool="p", last=True), pb.UpsertRequest(items=items(["x"]), last=True)], INVALID, "last"),
    ([pb.UpsertRequest(items=items(["x"]))], INVALID, "pool"),
    ([pb.UpsertRequest(pool="none", items=items(["x"]))], MISSING, "pool"),
    ([pb.UpsertRequest(pool="p", items=items(["x"])), pb.UpsertRequest(pool="empty")], INVALID, "pool"),
    ([pb.UpsertRequest(pool="p", items=items(["x", "x"]))], INVALID, "items.ids"),
    ([pb.UpsertRequest(pool="p", items=items(["x"])), pb.UpsertRequest(items=items(["x"]))], INVALID, "items.ids"),
    ([pb.UpsertRequest(pool="p", items=items([""]))], INVALID, "items.ids"),
    ([pb.UpsertRequest(pool="p", items=items(["ü" * 129]))], INVALID, "items.ids"),
    ([pb.UpsertRequest(pool="p", items=items(["x"], texts=["a", "b"]))], INVALID, "payloads.texts"),
    ([pb.UpsertRequest(pool="p", items=items(["x"], uris=["u" * 2049]))], INVALID, "payloads.uris"),
    ([pb.UpsertRequest(pool="p", items=items(["x"], metadata_json=["[1]"]))], INVALID, "payloads.metadata_json"),
    (
        [pb.UpsertRequest(pool="p", items=items([f"n{part}-{i}" for i in range(300)])) for part in range(2)],
        EXHAUSTED,
        "max_upsert_rows",
    ),
]


@pytest.mark.parametrize(("stream", "status", "field"), BAD_STREAMS)
def test_upsert_of_a_bad_stream(unchanged, stream, status, field):
    refused(unchanged, lambda: unchanged.Upsert(iter(stream)), status, field)


def test_upsert_of_what_float16_or_float32_products_cannot_hold(stub):
    half = pb.PoolSpec(name="p", dimension=2, dtype=common.DTYPE_FLOAT16)
    stub.CreatePool(pb.CreatePoolRequest(spec=half))
    stub.CreatePool(pb.CreatePoolRequest(spec=pb.PoolSpec(name="l2", dimension=2, metric=pb.METRIC_L2)))
    for pool, value in (("p", 1e6), ("p", 1e-9), ("l2", 1e30)):
        with pytest.raises(grpc.RpcError, match=r"items\.vectors") as caught:
            stub.Upsert(iter([pb.UpsertRequest(pool=pool, items=items(["x"], [[value, value]]))]))
        assert caught.value.code() is INVALID
        assert stub.GetPool(pb.GetPoolRequest(name=pool)).pool.size == 0


UNARY = [
    ("GetPool", pb.GetPoolRequest(name="none"), MISSING, "pool"),
    ("DeletePool", pb.DeletePoolRequest(name="none"), MISSING, "pool"),
    ("DeleteItems", pb.DeleteItemsRequest(pool="none", ids=["i1"]), MISSING, "pool"),
    ("DeleteItems", pb.DeleteItemsRequest(pool="p", ids=["i1", "i1"]), INVALID, "ids"),
    ("DeleteItems", pb.DeleteItemsRequest(pool="p", ids=["i1", ""]), INVALID, "ids"),
    ("DeleteItems", pb.DeleteItemsRequest(pool="p", ids=map(str, range(201))), EXHAUSTED, "max_ids"),
    ("SampleItems", pb.SampleItemsRequest(pool="none", count=1), MISSING, "pool"),
    ("SampleItems", pb.SampleItemsRequest(pool="p", count=51), INVALID, "count"),
    ("SampleItems", pb.SampleItemsRequest(pool="p", count=1, campaign="a b"), INVALID, "campaign"),
    ("Search", pb.SearchRequest(pool="none", ids=["i1"], k=1), MISSING, "pool"),
    ("Search", pb.SearchRequest(pool="p", k=1), INVALID, "vectors"),
    ("Search", pb.SearchRequest(pool="p", ids=["i1"], vectors=matrix(vectors(1)), k=1), INVALID, "vectors"),
    ("Search", pb.SearchRequest(pool="p", vectors=matrix(vectors(0)), k=1), INVALID, "vectors"),
    ("Search", pb.SearchRequest(pool="p", ids=["i1"], k=0), INVALID, "k"),
    ("Search", pb.SearchRequest(pool="p", ids=["i1"], k=101), INVALID, "max_k"),
    ("Search", pb.SearchRequest(pool="p", ids=["none"], k=1), MISSING, "none"),
    ("Search", pb.SearchRequest(pool="p", ids=["i1", "i1"], k=1), INVALID, "ids"),
    ("Search", pb.SearchRequest(pool="p", ids=IDS[:21], k=1), INVALID, "max_queries"),
    ("Search", pb.SearchRequest(pool="p", ids=IDS[:20], k=100), EXHAUSTED, "max_neighbors"),
    ("Search", pb.SearchRequest(pool="p", ids=["i1"], k=1, exclude=["x", "x"]), INVALID, "exclude"),
    ("Search", pb.SearchRequest(pool="p", vectors=matrix(vectors(1, dimension=5)), k=1), INVALID, "vectors"),
    ("Search", pb.SearchRequest(pool="p", vectors=matrix(with_value(np.nan)), k=1), INVALID, "vectors"),
    ("Search", pb.SearchRequest(pool="p", vectors=matrix(with_value(np.inf)), k=1), INVALID, "vectors"),
    ("Search", pb.SearchRequest(pool="p", vectors=matrix([[0, 0, 0, 0]]), k=1), INVALID, "vectors"),
    ("Search", pb.SearchRequest(pool="p", vectors=common.Matrix(rows=1), k=1), INVALID, "vectors.dtype"),
    ("DropCandidates", pb.DropCandidatesRequest(pool="none", campaign="c"), MISSING, "pool"),
    ("DropCandidates", pb.DropCandidatesRequest(pool="p", campaign=""), INVALID, "campaign"),
]


@pytest.mark.parametrize(("method", "request_", "status", "field"), UNARY)
def test_unary_calls(unchanged, method, request_, status, field):
    refused(unchanged, lambda: getattr(unchanged, method)(request_), status, field)


LONG = "x" * 20_000
BAD_NAMES = [
    ("GetPool", {"name": LONG}, "name"),
    ("GetPool", {"name": "ü" * 20_000}, "name"),
    ("GetPool", {"name": ""}, "name"),
    ("DeletePool", {"name": LONG}, "name"),
    ("DeleteItems", {"pool": LONG, "ids": ["i1"]}, "pool"),
    ("SampleItems", {"pool": "../p", "count": 1}, "pool"),
    ("Search", {"pool": LONG, "ids": ["i1"], "k": 1}, "pool"),
    ("DropCandidates", {"pool": LONG, "campaign": "c"}, "pool"),
    ("ExplainCandidates", {"pool": LONG, "campaign": "c", "ids": ["i1"]}, "pool"),
    ("GetReachability", {"pool": LONG, "campaign": "c"}, "pool"),
    ("CreateSnapshot", {"pool": LONG}, "pool"),
    ("CreateSnapshot", {"pool": "p"}, "uri"),
    ("CreateSnapshot", {"pool": "p", "uri": "a\0b"}, "uri"),
    ("CreateSnapshot", {"pool": "p", "uri": "x" * 256}, "uri"),
    ("RestoreSnapshot", {"uri": "a\0b"}, "uri"),
    ("RestoreSnapshot", {"uri": "ü" * 130}, "uri"),
    ("RestoreSnapshot", {"uri": "x/" * 1025}, "uri"),
    ("SetAlias", {"alias": "a", "pool": LONG}, "pool"),
    ("SetAlias", {"alias": LONG, "pool": "p"}, "alias"),
    ("DeleteAlias", {"alias": LONG}, "alias"),
]


@pytest.mark.parametrize(("method", "fields", "field"), BAD_NAMES)
def test_names_that_can_name_nothing(unchanged, method, fields, field):
    request = getattr(pb, f"{method}Request")(**fields)
    with pytest.raises(grpc.RpcError) as caught:
        getattr(unchanged, method)(request)
    assert caught.value.code() is INVALID, caught.value.details()
    assert caught.value.details().startswith(f"{field}: ")
    assert len(caught.value.details()) < 1000
    assert dict(caught.value.trailing_metadata())["sealpool-field"] == field


STREAMING = [
    ("GetItems", pb.GetItemsRequest(pool="none", ids=["i1"]), MISSING, "pool"),
    ("GetItems", pb.GetItemsRequest(pool="p", ids=["i1", "none"]), MISSING, "none"),
    ("GetItems", pb.GetItemsRequest(pool="p", ids=["i1", "i1"]), INVALID, "ids"),
    ("GetItems", pb.GetItemsRequest(pool="p", ids=map(str, range(201))), EXHAUSTED, "max_ids"),
    ("ScanItems", pb.ScanItemsRequest(pool="none"), MISSING, "pool"),
    ("ListCandidates", pb.ListCandidatesRequest(pool="none", campaign="c"), MISSING, "pool"),
    ("ListCandidates", pb.ListCandidatesRequest(pool="p", campaign="other"), MISSING, "campaign"),
    ("ExpandCandidates", expand(pool="none"), MISSING, "pool"),
    ("ExpandCandidates", expand(pool="empty"), grpc.StatusCode.FAILED_PRECONDITION, "empty"),
    ("ExpandCandidates", expand(campaign="-"), INVALID, "campaign"),
    ("ExpandCandidates", expand(labelled_ids=["i1", "i1"]), INVALID, "labelled_ids"),
    ("ExpandCandidates", expand(labelled_ids=["i1", ""]), INVALID, "labelled_ids"),
    ("ExpandCandidates", expand(labelled_ids=map(str, range(201))), EXHAUSTED, "max_ids"),
    ("ExpandCandidates", expand(labelled_ids=["i1"], expand_from_ids=["i2"]), INVALID, "expand_from_ids"),
    ("ExpandCandidates", expand(labelled_ids=["i1"], expand_from_ids=["i1"] * 2), INVALID, "expand_from_ids"),
    ("ExpandCandidates", expand(labelled_ids=["i1", "no"], expand_from_ids=["i1", "no"]), MISSING, "no"),
    ("ExpandCandidates", expand(policy=common.PolicySpec(name="magic")), INVALID, "policy.name"),
    ("ExpandCandidates", expand(policy=common.PolicySpec(name="full")), INVALID, "policy.name"),
    ("ExpandCandidates", expand(policy=common.PolicySpec(k=101)), INVALID, "policy.k"),
]


@pytest.mark.parametrize(("method", "request_", "status", "field"), STREAMING)
def test_streaming_calls(unchanged, method, request_, status, field):
    refused(unchanged, lambda: list(getattr(unchanged, method)(request_)), status, field)


def test_growth_beyond_max_candidates_or_max_campaigns(filled):
    more = [f"m{number}" for number in range(100)]
    filled.Upsert(iter([pb.UpsertRequest(pool="p", items=items(more), last=True)]))
    full = expand(campaign="d", policy=common.PolicySpec(name="full"))
    refused(filled, lambda: list(filled.ExpandCandidates(full)), EXHAUSTED, "max_candidates")
    wide = expand(labelled_ids=["i1"], expand_from_ids=["i1"], policy=common.PolicySpec(name="seals", k=100))
    refused(filled, lambda: list(filled.ExpandCandidates(wide)), EXHAUSTED, "max_candidates")
    list(filled.ExpandCandidates(expand(campaign="d")))
    refused(filled, lambda: list(filled.ExpandCandidates(expand(campaign="e"))), EXHAUSTED, "max_campaigns")
