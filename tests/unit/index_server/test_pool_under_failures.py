"""What a pool does when something goes wrong below it, or takes long beside it."""

import threading
from contextlib import closing

import numpy as np
import pytest

from index_server.candidates.policies import POLICIES, SealsPolicy
from index_server.pool import Pool
from index_server.ports import PolicyOptions, Proposal
from index_server.records import Records
from index_server.spec import PoolSpec
from sealpool.durable import sync_directory
from sealpool.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable
from tests.support.pools import expand as expand_pool
from tests.support.pools import open_pool

DIMENSION = 4
SPEC = PoolSpec(name="p", dimension=DIMENSION)
IDS = [f"i{number}" for number in range(400)]


def opened(directory):
    return open_pool(directory, SPEC)


def ids_on_disk(directory):
    with closing(opened(directory)) as pool:
        return ids_of(pool)


def records(ids, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((len(ids), DIMENSION), dtype=np.float32)
    return Records(ids=list(ids), vectors=vectors)


def ids_of(pool):
    return [item_id for part in pool.scan(vectors=False, payloads=False).parts for item_id in part.ids]


def nearest(pool, k=5):
    return pool.search(np.ones((1, DIMENSION), np.float32), k, exclude=[], vectors=False).ids


def expand(pool, labelled, policy="seals", campaign="c"):
    return expand_pool(pool, campaign, labelled, name=policy)


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


def test_changes_go_on_though_upkeep_fails(pool, directory, monkeypatch):
    monkeypatch.setattr("index_server.store.lance_store.LanceStore.wants_compaction", lambda _: True)
    monkeypatch.setattr("index_server.store.lance_store.LanceStore.prepare_compaction", fail)
    assert pool.upsert([records(["new"])]).inserted == 1
    assert pool.upkeep.run() is None
    assert pool.upsert([records(["newer"])]).inserted == 1
    assert ids_of(pool) == ids_on_disk(directory) == [*IDS, "new", "newer"]


def test_a_change_refused_by_a_full_disk_leaves_nothing_behind(pool, directory, monkeypatch):
    expand(pool, ["i0"])
    before = nearest(pool), ids_of(pool), pool.version
    with monkeypatch.context() as patch:
        patch.setattr("index_server.store.lance_store.write_durably", refuse)
        with pytest.raises(ResourceExhausted):
            pool.upsert([records([*IDS[:300], "new"], seed=1)])
    assert (nearest(pool), ids_of(pool), pool.version) == before
    pool.upsert([records(["i3", "other"], seed=2)])
    with closing(opened(directory)) as other:
        assert nearest(pool, 50) == nearest(other, 50)
    assert ids_of(pool) == ids_on_disk(directory) == [*(i for i in IDS if i != "i3"), "i3", "other"]


def test_refused_changes_do_not_pile_up_in_memory(pool, monkeypatch):
    monkeypatch.setattr("index_server.store.lance_store.write_durably", refuse)
    for seed in range(20):
        with pytest.raises(ResourceExhausted):
            pool.upsert([records([f"n{n}" for n in range(300)], seed)])
        pool.upkeep.run()
    assert pool.index.engine.size < 2000


def test_batches_that_break_off_change_nothing(pool, directory):
    def breaking():
        yield records(["new"])
        raise InvalidArgument("last", "broke off")

    with pytest.raises(InvalidArgument, match="broke off"):
        pool.upsert(breaking())
    assert ids_of(pool) == ids_on_disk(directory) == IDS


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
    assert ids_on_disk(directory) == [*IDS, "new"]


class SlowPolicy:
    """`seals` that waits between two searches until it may go on."""

    name = "slow"
    defaults = PolicyOptions(k=5)
    options = frozenset({"k"})
    needs_labels = False

    def __init__(self):
        self.searching, self.go_on = threading.Event(), threading.Event()

    def propose(self, neighbourhood, growth):
        first = SealsPolicy().propose(neighbourhood, growth)
        self.searching.set()
        assert self.go_on.wait(20)
        again = SealsPolicy().propose(neighbourhood, growth)
        return Proposal(
            rows=np.concatenate([first.rows, again.rows]),
            sources=np.concatenate([first.sources, again.sources]),
            scores=np.concatenate([first.scores, again.scores]),
        )


def test_a_long_expansion_and_a_change_that_waits_for_it_hold_up_no_search(pool, monkeypatch):
    slow, results = SlowPolicy(), {}
    monkeypatch.setitem(POLICIES, slow.name, slow)

    def run(name, call):
        results[name] = call()

    calls = {
        "expand": lambda: expand(pool, ["i0"], policy="slow").campaign.size,
        "sample": lambda: len(pool.sample(3, seed=0, campaign="c", exclude=[])[1]),
        "explain": lambda: pool.explain("c", ["i0"])[1][0].reason.standing.name,
        "upsert": lambda: pool.upsert([records([f"n{n}" for n in range(300)], seed=1)]).inserted,
    }
    threads = [threading.Thread(target=run, args=item, daemon=True) for item in calls.items()]
    threads[0].start()
    assert slow.searching.wait(20)
    for thread in threads[1:]:
        thread.start()
    for thread in threads[1:]:
        thread.join(0.2)
    assert len(nearest(pool)) == 5
    assert not results
    slow.go_on.set()
    for thread in threads:
        thread.join(20)
    assert results == {"expand": 5, "sample": 3, "explain": "LABELLED", "upsert": 300}


def test_candidates_are_read_to_the_last_bit_the_same_while_the_index_is_rebuilt(pool):
    expand(pool, IDS[:100])
    expected = pool.candidates("c", vectors=True, payloads=False)
    before = np.concatenate([part.vectors for part in expected.added])
    listed = pool.candidates("c", vectors=True, payloads=False)
    old = pool.index
    pool.upsert([records([f"n{n}" for n in range(1500)], seed=1)])
    pool.delete([f"n{n}" for n in range(1400)])
    pool.upkeep.run()
    assert pool.index is not old
    np.testing.assert_array_equal(np.concatenate([part.vectors for part in listed.added]), before)


def test_one_more_upsert_than_the_disk_has_room_for_rows_is_refused_and_takes_the_pool_nowhere(pool, monkeypatch):
    monkeypatch.setattr("index_server.store.lance_store.write_durably", refuse)
    for _ in range(3):
        with pytest.raises(ResourceExhausted):
            pool.upsert([records([f"n{n}" for n in range(9000)])])
    monkeypatch.undo()
    reserved = []
    monkeypatch.setattr(pool.index.table, "reserve", lambda count, **_: reserved.append(count))
    pool.upsert([records(["new"])])
    assert reserved == [27_001]  # with the rows that were staged in vain, which are skipped
    assert pool.failure == ""


def test_a_purge_waits_for_reads_that_began_before(pool, directory):
    parts = pool.scan(vectors=True, payloads=False).parts
    first = next(parts)
    pool.delete(IDS[:3])
    purging = threading.Thread(target=pool.purge)
    purging.start()
    purging.join(0.3)
    assert purging.is_alive()
    assert list(first.ids) + [item_id for part in parts for item_id in part.ids] == IDS
    del parts
    purging.join(20)
    assert not purging.is_alive()
    assert ids_of(pool) == IDS[3:] == ids_on_disk_after_closing(pool, directory)


def test_a_purge_of_a_pool_that_is_closed_meanwhile_says_so(pool):
    parts = pool.scan(vectors=True, payloads=False).parts
    next(parts)
    pool.delete(IDS[:3])
    errors = []

    def purge():
        try:
            pool.purge()
        except Unavailable as error:
            errors.append(error)

    purging = threading.Thread(target=purge)
    purging.start()
    pool.begin_closing()
    purging.join(20)
    assert "closed" in str(errors[0])
    assert list(parts) is not None


def test_a_purged_item_is_in_no_file_of_the_pool_but_its_id_in_the_candidates_history(pool, directory):
    vector = records(IDS).vectors[5].tobytes()
    assert any(vector in path.read_bytes() for path in directory.rglob("*") if path.is_file())
    pool.delete([IDS[5]])
    pool.purge()
    assert not any(vector in path.read_bytes() for path in directory.rglob("*") if path.is_file())
    assert nearest(pool)


def test_a_purge_neither_waits_for_later_readers_nor_holds_up_the_upkeep(pool, directory):
    before = pool.scan(vectors=True, payloads=False).parts
    next(before)
    pool.delete(IDS[:3])
    purging = threading.Thread(target=pool.purge)
    purging.start()
    while pool.version < 3 or pool.upkeep.run() is not None:  # until it has written anew, and waits for the reader
        assert purging.is_alive()
    later = pool.scan(vectors=True, payloads=False).parts
    next(later)
    pool.delete(IDS[3:5])  # so that the later reader keeps files too
    before.close()
    del before
    purging.join(20)
    assert not purging.is_alive()
    later.close()
    assert ids_of(pool) == IDS[5:]


def test_a_purge_beside_a_rebuild_or_another_purge_is_to_be_asked_again(pool, monkeypatch):
    monkeypatch.setattr("index_server.upkeep._PURGE_WAIT_S", 0.01)
    pool.delete(IDS[:3])
    with pool.upkeep._turn:
        with pytest.raises(Unavailable, match="rebuilt"):
            pool.purge()
        assert pool.upkeep.run() == 1.0  # others are looked after meanwhile
    pool.purge()
    assert ids_of(pool) == IDS[3:]


def test_a_purge_that_a_closing_pool_breaks_off_does_not_say_that_it_is_done(pool):
    pool.delete(IDS[:3])
    pool.begin_closing()
    with pytest.raises(Unavailable, match="closed"):
        pool.purge()


def ids_on_disk_after_closing(pool, directory):
    pool.close()
    return ids_on_disk(directory)
