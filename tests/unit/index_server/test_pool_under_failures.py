"""What a pool does when something goes wrong below it, or takes long beside it."""

import threading

import numpy as np
import pytest
import structlog

from index_server.candidates.policies import POLICIES, SealsPolicy
from index_server.engines.selection import EngineRules
from index_server.index import IndexSettings
from index_server.limits import Limits
from index_server.pool import Pool
from index_server.records import Records
from index_server.spec import PoolSpec
from sealpool.durable import sync_directory
from sealpool.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable

DIMENSION = 4
SPEC = PoolSpec(name="p", dimension=DIMENSION)
LIMITS = Limits(**dict.fromkeys(Limits.__dataclass_fields__, 10_000))
SETTINGS = IndexSettings(rules=EngineRules(flat_items=1000, gpus=0), threads=1, seed=0, max_removed_share=0.5)
IDS = [f"i{number}" for number in range(400)]


def opened(directory):
    return Pool.load(
        directory, SPEC, settings=SETTINGS, limits=LIMITS, log=structlog.wrap_logger(structlog.ReturnLogger())
    )


def records(ids, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((len(ids), DIMENSION), dtype=np.float32)
    return Records(ids=list(ids), vectors=vectors)


def ids_of(pool):
    return [item_id for part in pool.scan(vectors=False, payloads=False).parts for item_id in part.ids]


def nearest(pool, k=5):
    return pool.search(np.ones((1, DIMENSION), np.float32), k, exclude=[]).ids


def expand(pool, labelled, policy="seals", campaign="c"):
    return pool.expand(
        campaign,
        policy=policy,
        k=5,
        labelled=labelled,
        expand_from=labelled,
        held_version=0,
        vectors=True,
        payloads=True,
    )


@pytest.fixture
def directory(tmp_path):
    Pool.create(tmp_path, SPEC)
    return tmp_path


@pytest.fixture
def pool(directory):
    pool = opened(directory)
    pool.upsert([records(IDS)])
    yield pool
    pool.close()


def fail(*_):
    raise OSError(5, "Input/output error")


def fail_at_head(path):
    if (path / "HEAD").exists():
        raise OSError(5, "Input/output error")
    sync_directory(path)


def refuse(*_):
    raise OSError(28, "No space left on device")


def test_an_upsert_that_happened_is_ok_though_maintenance_after_it_fails(pool, directory, monkeypatch):
    monkeypatch.setattr("index_server.store.lance_store.Compaction.plan", fail)
    monkeypatch.setattr("index_server.store.lance_store._MAX_SMALL_FRAGMENTS", 1)
    assert pool.upsert([records(["new"])]).inserted == 1
    assert pool.upsert([records(["newer"])]).inserted == 1
    assert ids_of(opened(directory)) == [*IDS, "new", "newer"]


def test_a_change_refused_by_a_full_disk_leaves_nothing_behind(pool, directory, monkeypatch):
    expand(pool, ["i0"])
    before = nearest(pool), ids_of(pool), pool.version
    with monkeypatch.context() as patch:
        patch.setattr("index_server.store.lance_store.write_durably", refuse)
        with pytest.raises(ResourceExhausted):
            pool.upsert([records([*IDS[:300], "new"], seed=1)])
    assert (nearest(pool), ids_of(pool), pool.version) == before
    pool.upsert([records(["i3", "other"], seed=2)])
    other = opened(directory)
    assert nearest(pool, 50) == nearest(other, 50)
    assert ids_of(pool) == ids_of(other) == [*(i for i in IDS if i != "i3"), "i3", "other"]


def test_refused_changes_do_not_pile_up_in_memory(pool, monkeypatch):
    monkeypatch.setattr("index_server.store.lance_store.write_durably", refuse)
    for seed in range(20):
        with pytest.raises(ResourceExhausted):
            pool.upsert([records([f"n{n}" for n in range(300)], seed)])
    assert pool.index.engine.size < 2000


def test_batches_that_break_off_change_nothing(pool, directory):
    def breaking():
        yield records(["new"])
        raise InvalidArgument("last", "broke off")

    with pytest.raises(InvalidArgument, match="broke off"):
        pool.upsert(breaking())
    assert ids_of(pool) == ids_of(opened(directory)) == IDS


def test_nothing_is_done_on_a_pool_whose_last_change_may_or_may_not_have_happened(pool, directory, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("sealpool.durable.sync_directory", fail_at_head)
        with pytest.raises(OSError, match="HEAD"):
            pool.upsert([records(["new"])])
    assert "restart" in pool.failure
    # Calls that were under way when it failed.
    for call in (
        lambda: pool.delete(["i1"]),
        lambda: nearest(pool),
        lambda: expand(pool, ["i0"]),
        lambda: pool.sample(1, seed=0, campaign="", exclude=[]),
        lambda: pool.drop_candidates("c"),
    ):
        with pytest.raises(FailedPrecondition, match="cannot be used"):
            call()
    with pytest.raises((FailedPrecondition, Unavailable)):
        pool.upsert([records(["newer"])])
    pool.close()
    assert ids_of(opened(directory)) == [*IDS, "new"]


class SlowPolicy:
    """`seals` that waits between two searches until it may go on."""

    name = "slow"

    def __init__(self):
        self.searching, self.go_on = threading.Event(), threading.Event()

    def propose(self, neighbourhood, expand_from, *, k):
        seals = SealsPolicy()
        found = list(seals.propose(neighbourhood, expand_from, k=k))
        self.searching.set()
        assert self.go_on.wait(20)
        return [*found, *seals.propose(neighbourhood, expand_from, k=k)]


def test_a_long_expansion_and_a_change_that_waits_for_it_hold_up_no_search(pool, monkeypatch):
    slow, results = SlowPolicy(), {}
    monkeypatch.setitem(POLICIES, slow.name, slow)

    def run(name, call):
        results[name] = call()

    calls = {
        "expand": lambda: expand(pool, ["i0"], policy="slow").campaign.size,
        "sample": lambda: len(pool.sample(3, seed=0, campaign="c", exclude=[])[1]),
        "upsert": lambda: pool.upsert([records([f"n{n}" for n in range(300)], seed=1)]).inserted,
    }
    threads = [threading.Thread(target=run, args=item) for item in calls.items()]
    threads[0].start()
    assert slow.searching.wait(20)
    for thread in threads[1:]:
        thread.start()
    threads[2].join(0.3)
    assert len(nearest(pool)) == 5
    assert not results
    slow.go_on.set()
    for thread in threads:
        thread.join(20)
    assert results == {"expand": 5, "sample": 3, "upsert": 300}


def test_candidates_are_read_to_the_last_bit_the_same_while_the_index_is_rebuilt(pool):
    expand(pool, IDS[:100])
    expected = pool.candidates("c", vectors=True, payloads=False)
    before = np.concatenate([part.vectors for part in expected.added])
    listed = pool.candidates("c", vectors=True, payloads=False)
    old = pool.index
    pool.upsert([records([f"n{n}" for n in range(1500)], seed=1)])
    pool.delete([f"n{n}" for n in range(1400)])
    assert pool.index is not old
    np.testing.assert_array_equal(np.concatenate([part.vectors for part in listed.added]), before)
