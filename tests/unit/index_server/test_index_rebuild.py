"""Another index takes the place of the first while the pool is used."""

import threading

import numpy as np
import pytest

from index_server.engines.recall import tune
from index_server.pool import Pool
from index_server.records import Records
from index_server.spec import EngineOptions, PoolSpec
from sealpool.errors import SealpoolError
from tests.support.pools import expand, index_settings, open_pool

DIMENSION = 8
RNG = np.random.default_rng(0)
CENTRES = RNG.standard_normal((20, DIMENSION))


SOME_LISTS = EngineOptions(ivf_lists=16, ivf_probes=4)


def spec_of(**fields):
    return PoolSpec(name="p", dimension=DIMENSION, **fields)


def records(ids, seed=0):
    rng = np.random.default_rng(seed)
    vectors = CENTRES[rng.integers(0, 20, len(ids))] + 0.3 * rng.standard_normal((len(ids), DIMENSION))
    return Records(ids=list(ids), vectors=vectors.astype(np.float32))


def uniform(count, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)
    return Records(ids=[f"{seed}-{number}" for number in range(count)], vectors=vectors)


def names(count, prefix="i"):
    return [f"{prefix}{number}" for number in range(count)]


def ids_of(pool):
    return [item_id for part in pool.scan(vectors=False, payloads=False).parts for item_id in part.ids]


def candidates_of(pool, campaign="c"):
    return [item_id for part in pool.candidates(campaign, vectors=False, payloads=False).added for item_id in part.ids]


def vectors_of(pool, ids):
    parts = pool.read(ids, vectors=True, payloads=False, allow_missing=False).parts
    return np.concatenate([part.vectors for part in parts])


@pytest.fixture
def make(tmp_path):
    pools = []

    def make(spec, **settings):
        if not (tmp_path / "HEAD").exists():
            Pool.create(tmp_path, spec)
        pools.append(open_pool(tmp_path, spec, settings=index_settings(**settings)))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def test_auto_goes_from_exact_to_clusters_in_upkeep_and_says_so(make):
    pool = make(spec_of(options=SOME_LISTS), flat_items=2000)
    pool.upsert([records(names(2000))])
    pool.upkeep.run()
    assert pool.index.engine.name == "flat"
    pool.upsert([records(names(3000, "more"), seed=1)])
    assert pool.index.engine.name == "flat"
    pool.upkeep.run()
    assert (pool.index.engine.name, pool.upkeep.building) == ("ivf_flat", "")
    assert 0.95 <= pool.index.recall <= 1
    assert "2,000" in pool.index.choice.reason


def test_nothing_is_lost_while_items_change_and_searches_and_expansions_go_on(make, tmp_path):
    pool = make(spec_of(options=SOME_LISTS), flat_items=2000)
    ids = names(6000)
    pool.upsert([records(ids)])
    expand(pool, "c", ids[:20], k=5)
    errors, begun, done = [], threading.Barrier(4), threading.Event()

    def repeat(work):
        begun.wait(20)
        number = 0
        while not done.is_set() or not number:
            try:
                work(number)
            except (SealpoolError, AssertionError, RuntimeError, ValueError) as error:
                errors.append(error)
                return
            number += 1

    counts = {}

    def add(number):
        counts["added"] = number + 1
        pool.upsert([records([f"new{number}", f"i{5000 - number % 1000}"], seed=number)])

    def remove(number):
        if number < 1000:
            counts["removed"] = number + 1
            assert pool.delete([f"i{3000 + number}"]).deleted == 1

    def search(number):
        own = ids[number % 1000]
        assert len(pool.search_ids([own], 5, exclude=[], vectors=True).ids) == 5
        expand(pool, "c", [own], k=3)

    threads = [threading.Thread(target=repeat, args=(work,)) for work in (add, remove, search)]
    for thread in threads:
        thread.start()
    begun.wait(20)
    pool.upkeep.run()
    done.set()
    for thread in threads:
        thread.join(30)
    assert not errors
    assert pool.index.engine.name == "ivf_flat"
    gone = {f"i{3000 + number}" for number in range(counts["removed"])}
    expected = {*ids, *(f"new{number}" for number in range(counts["added"]))} - gone
    replaced_anew = {f"i{5000 - number % 1000}" for number in range(counts["added"])}
    assert expected - replaced_anew <= set(ids_of(pool)) <= expected | replaced_anew
    assert len(ids_of(pool)) == pool.size == len(set(ids_of(pool)))
    assert all_found(pool)
    before, listed = ids_of(pool), candidates_of(pool)
    assert not (gone - replaced_anew) & set(listed)
    pool.close()
    again = make(spec_of(options=SOME_LISTS), flat_items=2000)
    assert again.index.engine.name == "ivf_flat"
    assert (ids_of(again), candidates_of(again)) == (before, listed)


def all_found(pool):
    """Whether each item is the nearest of its own vector."""
    ids = ids_of(pool)
    found = pool.search(vectors_of(pool, ids), 1, exclude=[], vectors=False)
    return found.ids == ids


def test_masked_rows_are_left_behind_and_candidates_known_by_their_new_ones(make):
    pool = make(spec_of(), flat_items=10_000, max_removed_share=0.2)
    ids = names(3000)
    pool.upsert([records(ids)])
    expand(pool, "c", ids[2000:2010], k=5)
    pool.delete(ids[:1500])
    before = candidates_of(pool), ids_of(pool), pool.explain("c", candidates_of(pool))[1]
    rows = pool.index.engine.size
    pool.upkeep.run()
    assert (rows, pool.index.engine.size) == (3000, 1500)
    sources = [(reason.item_id, reason.source_id, reason.reason.score) for reason in before[2]]
    after = pool.explain("c", candidates_of(pool))[1]
    assert (candidates_of(pool), ids_of(pool)) == before[:2]
    assert [(reason.item_id, reason.source_id, reason.reason.score) for reason in after] == sources
    assert all_found(pool)


def refused_pool(make):
    options = EngineOptions(ivf_lists=64, ivf_probes=1)
    pool = make(spec_of(engine="ivf_flat", options=options, min_recall=1.0))
    pool.upsert([uniform(4000)])
    return pool


def test_an_engine_that_misses_its_recall_is_not_used_and_the_pool_says_why(make, tmp_path, monkeypatch):
    monkeypatch.setitem(tune.__kwdefaults__, "max_breadth", 1.0)
    pool = refused_pool(make)
    for _ in range(2):
        pool.upkeep.run()
        assert (pool.index.engine.name, pool.index.recall, pool.upkeep.building) == ("flat", 1.0, "")
        assert "ivf_flat was refused, recall 0." in pool.index.choice.reason
    assert all_found(pool)
    assert not (tmp_path / "engine.state").exists()


def test_a_refused_engine_is_tried_again_only_once_the_pool_has_grown(make, monkeypatch):
    pool = refused_pool(make)
    with monkeypatch.context() as patch:
        patch.setitem(tune.__kwdefaults__, "max_breadth", 1.0)
        pool.upkeep.run()
    assert pool.index.engine.name == "flat"
    pool.upsert([uniform(3000, seed=1)])
    pool.upkeep.run()
    assert pool.index.engine.name == "flat"
    pool.upsert([uniform(1000, seed=2)])
    pool.upkeep.run()
    assert pool.index.engine.name == "ivf_flat"
    assert pool.index.recall == 1.0
    assert pool.index.engine.breadth > 1


def trained(make):
    options = EngineOptions(ivf_lists=64, ivf_probes=1)
    pool = make(spec_of(engine="ivf_flat", options=options))
    pool.upsert([uniform(4000)])
    pool.upkeep.run()
    assert pool.index.engine.name == "ivf_flat"
    return pool


def test_a_restart_keeps_centroids_breadth_and_recall(make):
    pool = trained(make)
    queries = uniform(20, seed=3).vectors
    before = pool.search(queries, 10, exclude=[], vectors=False)
    state, breadth, recall = pool.index.state, pool.index.engine.breadth, pool.index.recall
    assert breadth > 1
    assert 0.95 <= recall < 1
    pool.close()
    again = make(pool.spec)
    assert (again.index.engine.name, again.index.state) == ("ivf_flat", state)
    assert (again.index.engine.breadth, again.index.recall) == (breadth, recall)
    assert again.search(queries, 10, exclude=[], vectors=False).ids == before.ids
    index = again.index
    again.upkeep.run()
    assert again.index is index


@pytest.mark.parametrize("place", ["in the header", "in the breadth", "in the centroids"])
def test_a_flipped_bit_in_what_was_trained_is_harmless(make, tmp_path, place):
    pool = trained(make)
    breadth = pool.index.engine.breadth
    pool.close()
    content = bytearray((tmp_path / "engine.state").read_bytes())
    key = b'"breadth": '
    at = {"in the header": 3, "in the breadth": content.index(key) + len(key), "in the centroids": len(content) - 9}
    content[at[place]] ^= 1
    (tmp_path / "engine.state").write_bytes(content)
    again = make(pool.spec)
    assert (again.index.engine.name, again.index.recall) == ("flat", 1.0)
    assert all_found(again)
    again.upkeep.run()
    assert (again.index.engine.name, again.index.engine.breadth) == ("ivf_flat", breadth)


def test_a_pool_that_is_closed_meanwhile_ends_the_rebuild(make, tmp_path):
    pool = make(spec_of(options=SOME_LISTS), flat_items=2000)
    pool.upsert([records(names(3000))])
    pool.begin_closing()
    assert pool.upkeep.run() is None
    assert (pool.index.engine.name, pool.upkeep.building) == ("flat", "")
    assert not (tmp_path / "engine.state").exists()


def test_a_full_disk_leaves_the_old_index_serving(make, monkeypatch):
    pool = make(spec_of(options=SOME_LISTS), flat_items=2000)
    pool.upsert([records(names(3000))])

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("index_server.store.engine_state.write_durably", refuse)
        assert pool.upkeep.run() is None
    assert (pool.index.engine.name, pool.failure) == ("flat", "")
    assert all_found(pool)
    pool.upkeep.run()
    assert pool.index.engine.name == "ivf_flat"


def test_a_rebuild_waits_for_uploads_to_end_but_not_for_ever(make, monkeypatch):
    pool = make(spec_of(options=SOME_LISTS), flat_items=2000)
    pool.upsert([records(names(3000))])
    now = [0.0]
    monkeypatch.setattr("index_server.upkeep.time.monotonic", lambda: now[0])
    monkeypatch.setattr(pool.upkeep, "_patience_s", 60.0)
    waits = []

    def uploading():
        yield records(["one"])
        waits.append(pool.upkeep.run())
        now[0] = 59.5
        waits.append(pool.upkeep.run())
        assert pool.index.engine.name == "flat"
        now[0] = 60.0
        waits.append(pool.upkeep.run())
        assert pool.index.engine.name == "ivf_flat"

    pool.upsert(uploading())
    assert waits == [1.0, 0.5, None]
    assert pool.size == 3001


def test_an_engine_that_misses_its_recall_later_is_given_up_also_after_a_restart(make, monkeypatch):
    monkeypatch.setitem(tune.__kwdefaults__, "max_breadth", 64.0)
    pool = trained(make)
    pool.delete([f"0-{number}" for number in range(2100)])
    monkeypatch.setitem(tune.__kwdefaults__, "max_breadth", 1.0)
    pool.upkeep.run()
    assert (pool.index.engine.name, pool.index.engine.size) == ("flat", 1900)
    assert "ivf_flat was refused" in pool.index.choice.reason
    pool.close()
    again = make(pool.spec)
    assert (again.index.engine.name, again.index.recall) == ("flat", 1.0)
    assert all_found(again)


def test_an_engine_without_training_waits_for_items_to_be_measured_on(make):
    pool = make(spec_of(engine="hnsw"), measurable_items=1000)
    pool.upkeep.run()
    assert (pool.index.engine.name, pool.upkeep.building) == ("flat", "")
    pool.upsert([records(names(900))])
    pool.upkeep.run()
    assert pool.index.engine.name == "flat"
    assert "1,000" in pool.index.choice.reason
    pool.upsert([records(names(200, "more"), seed=1)])
    pool.upkeep.run()
    assert pool.index.engine.name == "hnsw"
    assert pool.index.state.measured_on == 1100


def test_recall_is_measured_again_when_the_pool_has_doubled(make):
    pool = make(spec_of(engine="hnsw"))
    pool.upsert([records(names(1200))])
    pool.upkeep.run()
    pool.upsert([records(names(1100, "more"), seed=1)])
    pool.upkeep.run()
    assert pool.index.state.measured_on == 1200
    pool.upsert([records(names(200, "last"), seed=2)])
    engine = pool.index.engine
    pool.upkeep.run()
    assert (pool.index.engine, pool.index.state.measured_on) == (engine, 2500)


def test_an_engine_whose_recall_fell_as_the_pool_grew_is_not_used_on(make, tmp_path):
    # At its widest it compares 6,400 items by their true distance: enough of 5,000, too few of 23,000.
    pool = make(spec_of(engine="lsh", options=EngineOptions(lsh_bits=8, refine_factor=1), min_recall=0.99))
    pool.upsert([uniform(5000)])
    pool.upkeep.run()
    assert (pool.index.engine.name, pool.index.recall >= 0.99) == ("lsh", True)
    for seed in (1, 2):
        pool.upsert([uniform(9000, seed=seed)])
    pool.upkeep.run()
    assert pool.index.engine.name == "flat"
    assert "lsh was refused" in pool.index.choice.reason
    assert not (tmp_path / "engine.state").exists()
