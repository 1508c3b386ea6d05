"""What every engine promises, against NumPy."""

from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest

from index_server.engines import ENGINES, BuildRequest
from index_server.engines.faiss_gpu import gpu_count
from index_server.spec import Device, EngineOptions, Metric

DIMENSION = 16
ITEMS = 2000
OPTIONS = EngineOptions(ivf_lists=16, ivf_probes=8)
METRICS = (Metric.INNER_PRODUCT, Metric.L2)
RECALL_FLOOR = 0.95

needs_gpu = pytest.mark.skipif(not gpu_count(), reason="FAISS finds no GPU")
CASES = [pytest.param(name, Device.CPU, id=f"{name}-cpu") for name in ENGINES] + [
    pytest.param(name, Device.CUDA, id=f"{name}-cuda", marks=[pytest.mark.gpu, needs_gpu])
    for name, kind in ENGINES.items()
    if kind.cuda
]


def clustered(count=ITEMS, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, DIMENSION))
    return (centres[rng.integers(0, 20, count)] + 0.4 * rng.standard_normal((count, DIMENSION))).astype(np.float32)


def data():
    """Items, and queries near some of them: (n, d) and (20, d)."""
    vectors = clustered()
    noise = np.random.default_rng(1).standard_normal((20, DIMENSION)).astype(np.float32)
    return vectors, vectors[:: ITEMS // 20] + 0.1 * noise


def build(name, device, metric, vectors, *, saved=None):
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
    )
    return ENGINES[name].build(request)


def filled(name, device, metric, vectors):
    engine = build(name, device, metric, vectors)
    for start in range(0, len(vectors), 700):
        part = vectors[start : start + 700]
        engine.add(np.arange(start, start + len(part)), part)
    engine.reveal(np.arange(len(vectors)))
    return engine


def true_rows(metric, vectors, queries, k, gone=()):
    if metric is Metric.L2:
        keys = ((queries[:, None, :].astype(np.float64) - vectors[None]) ** 2).sum(-1)
    else:
        keys = -(queries.astype(np.float64) @ vectors.T)
    keys[:, list(gone)] = np.inf
    return np.argsort(keys, axis=1, kind="stable")[:, :k]


def recall(found, true):
    return np.mean([len(set(f) & set(t)) / len(t) for f, t in zip(found.tolist(), true.tolist(), strict=True)])


@pytest.mark.parametrize(("name", "device"), CASES)
@pytest.mark.parametrize("metric", METRICS)
class TestEveryEngine:
    def test_finds_the_nearest_rows_in_order(self, name, device, metric):
        vectors, queries = data()
        engine = filled(name, device, metric, vectors)
        rows, scores = engine.search(queries, 10)
        assert recall(rows, true_rows(metric, vectors, queries, 10)) >= (1 if ENGINES[name].exact else RECALL_FLOOR)
        steps = np.diff(scores, axis=1)
        assert (steps >= 0).all() if metric is Metric.L2 else (steps <= 0).all()
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
        floor = 1 if ENGINES[name].exact else RECALL_FLOOR
        assert recall(rows, true_rows(metric, vectors, queries, 10, gone)) >= floor
        rows, _ = engine.search(queries, 10)
        assert np.isin(rows, excluded).any()
        engine.close()

    def test_finds_rows_once_they_are_revealed(self, name, device, metric):
        vectors, queries = data()
        engine = build(name, device, metric, vectors)
        engine.add(np.arange(ITEMS), vectors)
        assert (engine.size, engine.removed) == (ITEMS, ITEMS)
        assert (engine.search(queries, 5)[0] == -1).all()
        shown = np.arange(0, ITEMS, 2)
        engine.reveal(shown)
        assert engine.removed == ITEMS - len(shown)
        hidden = np.arange(1, ITEMS, 2)
        floor = 1 if ENGINES[name].exact else RECALL_FLOOR
        assert recall(engine.search(queries, 10)[0], true_rows(metric, vectors, queries, 10, hidden)) >= floor
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

    def test_gives_vectors_back_bit_for_bit(self, name, device, metric):
        vectors = clustered()
        engine = filled(name, device, metric, vectors)
        rows = np.array([ITEMS - 1, 0, 700, 700])
        np.testing.assert_array_equal(engine.vectors(rows), vectors[rows])
        assert engine.size == ITEMS
        assert engine.memory_bytes >= vectors.nbytes
        engine.close()

    def test_refuses_rows_that_do_not_go_on(self, name, device, metric):
        engine = filled(name, device, metric, clustered())
        with pytest.raises(ValueError, match="go on from"):
            engine.add(np.array([ITEMS + 1]), clustered(1))
        engine.close()

    def test_searches_the_same_once_restored_from_what_was_saved(self, name, device, metric):
        vectors, queries = data()
        engine = filled(name, device, metric, vectors)
        saved = engine.save()
        if saved is None:
            pytest.skip(f"{name} has no training to save")
        other = build(name, device, metric, vectors[:0], saved=saved)
        other.add(np.arange(ITEMS), vectors)
        other.reveal(np.arange(ITEMS))
        for ours, theirs in zip(engine.search(queries, 10), other.search(queries, 10), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        engine.close()
        other.close()


def test_training_is_repeatable():
    vectors = clustered()
    states = [build("ivf_flat", Device.CPU, Metric.L2, vectors).save() for _ in range(2)]
    assert states[0] == states[1]


def test_openmp_threads_belong_to_the_calling_thread():
    # Why set_threads is called before each search, and not once at start.
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        before = other.submit(faiss.omp_get_max_threads).result()
        one.submit(faiss.omp_set_num_threads, before + 1).result()
        assert one.submit(faiss.omp_get_max_threads).result() == before + 1
        assert other.submit(faiss.omp_get_max_threads).result() == before
