"""Pools and engines whose Milvus lags behind: nobody waits for it who need not, and nothing is left in it."""

import threading
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from index_server.engines import milvus_filling
from index_server.engines.milvus_server import MilvusIndex, MilvusServer, Shape
from index_server.pool import Pool
from index_server.records import Records
from index_server.spec import Metric, PoolSpec
from sealpool.errors import Unavailable
from tests.support.milvus import connect, lite_in_process, silent_log, wait_until
from tests.support.pools import index_settings, open_pool
from tests.unit.index_server.test_milvus_engine import build, items, nearest, put, settled

DIMENSION = 8
SPEC = PoolSpec(name="p", dimension=DIMENSION, metric=Metric.L2, engine="milvus")
SHAPE = Shape(dimension=DIMENSION, metric=Metric.L2, index=MilvusIndex.FLAT, parameters={})
WAIT_S = 30


class Gated(MilvusServer):
    """Does one kind of call only while its gate is open, and remembers the sizes of searches."""

    closes = "insert"

    def __init__(self, port, *, owner, timeout_s=20.0):
        super().__init__(
            f"http://127.0.0.1:{port}",
            token="",
            prefix="lagging",
            owner=owner,
            start="s",
            index=MilvusIndex.FLAT,
            timeout_s=timeout_s,
            log=silent_log(),
        )
        self.gate, self.reached = threading.Event(), threading.Event()
        self.gate.set()
        self.searched = []

    def insert(self, name, keys, vectors):
        self._pass("insert")
        return super().insert(name, keys, vectors)

    def load(self, name):
        super().load(name)
        self._pass("load")

    def search(self, name, queries, fetch, **how):
        self.searched.append(len(queries))
        return super().search(name, queries, fetch, **how)

    def _pass(self, kind):
        if kind == self.closes:
            self.reached.set()
            assert self.gate.wait(WAIT_S)

    @property
    def collections(self):
        return {name for name in self._names() if name.startswith("lagging_")}


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    with lite_in_process(tmp_path_factory.mktemp("milvus")) as port:
        yield port


@pytest.fixture
def server(port, request):
    with closing(Gated(port, owner=request.node.name)) as server:
        yield server
        server.gate.set()


@pytest.fixture
def pool(tmp_path, server):
    """A pool with 400 items, whose engine is not built yet."""
    Pool.create(tmp_path, SPEC)
    settings = index_settings()
    settings = replace(settings, rules=replace(settings.rules, milvus=True), milvus=server)
    pool = open_pool(tmp_path, SPEC, settings=settings)
    pool.upsert([records(0, 400)])
    yield pool
    server.gate.set()
    pool.close()


VECTORS = items(2000, seed=5)


def records(start, stop):
    return Records(ids=[f"i{number}" for number in range(start, stop)], vectors=VECTORS[start:stop])


def run_upkeep(pool):
    """Run it as its thread does, until it has nothing more to do."""
    wait_until(lambda: pool.upkeep.run() is None)


def in_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def found(pool, number):
    return pool.search(VECTORS[number : number + 1], 1, exclude=[], vectors=False).ids


def test_searches_go_on_while_an_upload_waits_for_milvus(pool, server, monkeypatch):
    run_upkeep(pool)
    assert pool.index.engine.name == "milvus"
    monkeypatch.setattr(milvus_filling, "MAX_BEHIND", 200)
    monkeypatch.setattr("index_server.engines.milvus.MAX_BEHIND", 200)
    server.gate.clear()
    uploading = in_a_thread(lambda: pool.upsert([records(400, 1000)]))
    assert server.reached.wait(WAIT_S)
    wait_until(lambda: pool.index.engine.size > 500)
    answers = []
    searching = in_a_thread(lambda: answers.append(found(pool, 7)))
    searching.join(WAIT_S)
    assert answers == [["i7"]]
    server.gate.set()
    uploading.join(WAIT_S)
    assert found(pool, 999) == ["i999"]


def test_a_build_that_milvus_lags_behind_lets_others_have_their_turn_and_is_right_at_last(pool, server):
    server.gate.clear()
    wait_until(lambda: pool.upkeep.run() is not None and server.reached.is_set())
    assert (pool.index.engine.name, pool.upkeep.building) == ("flat", "milvus")
    pool.delete([f"i{number}" for number in range(50)])
    pool.upsert([records(400, 500)])
    pool.purge()
    pool.upsert([records(500, 600)])
    assert pool.upkeep.run() is not None
    assert found(pool, 550) == ["i550"]
    server.gate.set()
    run_upkeep(pool)
    assert (pool.index.engine.name, pool.upkeep.building) == ("milvus", "")
    left = [f"i{number}" for number in range(50, 600)]
    read = pool.read(left, vectors=True, payloads=False, allow_missing=False).parts
    np.testing.assert_array_equal(np.concatenate([part.vectors for part in read]), VECTORS[50:600])
    assert [found(pool, number) for number in (60, 450, 550)] == [["i60"], ["i450"], ["i550"]]
    assert found(pool, 3) != ["i3"]


def test_a_pool_that_is_closed_while_milvus_lags_behind_leaves_nothing_there(pool, server):
    server.gate.clear()
    wait_until(lambda: pool.upkeep.run() is not None and server.reached.is_set())
    assert len(server.collections) == 1
    pool.begin_closing()
    server.gate.set()
    pool.close()
    assert not server.collections
    assert pool.upkeep.run() is None


def test_recall_is_not_measured_while_milvus_lags_behind(pool, server):
    run_upkeep(pool)
    server.gate.clear()
    pool.upsert([records(400, 1000)])
    assert pool.upkeep.run() == 1.0
    assert pool.index.state.measured_on == 400
    server.gate.set()
    run_upkeep(pool)
    assert pool.index.state.measured_on == 1000


def test_a_collection_that_was_being_made_when_its_engine_was_closed_is_dropped(port):
    with closing(Gated(port, owner="slow", timeout_s=0.5)) as server:
        server.closes = "load"
        server.gate.clear()
        engine = build(server)
        assert server.reached.wait(WAIT_S)
        engine.close()
        assert len(server.collections) == 1
        server.gate.set()
        wait_until(lambda: not server.collections)


class Forgetful(Gated):
    """Deletes, and answers as if it had not, while its gate is closed."""

    closes = "delete"

    def delete(self, name, keys):
        super().delete(name, keys)
        if not self.gate.is_set():
            self.reached.set()
            raise Unavailable("the answer was lost")


def test_a_deletion_whose_answer_was_lost_is_not_taken_for_a_loss(port, monkeypatch):
    monkeypatch.setattr(milvus_filling, "_AGAIN_S", 0.01)
    with closing(Forgetful(port, owner="forgetful")) as server:
        engine = build(server)
        put(engine, items(600))
        wait_until(engine.settled)
        name = engine._filling.there.name
        server.gate.clear()
        engine.remove(np.arange(100))
        assert server.reached.wait(WAIT_S)
        engine._filling.doubt()
        wait_until(lambda: not engine._filling._doubted)
        server.gate.set()
        wait_until(lambda: settled(engine) and engine._filling._deleted == 1)
        assert engine._filling.there.name == name
        engine.close()


class Faulty(Gated):
    """Has a fault that nobody thought of."""

    def insert(self, name, keys, vectors):
        raise TypeError("a fault")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_in_the_thread_that_fills_holds_nobody_up_and_is_told(port, monkeypatch):
    monkeypatch.setattr(milvus_filling, "MAX_BEHIND", 100)
    monkeypatch.setattr("index_server.engines.milvus.MAX_BEHIND", 100)
    with closing(Faulty(port, owner="faulty")) as server:
        engine = build(server)
        put(engine, items(100))
        put(engine, items(100))
        with pytest.raises(Unavailable, match="a fault of ours"):
            engine.settled()
        with pytest.raises(Unavailable, match="a fault of ours"):
            engine.search(items(1), 3)
        engine.close()


def test_two_servers_that_take_themselves_for_one_do_not_go_on_dropping_each_other_s_collections(port):
    with closing(connect(port, owner="copied", start="1")) as first, closing(connect(port, owner="copied")) as second:
        first.create(SHAPE)
        second.create(SHAPE)  # drops the first one's, as a remainder
        again = first.create(SHAPE)
        second.create(SHAPE)
        first.create(SHAPE)
        assert again in first._names()
        assert len([name for name in first._names() if name.startswith("test_copied_")]) == 4


def test_milvus_is_asked_no_more_queries_at_once_than_it_takes(server, monkeypatch):
    monkeypatch.setattr("index_server.engines.milvus._MAX_QUERIES", 8)
    vectors, engine = items(300), build(server)
    put(engine, vectors)
    wait_until(engine.settled)
    rows, _ = engine.search(vectors[:20], 5)
    np.testing.assert_array_equal(rows, nearest(vectors, vectors[:20], 5))
    assert server.searched == [8, 8, 4]
    engine.close()
