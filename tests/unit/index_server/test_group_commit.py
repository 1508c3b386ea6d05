"""Changes of items that wait share one commit."""

import threading

import numpy as np
import pytest

from index_server.pool import Pool
from index_server.records import Records
from index_server.spec import PoolSpec
from index_server.store.lance_store import LanceStore
from sealpool.errors import InvalidArgument, ResourceExhausted, SealpoolError
from tests.support.pools import expand, open_pool

SPEC = PoolSpec(name="p", dimension=2)


def records(ids, x=1.0):
    return Records(ids=list(ids), vectors=np.tile(np.array([x, 1], np.float32), (len(ids), 1)))


def ids_of(pool):
    return [item_id for part in pool.scan(vectors=False, payloads=False).parts for item_id in part.ids]


class Gathering:
    """A pool whose next commit is held until all calls of a test wait for it."""

    def __init__(self, pool):
        self.pool, self.results, self.threads = pool, {}, []
        self.queue = pool._writer._waiting

    def start(self, name, call):
        def run():
            try:
                self.results[name] = call()
            except (SealpoolError, OSError) as error:
                self.results[name] = error

        before = len(self.queue)
        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()
        while len(self.queue) == before and self.threads[-1].is_alive():
            self.threads[-1].join(0.001)

    def upsert(self, name, ids, x=1.0):
        self.start(name, lambda: self.pool.upsert([records(ids, x)]))

    def delete(self, name, ids):
        self.start(name, lambda: self.pool.delete(ids))

    def __enter__(self):
        self.pool._state.writer.acquire()
        return self

    def __exit__(self, *_):
        self.pool._state.writer.release()
        for thread in self.threads:
            thread.join(30)


@pytest.fixture
def pool(tmp_path):
    Pool.create(tmp_path, SPEC)
    pool = open_pool(tmp_path, SPEC)
    pool.upsert([records("abcd")])
    yield pool
    pool.close()


def counts(changed):
    return changed.inserted, changed.replaced, changed.deleted, changed.missing


def test_changes_that_wait_are_one_version_and_each_is_told_its_own(pool):
    before = pool.version
    with Gathering(pool) as gathering:
        gathering.upsert("one", ["a", "new"])
        gathering.delete("two", ["b", "none"])
        gathering.upsert("three", ["x", "y", "z"])
        gathering.delete("four", ["never"])
    assert {name: counts(changed) for name, changed in gathering.results.items()} == {
        "one": (1, 1, 0, 0),
        "two": (0, 0, 1, 1),
        "three": (3, 0, 0, 0),
        "four": (0, 0, 0, 1),
    }
    assert pool.version == before + 1
    assert {changed.version for changed in gathering.results.values()} == {pool.version}
    assert ids_of(pool) == ["c", "d", "a", "new", "x", "y", "z"]


def test_changes_of_one_item_keep_the_order_in_which_they_came(pool, tmp_path):
    before = pool.version
    with Gathering(pool) as gathering:
        gathering.upsert("first", ["a"], x=2.0)
        gathering.upsert("second", ["a", "e"], x=3.0)
        gathering.delete("third", ["a", "b"])
        gathering.upsert("fourth", ["b"], x=4.0)
    assert [counts(gathering.results[name]) for name in ("first", "second", "third", "fourth")] == [
        (0, 1, 0, 0),
        (1, 1, 0, 0),
        (0, 0, 2, 0),
        (1, 0, 0, 0),
    ]
    assert pool.version == before + 4
    assert ids_of(pool) == ["c", "d", "e", "b"]
    assert next(pool.read(["b"], vectors=True, payloads=False, allow_missing=False).parts).vectors.tolist() == [[4, 1]]


def test_bad_input_of_one_fails_no_other(pool):
    with Gathering(pool) as gathering:
        gathering.upsert("good", ["e"])
        gathering.upsert("bad", ["f", "f"])
        gathering.upsert("zero", ["g"], x=float("nan"))
        gathering.upsert("fine", ["h"])
    assert isinstance(gathering.results["bad"], InvalidArgument)
    assert isinstance(gathering.results["zero"], InvalidArgument)
    assert [counts(gathering.results[name])[0] for name in ("good", "fine")] == [1, 1]
    assert ids_of(pool) == [*"abcd", "e", "h"]


def test_a_commit_that_fails_fails_each_and_changes_nothing(pool, monkeypatch):
    expand(pool, "c", ["a"], k=2)
    before = pool.version, ids_of(pool), pool.campaign_sizes()

    def refuse(*_):
        raise ResourceExhausted("the items", limit=0, setting="disk")

    with monkeypatch.context() as patch:
        patch.setattr(LanceStore, "commit", refuse)
        with Gathering(pool) as gathering:
            gathering.upsert("one", ["b"])
            gathering.delete("two", ["c"])
    assert [type(error) for error in gathering.results.values()] == [ResourceExhausted, ResourceExhausted]
    assert (pool.version, ids_of(pool), pool.campaign_sizes()) == before
    assert counts(pool.upsert([records(["b"])])) == (0, 1, 0, 0)
    assert ids_of(pool) == [*"acdb"]


def test_many_at_once_take_fewer_versions_than_there_are_calls_and_lose_nothing(pool, tmp_path):
    before, errors = pool.version, []
    begin = threading.Barrier(8)

    def run(worker):
        begin.wait(20)
        for number in range(10):
            mine = [f"{worker}-{number}-{place}" for place in range(3)]
            changed = pool.upsert([records(mine)])
            if counts(changed) != (3, 0, 0, 0) or counts(pool.delete(mine[:1])) != (0, 0, 1, 0):
                errors.append(mine)

    threads = [threading.Thread(target=run, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    expected = {*"abcd", *(f"{w}-{n}-{p}" for w in range(8) for n in range(10) for p in (1, 2))}
    assert not errors
    assert set(ids_of(pool)) == expected
    assert pool.version - before < 160
    pool.close()
    again = open_pool(tmp_path, SPEC)
    assert set(ids_of(again)) == expected
    again.close()
