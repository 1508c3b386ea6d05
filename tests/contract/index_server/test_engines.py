"""What every engine promises, against NumPy."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import faiss
import numpy as np
import pytest

from index_server.engines import ENGINES, BuildRequest, milvus_filling
from index_server.engines.faiss_gpu import gpu_count, has_cuvs
from index_server.engines.recall import tune
from index_server.spec import Device, EngineOptions, Metric, VectorType
from tests.support.milvus import connect, lite_in_process, wait_until

DIMENSION = 16
ITEMS = 2000
OPTIONS = EngineOptions(ivf_lists=16, ivf_probes=8, lsh_bits=64)
METRICS = (Metric.INNER_PRODUCT, Metric.L2)
RECALL_FLOOR = 0.95

ON_CPU = [name for name, kind in ENGINES.items() if kind.cpu]


def gpu_case(name, kind):
    reason = "FAISS finds no GPU"
    lacks = not gpu_count()
    if kind.cuvs and not lacks:
        reason, lacks = "FAISS was built without cuVS", not has_cuvs()
    marks = [pytest.mark.gpu, pytest.mark.skipif(lacks, reason=reason)]
    return pytest.param(name, Device.CUDA, id=f"{name}-cuda", marks=marks)


CASES = [pytest.param(name, Device.CPU, id=f"{name}-cpu") for name in ON_CPU] + [
    gpu_case(name, kind) for name, kind in ENGINES.items() if kind.cuda
]


REMOTE = {}
"""The Milvus of these tests, while there is one."""


@pytest.fixture(scope="module", autouse=True)
def milvus(tmp_path_factory):
    with lite_in_process(tmp_path_factory.mktemp("milvus")) as port, pytest.MonkeyPatch.context() as patch:
        patch.setattr(milvus_filling, "_POLL_S", 0.01)
        REMOTE["milvus"] = connect(port)
        yield
        REMOTE.pop("milvus").close()


@pytest.fixture(scope="module", params=[None, "disk"], ids=["memory", "disk"])
def scratch(request, tmp_path_factory):
    return tmp_path_factory.mktemp("scratch") if request.param else None


def clustered(count=ITEMS, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, DIMENSION))
    return (centres[rng.integers(0, 20, count)] + 0.4 * rng.standard_normal((count, DIMENSION))).astype(np.float32)


def data():
    """Items, and queries near some of them: (n, d) and (20, d)."""
    vectors = clustered()
    noise = np.random.default_rng(1).standard_normal((20, DIMENSION)).astype(np.float32)
    return vectors, vectors[:: ITEMS // 20] + 0.1 * noise


def request_for(device, metric, vectors, *, saved=None, **fields):
    request = BuildRequest(
        dimension=DIMENSION,
        metric=metric,
        options=OPTIONS,
        device=device,
        items=len(vectors),
        sample=lambda count: vectors[:count],
        saved=saved,
        threads=1,
        seed=0,
        milvus=REMOTE["milvus"],
    )
    return replace(request, **fields)


def build(name, device, metric, vectors, **fields):
    return ENGINES[name].build(request_for(device, metric, vectors, **fields))


def filled(name, device, metric, vectors, **fields):
    engine = build(name, device, metric, vectors, **fields)
    for start in range(0, len(vectors), 700):
        part = vectors[start : start + 700]
        engine.add(np.arange(start, start + len(part)), part)
    engine.reveal(np.arange(len(vectors)))
    wait_until(engine.settled)
    return engine


def true_keys(metric, vectors, queries):
    if metric is Metric.L2:
        return ((queries[:, None, :].astype(np.float64) - vectors[None]) ** 2).sum(-1)
    return -(queries.astype(np.float64) @ vectors.T.astype(np.float64))


def true_rows(metric, vectors, queries, k, gone=()):
    keys = true_keys(metric, vectors, queries)
    keys[:, list(gone)] = np.inf
    return np.argsort(keys, axis=1, kind="stable")[:, :k]


def recall(found, true):
    return np.mean([len(set(f) & set(t)) / len(t) for f, t in zip(found.tolist(), true.tolist(), strict=True)])


def floor_of(name):
    return 1 if ENGINES[name].exact else RECALL_FLOOR


@pytest.mark.parametrize(("name", "device"), CASES)
@pytest.mark.parametrize("metric", METRICS)
class TestEveryEngine:
    def test_finds_the_nearest_rows_in_order(self, name, device, metric):
        vectors, queries = data()
        engine = filled(name, device, metric, vectors)
        rows, scores = engine.search(queries, 10)
        assert recall(rows, true_rows(metric, vectors, queries, 10)) >= floor_of(name)
        steps = np.diff(scores, axis=1)
        assert (steps >= 0).all() if metric is Metric.L2 else (steps <= 0).all()
        engine.close()

    def test_gives_scores_within_its_rounding(self, name, device, metric):
        vectors, queries = data()
        engine = filled(name, device, metric, vectors)
        rows, scores = engine.search(queries, 10)
        true = np.take_along_axis(true_keys(metric, vectors, queries), rows, 1)
        lengths, theirs = np.linalg.norm(queries, axis=1)[:, None], np.linalg.norm(vectors, axis=1)[rows]
        scale = (lengths + theirs) ** 2 if metric is Metric.L2 else lengths * theirs
        ours = scores if metric is Metric.L2 else -scores
        assert (np.abs(ours - true) <= engine.rounding * scale).all()
        engine.close()

    def test_never_returns_removed_or_excluded_rows(self, name, device, metric):
        vectors, queries = data()
        engine = filled(name, device, metric, vectors)
        removed, excluded = np.arange(0, ITEMS, 3), np.arange(1, ITEMS, 3)
        engine.remove(removed)
        engine.remove(removed[:5])
        assert engine.removed == len(removed)
        gone = np.concatenate([removed, excluded])
        rows, _ = engine.search(queries, 10, excluded=np.concatenate([excluded, removed[:3]]))
        assert not np.isin(rows, gone).any()
        assert recall(rows, true_rows(metric, vectors, queries, 10, gone)) >= floor_of(name)
        rows, _ = engine.search(queries, 10)
        assert np.isin(rows, excluded).any()
        engine.close()

    def test_finds_rows_once_they_are_revealed(self, name, device, metric):
        vectors, queries = data()
        engine = build(name, device, metric, vectors)
        engine.add(np.arange(ITEMS), vectors)
        wait_until(engine.settled)
        assert (engine.size, engine.removed) == (ITEMS, ITEMS)
        assert (engine.search(queries, 5)[0] == -1).all()
        shown = np.arange(0, ITEMS, 2)
        engine.reveal(shown)
        assert engine.removed == ITEMS - len(shown)
        hidden = np.arange(1, ITEMS, 2)
        assert engine.revealed(shown).all()
        assert not engine.revealed(hidden).any()
        assert recall(engine.search(queries, 10)[0], true_rows(metric, vectors, queries, 10, hidden)) >= floor_of(name)
        engine.close()
        np.testing.assert_array_equal(engine.vectors(hidden[:3]), vectors[hidden[:3]])

    def test_returns_every_row_left_where_k_is_larger_and_pads_the_rest(self, name, device, metric):
        vectors = clustered()
        engine = filled(name, device, metric, vectors)
        engine.remove(np.arange(25, ITEMS))
        rows, _ = engine.search(vectors[:3], 40)
        assert [sorted(row[row >= 0].tolist()) for row in rows] == [list(range(25))] * 3
        assert (rows[:, 25:] == -1).all()
        engine.remove(np.arange(25))
        assert (engine.search(vectors[:3], 5)[0] == -1).all()
        engine.close()

    def test_pads_where_k_is_beyond_the_count(self, name, device, metric):
        vectors = clustered()
        engine = build(name, device, metric, vectors)
        engine.add(np.arange(7), vectors[:7])
        engine.reveal(np.arange(7))
        wait_until(engine.settled)
        rows, _ = engine.search(vectors[:2], 3000)
        assert [sorted(row[:7].tolist()) for row in rows] == [list(range(7))] * 2
        assert (rows[:, 7:] == -1).all()
        engine.close()

    def test_gives_vectors_back_bit_for_bit(self, name, device, metric, scratch):
        vectors = clustered()
        engine = filled(name, device, metric, vectors, scratch_dir=scratch)
        rows = np.array([ITEMS - 1, 0, 700, 700])
        np.testing.assert_array_equal(engine.vectors(rows), vectors[rows])
        assert engine.size == ITEMS
        codes = scratch is not None and name in ("ivf_pq", "lsh", "milvus")
        assert 0 < engine.memory_bytes < vectors.nbytes if codes else engine.memory_bytes >= vectors.nbytes
        engine.close()

    def test_keeps_float16_where_it_is_asked_to(self, name, device, metric, scratch):
        vectors, queries = data()
        half = vectors.astype(np.float16).astype(np.float32)
        engine = filled(name, device, metric, vectors, scratch_dir=scratch, vector_type=VectorType.FLOAT16)
        given = engine.vectors(np.arange(ITEMS))
        assert (given == half).all() or (given == vectors).all()
        assert given.dtype == np.float32
        rows, _ = engine.search(queries, 10)
        # Equal scores among rounded vectors are rare, and a rounded query on a GPU may swap neighbours.
        assert recall(rows, true_rows(metric, given, queries, 10)) >= (0.99 if ENGINES[name].exact else RECALL_FLOOR)
        engine.close()

    def test_refuses_rows_that_do_not_go_on(self, name, device, metric):
        engine = filled(name, device, metric, clustered())
        with pytest.raises(ValueError, match="go on from"):
            engine.add(np.array([ITEMS + 1]), clustered(1))
        assert engine.size == ITEMS
        engine.close()

    def test_takes_nothing_and_answers_nothing(self, name, device, metric):
        engine = build(name, device, metric, clustered())
        engine.add(np.empty(0, np.int64), np.empty((0, DIMENSION), np.float32))
        assert engine.size == 0
        assert (engine.search(clustered(2), 3)[0] == -1).all()
        assert engine.search(clustered(0), 3)[0].shape == (0, 3)
        engine.close()

    def test_searches_the_same_once_restored_from_what_was_saved(self, name, device, metric):
        vectors, queries = data()
        engine = filled(name, device, metric, vectors)
        saved = engine.save()
        if saved is None:
            engine.close()
            pytest.skip(f"{name} has no training to save")
        other = build(name, device, metric, vectors[:0], saved=saved)
        other.add(np.arange(ITEMS), vectors)
        other.reveal(np.arange(ITEMS))
        for ours, theirs in zip(engine.search(queries, 10), other.search(queries, 10), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        engine.close()
        other.close()

    def test_answers_a_query_alone_as_among_others(self, name, device, metric):
        vectors, queries = data()
        engine = filled(name, device, metric, vectors)
        together, _ = engine.search(queries, 10)
        alone = np.concatenate([engine.search(query[None], 10)[0] for query in queries])
        np.testing.assert_array_equal(together, alone)
        engine.close()

    def test_finds_no_less_when_it_searches_wider(self, name, device, metric):
        vectors, queries = data()
        narrow = EngineOptions(ivf_lists=16, ivf_probes=1, hnsw_ef_search=1, hnsw_neighbors=12, refine_factor=1)
        engine = filled(name, device, metric, vectors, options=replace(narrow, lsh_bits=32, hnsw_ef_construction=20))
        assert engine.breadth == 1
        with pytest.raises(ValueError, match="below 1"):
            engine.breadth = 0.5
        true = true_rows(metric, vectors, queries, 5)
        before = recall(engine.search(queries, 5)[0], true)
        engine.breadth = 400.0
        after = recall(engine.search(queries, 5)[0], true)
        assert engine.breadth == 400
        # So wide all clusters and codes are looked at; a graph need not connect everything.
        assert after >= (RECALL_FLOOR if name in ("hnsw", "cagra", "milvus") else 1)
        assert after > before or before == 1
        engine.close()

    def test_reaches_the_floor_of_recall_when_tuned(self, name, device, metric):
        engine = filled(name, device, metric, clustered())
        report = tune(engine, RECALL_FLOOR, metric=metric, seed=0)
        assert report.met
        assert report.recall >= (1 if ENGINES[name].exact else RECALL_FLOOR)
        assert (report.k, report.queries) == (100, 100)
        engine.close()


@pytest.mark.parametrize("name", ["ivf_flat", "ivf_pq", "lsh"])
def test_training_is_repeatable(name):
    vectors = clustered()
    states = [build(name, Device.CPU, Metric.L2, vectors).save() for _ in range(2)]
    assert states[0] == states[1]


def test_openmp_threads_belong_to_the_calling_thread():
    # Why set_threads is called before each search, and not once at start.
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        before = other.submit(faiss.omp_get_max_threads).result()
        one.submit(faiss.omp_set_num_threads, before + 1).result()
        assert one.submit(faiss.omp_get_max_threads).result() == before + 1
        assert other.submit(faiss.omp_get_max_threads).result() == before
