"""The engine `milvus` while its Milvus is away, lags, forgets or answers late."""

import sys
from concurrent import futures
from contextlib import closing, contextmanager

import grpc
import numpy as np
import pytest
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc

from index_server.engines import ENGINES, BuildRequest, milvus_filling
from index_server.engines.milvus_server import MilvusIndex, MilvusServer, Shape, server_identity
from index_server.spec import Device, EngineOptions, Metric
from sealpool.errors import FailedPrecondition, InvalidArgument, Unavailable
from tests.support.milvus import LiteProcess, connect, lite_in_process, silent_log, wait_until
from tests.support.processes import free_port

DIMENSION = 8
SHAPE = Shape(dimension=DIMENSION, metric=Metric.L2, index=MilvusIndex.FLAT, parameters={})


def items(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)


def build(server):
    return ENGINES["milvus"].build(
        BuildRequest(
            dimension=DIMENSION,
            metric=Metric.L2,
            options=EngineOptions(),
            device=Device.CPU,
            items=0,
            sample=lambda count: items(count),
            saved=None,
            threads=1,
            seed=0,
            milvus=server,
        )
    )


def put(engine, vectors):
    rows = np.arange(engine.size, engine.size + len(vectors))
    engine.make_room(len(vectors))
    engine.add(rows, vectors)
    engine.reveal(rows)
    return rows


def nearest(vectors, queries, k):
    return np.argsort(((queries[:, None].astype(np.float64) - vectors[None]) ** 2).sum(-1), axis=1)[:, :k]


def settled(engine):
    """Whether it has settled; not while Milvus is away."""
    try:
        return engine.settled()
    except Unavailable:
        return False


def collections(server):
    return {name for name in server._names() if name.startswith("test_")}


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    with lite_in_process(tmp_path_factory.mktemp("milvus")) as port:
        yield port


@pytest.fixture
def server(port):
    with closing(connect(port)) as server:
        yield server


@pytest.fixture
def away():
    """A Milvus that nobody started."""
    with closing(connect(free_port())) as server:
        yield server


@pytest.fixture
def process(tmp_path):
    process = LiteProcess(tmp_path / "one")
    yield process
    process.kill()


def test_without_a_milvus_items_are_taken_in_and_some_are_compared_one_by_one(away):
    vectors, engine = items(500), build(away)
    put(engine, vectors)
    rows, scores = engine.search(vectors[:5], 10)
    np.testing.assert_array_equal(rows, nearest(vectors, vectors[:5], 10))
    np.testing.assert_allclose(scores[:, 0], 0, atol=1e-5)
    wait_until(lambda: engine._filling.failure)
    with pytest.raises(Unavailable, match="does not answer"):
        engine.settled()
    engine.close()


def test_a_search_among_more_items_than_are_compared_is_refused_until_milvus_has_them(away, monkeypatch):
    monkeypatch.setattr("index_server.engines.milvus.MAX_BEHIND", 100)
    monkeypatch.setattr(milvus_filling, "MAX_BEHIND", 100)
    engine = build(away)
    put(engine, items(100))
    assert engine.search(items(1), 3)[0].shape == (1, 3)
    put(engine, items(1))
    put(engine, items(1))  # would wait for Milvus, were it there
    with pytest.raises(Unavailable, match="Milvus has 0 of 102 items") as refused:
        engine.search(items(1), 3)
    assert refused.value.field == "pool"
    engine.close()


def test_adding_waits_for_a_milvus_that_is_there(server, monkeypatch):
    monkeypatch.setattr(milvus_filling, "MAX_BEHIND", 100)
    engine = build(server)
    for start in range(0, 1000, 50):
        put(engine, items(50, seed=start))
        assert engine.size - engine._filling.there.rows <= 100  # else searches would be refused
    engine.close()


def test_a_search_of_a_killed_milvus_is_refused_and_goes_on_once_it_is_back(process):
    process.start()
    server = connect(process.port)
    vectors, engine = items(1500), build(server)
    put(engine, vectors[:1200])
    wait_until(engine.settled)
    before = engine._filling.there.name
    process.kill()
    with pytest.raises(Unavailable):
        engine.search(vectors[:2], 5)
    put(engine, vectors[1200:])
    process.start()
    wait_until(lambda: settled(engine))
    rows, _ = engine.search(vectors[::100], 5)
    np.testing.assert_array_equal(rows, nearest(vectors, vectors[::100], 5))
    assert engine._filling.there.name == before
    engine.close()
    server.close()


def test_a_milvus_that_lost_everything_is_filled_anew(process, tmp_path):
    process.start()
    server = connect(process.port)
    vectors, engine = items(1200), build(server)
    put(engine, vectors)
    engine.remove(np.arange(3))
    wait_until(engine.settled)
    process.kill()
    process._directory = tmp_path / "another"
    process.start()
    with pytest.raises(Unavailable):
        engine.search(vectors[:2], 5)
    wait_until(lambda: settled(engine))
    rows, _ = engine.search(vectors[100:110], 5)
    np.testing.assert_array_equal(rows, nearest(vectors[3:], vectors[100:110], 5) + 3)
    engine.close()
    server.close()


def test_a_milvus_that_hangs_is_given_up_and_not_waited_for_when_closing(process):
    process.start()
    server = connect(process.port, timeout_s=1.0)
    engine = build(server)
    put(engine, items(300))
    wait_until(lambda: settled(engine))
    process.pause()
    with pytest.raises(Unavailable, match="DEADLINE_EXCEEDED"):
        engine.search(items(1), 3)
    put(engine, items(10))
    engine.close()
    server.close()


class Forgetful(MilvusServer):
    """Its second insertion happens, and is answered as if it had not."""

    insertions = 0

    def insert(self, name, keys, vectors):
        answer = super().insert(name, keys, vectors)
        self.insertions += 1
        if self.insertions == 2:
            raise Unavailable("the answer was lost")
        return answer


def test_an_insertion_whose_answer_was_lost_gives_no_item_twice(port, monkeypatch):
    monkeypatch.setattr(milvus_filling, "_AGAIN_S", 0.01)
    server = Forgetful(
        f"http://127.0.0.1:{port}",
        token="",
        prefix="test",
        owner="forgetful",
        start="s",
        index=MilvusIndex.FLAT,
        timeout_s=20,
        log=silent_log(),
    )
    vectors, engine = items(900), build(server)
    for start in range(0, 900, 300):
        put(engine, vectors[start : start + 300])
        wait_until(lambda: settled(engine))
    assert server.count(engine._filling.there.name, 1) == 1200
    rows, _ = engine.search(vectors[::50], 20)
    np.testing.assert_array_equal(rows, nearest(vectors, vectors[::50], 20))
    engine.close()
    server.close()


def test_removed_items_are_deleted_in_milvus(server):
    engine = build(server)
    put(engine, items(600))
    engine.remove(np.arange(100))
    engine.remove(np.arange(150))
    wait_until(lambda: engine._filling._deleted == 2)
    assert server.count(engine._filling.there.name, 1) == 450
    assert sum(map(len, engine._filling._gone)) == 150  # else a loss of as many more would pass unseen
    engine.close()


def test_a_collection_that_lost_some_of_its_items_is_filled_anew(server):
    vectors, engine = items(600), build(server)
    put(engine, vectors)
    engine.remove(np.arange(100))
    wait_until(lambda: engine._filling._deleted == 1)
    before = engine._filling.there
    engine._filling.doubt()
    wait_until(engine.settled)
    assert engine._filling.there.name == before.name
    server.delete(before.name, before.keys(np.arange(300, 301)))
    engine._filling.doubt()
    wait_until(engine.settled)
    assert engine._filling.there.name != before.name
    np.testing.assert_array_equal(engine.search(vectors[300:301], 1)[0], [[300]])
    assert (engine.search(vectors[:1], 600)[0] >= 100).sum() == 500
    engine.close()


def test_more_items_may_be_left_out_around_a_query_than_milvus_gives(server, monkeypatch):
    monkeypatch.setattr("index_server.engines.milvus.MAX_FETCH", 50)
    engine, vectors = build(server), items(600)
    put(engine, vectors)
    wait_until(engine.settled)
    order = nearest(vectors, vectors[:1], 600)
    rows, _ = engine.search(vectors[:1], 10, excluded=order[0, :100])
    np.testing.assert_array_equal(rows, order[:, 100:110])
    rows, _ = engine.search(vectors[:1], 60)
    np.testing.assert_array_equal(rows, order[:, :60])
    engine.close()


def test_items_not_yet_revealed_do_not_crowd_out_those_that_are(server, monkeypatch):
    # So many that Milvus compares the few others one by one: its graph would lead from one twin to the next.
    engine, vectors = build(server), items(200)
    put(engine, vectors)
    engine.add(np.arange(200, 8000), np.repeat(vectors[:1], 7800, axis=0))
    wait_until(engine.settled)
    monkeypatch.setattr(engine, "_widths", lambda k, _: [2 * k])  # scanning would find them anyhow
    monkeypatch.setattr(engine, "_scan", lambda *_: (np.full((1, 0), -1), np.zeros((1, 0), np.float32)))
    rows, _ = engine.search(vectors[:1], 10)
    np.testing.assert_array_equal(rows, nearest(vectors, vectors[:1], 10))
    monkeypatch.undo()
    engine.close()


def test_closing_drops_the_collection_and_a_new_start_drops_what_a_killed_one_left(port):
    with closing(connect(port, owner="a", start="1")) as first, closing(connect(port, owner="b")) as neighbour:
        killed, theirs = first.create(SHAPE), neighbour.create(SHAPE)
    with closing(connect(port, owner="a", start="2")) as second:
        assert {killed, theirs} <= collections(second)
        engine = build(second)
        wait_until(lambda: settled(engine))
        mine, other = engine._filling.there.name, second.create(SHAPE)
        assert {mine, other, theirs} <= collections(second)
        assert killed not in collections(second)
        engine.close()
        assert mine not in collections(second)
        assert {other, theirs} <= collections(second)


def test_a_server_has_the_same_identity_after_a_restart(tmp_path):
    assert server_identity(tmp_path / "owner", "first") == "first"
    assert server_identity(tmp_path / "owner", "second") == "first"


class Recorder(milvus_pb2_grpc.MilvusServiceServicer):
    """A Milvus that has no collections, remembers what came with a call, and refuses to make one."""

    def __init__(self):
        self.metadata = {}
        self.database = ""

    def ShowCollections(self, request, context):
        self.metadata, self.database = dict(context.invocation_metadata()), request.db_name
        return milvus_pb2.ShowCollectionsResponse()

    def CreateCollection(self, request, context):
        return common_pb2.Status(code=8, reason="rate limit exceeded")

    def DropCollection(self, request, context):
        return common_pb2.Status()


@contextmanager
def recorded():
    recorder, server = Recorder(), grpc.server(futures.ThreadPoolExecutor(2))
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(recorder, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield recorder, port
    finally:
        server.stop(None).wait()


def named(uri, token=""):
    return MilvusServer(
        uri, token=token, prefix="p", owner="o", start="s", index=MilvusIndex.FLAT, timeout_s=5, log=silent_log()
    )


def test_sends_its_token_and_database_and_tells_why_it_was_refused():
    with recorded() as (recorder, port), closing(named(f"http://127.0.0.1:{port}/pools", "root:secret")) as server:
        assert not server.exists("x")
        assert recorder.metadata["authorization"] == "cm9vdDpzZWNyZXQ="
        assert recorder.database == "pools"
        with pytest.raises(Unavailable, match="refuses CreateCollection: rate limit exceeded"):
            server.create(SHAPE)


@pytest.mark.parametrize("uri", ["localhost:19530", "tcp://localhost:19530", "http://", "http://root:secret@milvus"])
def test_an_address_that_is_none_is_refused_without_repeating_it(uri):
    with pytest.raises(InvalidArgument, match="milvus_uri") as refused:
        named(uri)
    assert "secret" not in str(refused.value)


def test_without_pymilvus_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus.grpc_gen", None)
    with pytest.raises(FailedPrecondition, match=r"pip install 'sealpool\[milvus\]'"):
        named("http://localhost:19530")
