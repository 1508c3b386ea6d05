"""Pools with engine `milvus`, through the service, while their Milvus comes and goes."""

import grpc
import numpy as np
import pytest

from sealpool.client.connection import ClientOptions
from sealpool.client.index import IndexClient
from sealpool.matrix import to_matrix
from sealpool.v1 import common_pb2 as common
from sealpool.v1 import index_pb2 as pb
from tests.support.milvus import LiteProcess

DIMENSION = 8
SPEC = pb.PoolSpec(name="p", dimension=DIMENSION, metric=pb.METRIC_L2, engine="milvus")
VECTORS = np.random.default_rng(0).standard_normal((600, DIMENSION)).astype(np.float32)


def upsert(stub, start, stop):
    ids = [f"i{number}" for number in range(start, stop)]
    batch = common.ItemBatch(ids=ids, vectors=to_matrix(VECTORS[start:stop]))
    stub.Upsert(iter([pb.UpsertRequest(pool="p", items=batch, last=True)]))


def nearest(queries, count, k=5):
    keys = ((queries[:, None].astype(np.float64) - VECTORS[None, :count]) ** 2).sum(-1)
    return [f"i{row}" for row in np.argsort(keys, axis=1)[:, :k].reshape(-1)]


def search(stub, queries, k=5):
    return list(stub.Search(pb.SearchRequest(pool="p", k=k, vectors=to_matrix(queries))).ids)


@pytest.fixture
def milvus(tmp_path):
    milvus = LiteProcess(tmp_path / "milvus")
    yield milvus
    milvus.kill()


@pytest.fixture
def server_with(server, milvus):
    """The index server, started again with a Milvus that may be away."""
    server.restart(milvus_uri=f"http://127.0.0.1:{milvus.port}")
    return server


def test_a_server_without_a_milvus_makes_no_such_pool_and_names_the_setting(stub):
    with pytest.raises(grpc.RpcError, match="milvus_uri") as refused:
        stub.CreatePool(pb.CreatePoolRequest(spec=SPEC))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_a_pool_goes_on_when_its_milvus_was_gone(server_with, milvus):
    milvus.start()
    stub = server_with.stub
    stub.CreatePool(pb.CreatePoolRequest(spec=SPEC))
    upsert(stub, 0, 400)
    pool = server_with.wait_for_engine("p", "milvus")
    assert pool.recall >= 0.95
    assert pool.index_bytes < VECTORS[:400].nbytes
    assert search(stub, VECTORS[:3]) == nearest(VECTORS[:3], 400)
    milvus.kill()
    with pytest.raises(grpc.RpcError, match="Milvus does not answer") as refused:
        search(stub, VECTORS[:3])
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    upsert(stub, 400, 600)
    milvus.start()
    with IndexClient(server_with.running.address, options=ClientOptions(retry_for_s=30)) as client:
        found = client.search("p", k=5, vectors=VECTORS[400:403])
    assert found.ids == nearest(VECTORS[400:403], 600)


def test_a_server_started_without_its_milvus_serves_and_compares_a_small_pool_one_by_one(server_with, milvus):
    milvus.start()
    server_with.stub.CreatePool(pb.CreatePoolRequest(spec=SPEC))
    upsert(server_with.stub, 0, 400)
    server_with.wait_for_engine("p", "milvus")
    milvus.kill()
    server_with.restart(milvus_uri=f"http://127.0.0.1:{milvus.port}")
    pool = server_with.stub.GetPool(pb.GetPoolRequest(name="p")).pool
    assert (pool.state, pool.engine) == (pb.POOL_STATE_READY, "milvus")
    assert search(server_with.stub, VECTORS[:3]) == nearest(VECTORS[:3], 400)


def test_a_pool_stays_exact_until_its_milvus_is_there(server_with, milvus, monkeypatch):
    monkeypatch.setattr("index_server.upkeep._AWAY_S", 0.1)
    stub = server_with.stub
    stub.CreatePool(pb.CreatePoolRequest(spec=SPEC))
    upsert(stub, 0, 400)
    assert search(stub, VECTORS[:3]) == nearest(VECTORS[:3], 400)
    assert stub.GetPool(pb.GetPoolRequest(name="p")).pool.engine == "flat"
    milvus.start()
    server_with.wait_for_engine("p", "milvus")
    assert search(stub, VECTORS[:3]) == nearest(VECTORS[:3], 400)


def test_a_pool_whose_setting_was_taken_away_fails_by_its_name(server_with, milvus):
    milvus.start()
    server_with.stub.CreatePool(pb.CreatePoolRequest(spec=SPEC))
    server_with.restart()
    pool = server_with.stub.GetPool(pb.GetPoolRequest(name="p")).pool
    assert pool.state == pb.POOL_STATE_FAILED
    assert "milvus_uri" in pool.engine_reason
