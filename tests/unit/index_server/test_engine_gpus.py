"""GPU engines without a GPU: what they make up for in Python, over an index that is slow and exact."""

import threading

import numpy as np
import pytest

from index_server.engines import BuildRequest, GpuLayout
from index_server.engines.cagra import GraphAndTail
from index_server.engines.exact import block_scores
from index_server.engines.faiss_gpu import FaissGpuEngine, first_kept, gpu_count, gpu_memory_bytes
from index_server.engines.gpu_layout import GpuPart, Replicas, Shards, lay_out, merged
from index_server.spec import Device, EngineOptions, Metric, VectorType

DIMENSION = 8
METRICS = (Metric.INNER_PRODUCT, Metric.L2)
LAYOUTS = [(1, GpuLayout.REPLICAS), (3, GpuLayout.REPLICAS), (3, GpuLayout.SHARDS)]


class FakeIndex:
    """Exact, masks nothing, and pads with −1, as GPU indexes do; it remembers who called and how."""

    def __init__(self, metric, *, reach=2048, vectors=None):
        self.metric = metric
        self.reach = reach
        self.vectors = np.empty((0, DIMENSION), np.float32) if vectors is None else vectors
        self.breadth = 1.0
        self.fetched = []
        self.asked = []
        self.threads = set()

    def add(self, vectors):
        self.threads.add(threading.get_ident())
        self.vectors = np.concatenate([self.vectors, vectors])

    def search(self, queries, k):
        assert k <= self.reach
        self.threads.add(threading.get_ident())
        self.fetched.append(k)
        self.asked.append(len(queries))
        keys = block_scores(self.metric, queries, self.vectors)
        order = np.argsort(-keys if self.metric.higher_is_nearer else keys, axis=1, kind="stable")[:, :k]
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), np.nan, np.float32)
        rows[:, : order.shape[1]] = order
        scores[:, : order.shape[1]] = np.take_along_axis(keys, order, 1)
        return scores, rows

    def widen(self, breadth):
        self.breadth = breadth


def vectors_of(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)


def request_for(metric, **fields):
    return BuildRequest(
        dimension=DIMENSION,
        metric=metric,
        options=EngineOptions(),
        device=Device.CUDA,
        items=0,
        sample=lambda count: vectors_of(count),
        saved=None,
        threads=1,
        seed=0,
        **fields,
    )


def engine_over_fakes(metric=Metric.L2, *, gpus=1, layout=GpuLayout.REPLICAS, vector_type=VectorType.FLOAT32, **fields):
    fakes = []

    def make(_gpu, request):
        fakes.append(FakeIndex(request.metric, reach=fields.get("reach", 2048)))
        return fakes[-1]

    request = request_for(metric, gpus=gpus, gpu_layout=layout, vector_type=vector_type)
    return FaissGpuEngine("fake", request, make, **fields), fakes


def fill(engine, vectors):
    for start in range(0, len(vectors), 64):
        part = vectors[start : start + 64]
        engine.add(np.arange(start, start + len(part)), part)
    engine.reveal(np.arange(len(vectors)))


def true_rows(metric, vectors, queries, k, gone=()):
    keys = block_scores(metric, queries, vectors) * (-1 if metric.higher_is_nearer else 1)
    keys[:, list(gone)] = np.inf
    return np.argsort(keys, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("gpus", "layout"), LAYOUTS)
def test_every_layout_finds_the_nearest_rows_that_are_not_masked(metric, gpus, layout):
    vectors, queries = vectors_of(300), vectors_of(7, seed=1)
    engine, fakes = engine_over_fakes(metric, gpus=gpus, layout=layout)
    fill(engine, vectors)
    gone = np.arange(0, 300, 4)
    engine.remove(gone)
    rows, _ = engine.search(queries, 9, excluded=np.array([1, 2]))
    np.testing.assert_array_equal(rows, true_rows(metric, vectors, queries, 9, [*gone, 1, 2]))
    assert all(len(fake.threads) == 1 for fake in fakes)
    assert len(set.union(*(fake.threads for fake in fakes))) == gpus
    engine.close()
    np.testing.assert_array_equal(engine.vectors(np.array([5])), vectors[5:6])


def test_masked_rows_are_fetched_first_a_few_and_then_all():
    vectors = vectors_of(600)
    engine, fakes = engine_over_fakes(Metric.L2)
    fill(engine, vectors)
    near = true_rows(Metric.L2, vectors, vectors[:1], 300)[0]
    engine.remove(near[10:])
    rows, _ = engine.search(vectors[:1], 5)
    assert fakes[0].fetched == [5 + 64 + 1]
    np.testing.assert_array_equal(rows[0], near[:5])
    rows, _ = engine.search(vectors[:1], 15)
    assert fakes[0].fetched[1:] == [15 + 64 + 3, 15 + 290]
    np.testing.assert_array_equal(rows, true_rows(Metric.L2, vectors, vectors[:1], 15, near[10:]))
    engine.close()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [10, 40])
def test_what_the_gpu_cannot_reach_is_scanned_in_the_host(metric, k):
    vectors, queries = vectors_of(500), vectors_of(3, seed=1)
    engine, _ = engine_over_fakes(metric, reach=32)
    fill(engine, vectors)
    gone = true_rows(metric, vectors, queries, 200)[0]
    engine.remove(gone)
    rows, _ = engine.search(queries, k)
    np.testing.assert_array_equal(rows, true_rows(metric, vectors, queries, k, gone))
    engine.close()


def test_codes_are_refined_by_the_vectors_of_the_host():
    vectors = vectors_of(400)
    coarse = np.round(vectors)

    class Rounded(FakeIndex):
        def add(self, vectors):
            super().add(np.round(vectors))

    rounded = Rounded(Metric.L2)
    engine = FaissGpuEngine("fake", request_for(Metric.L2), lambda *_: rounded, refine_factor=8, device_bytes=10)
    fill(engine, vectors)
    rows, scores = engine.search(vectors[:5], 10)
    true = true_rows(Metric.L2, vectors, vectors[:5], 10)
    unrefined = true_rows(Metric.L2, coarse, vectors[:5], 10)
    assert sum(np.isin(rows[i], true[i]).sum() for i in range(5)) > sum(
        np.isin(unrefined[i], true[i]).sum() for i in range(5)
    )
    assert (np.diff(scores, axis=1) >= 0).all()
    assert rounded.fetched == [80]
    engine.breadth = 2.0
    engine.search(vectors[:5], 10)
    assert rounded.fetched == [80, 160]
    engine.close()


def test_memory_counts_the_host_and_each_gpu_that_has_the_items():
    def memory(gpus, layout, vector_type=VectorType.FLOAT32):
        engine, _ = engine_over_fakes(gpus=gpus, layout=layout, vector_type=vector_type)
        fill(engine, vectors_of(64))
        engine.close()
        return engine.memory_bytes - engine._mask.nbytes

    once = 64 * DIMENSION * 4
    assert memory(1, GpuLayout.REPLICAS) == 2 * once
    assert memory(3, GpuLayout.REPLICAS) == 4 * once
    assert memory(3, GpuLayout.SHARDS) == 2 * once
    assert memory(1, GpuLayout.REPLICAS, VectorType.FLOAT16) == once


def test_float16_on_a_gpu_is_said_to_round_more():
    engine, _ = engine_over_fakes(vector_type=VectorType.FLOAT16)
    plain, _ = engine_over_fakes()
    assert engine.rounding > 2**-10 > plain.rounding
    engine.close()
    plain.close()


def test_breadth_reaches_every_gpu():
    engine, fakes = engine_over_fakes(gpus=3)
    engine.breadth = 4.0
    assert [fake.breadth for fake in fakes] == [4, 4, 4]
    engine.close()


def test_replicas_share_the_queries_and_take_single_ones_in_turn():
    fakes = [FakeIndex(Metric.L2) for _ in range(2)]
    replicas = Replicas([GpuPart("gpu", lambda fake=fake: fake) for fake in fakes])
    replicas.add(vectors_of(20))
    replicas.search(vectors_of(5), 3)
    assert [fake.asked for fake in fakes] == [[3], [2]]
    for _ in range(2):
        replicas.search(vectors_of(1), 3)
    assert [fake.asked for fake in fakes] == [[3, 1], [2, 1]]
    replicas.close()


def test_shards_stay_equally_full_whatever_the_sizes_of_additions():
    fakes = [FakeIndex(Metric.L2) for _ in range(3)]
    shards = Shards([GpuPart("gpu", lambda fake=fake: fake) for fake in fakes], Metric.L2)
    vectors = vectors_of(41)
    for start, stop in [(0, 1), (1, 2), (2, 4), (4, 30), (30, 41)]:
        shards.add(vectors[start:stop])
    sizes = [len(fake.vectors) for fake in fakes]
    assert max(sizes) - min(sizes) <= 1
    scores, rows = shards.search(vectors, 60)
    np.testing.assert_array_equal(rows[:, :41], true_rows(Metric.L2, vectors, vectors, 41))
    assert (rows[:, 41:] == -1).all()
    assert (np.diff(scores[:, :41], axis=1) >= 0).all()
    shards.close()


def test_one_gpu_is_asked_without_going_round():
    part = lay_out("fake", request_for(Metric.L2), lambda _gpu, request: FakeIndex(request.metric))
    assert isinstance(part, GpuPart)
    part.close()


def test_a_closed_index_refuses_work():
    part = GpuPart("gpu", lambda: FakeIndex(Metric.L2))
    part.close()
    with pytest.raises(RuntimeError):
        part.search(vectors_of(1), 1)


def test_answers_are_merged_by_score_and_equals_by_row():
    left = (np.array([[3.0, 1.0, np.nan]], np.float32), np.array([[4, 9, -1]]))
    right = (np.array([[3.0, 2.0, 0.5]], np.float32), np.array([[2, 7, 1]]))
    scores, rows = merged(Metric.INNER_PRODUCT, [left, right], 5)
    assert rows.tolist() == [[2, 4, 7, 9, 1]]
    assert scores.tolist() == [[3, 3, 2, 1, 0.5]]
    assert merged(Metric.L2, [left, right], 6)[1].tolist() == [[1, 9, 7, 2, 4, -1]]


def test_the_first_kept_rows_keep_their_order():
    bits = np.packbits([1, 0, 1, 1, 0, 1, 1, 1], bitorder="little")
    rows = np.array([[4, 3, 1, 0, 6], [7, 1, 4, -1, -1]])
    scores = np.arange(10, dtype=np.float32).reshape(2, 5)
    near, kept_scores, enough = first_kept(scores, rows, bits, 3, 2)
    assert near.tolist() == [[3, 0, 6], [7, -1, -1]]
    assert kept_scores[0].tolist() == [1, 3, 4]
    assert enough.tolist() == [True, False]


def test_a_graph_is_built_once_and_what_follows_is_searched_beside_it():
    built, tails = [], []

    def make_graph(vectors):
        built.append(FakeIndex(Metric.L2, vectors=vectors))
        return built[-1]

    def make_tail():
        tails.append(FakeIndex(Metric.L2))
        return tails[-1]

    index = GraphAndTail(100, Metric.L2, make_graph=make_graph, make_tail=make_tail)
    vectors = vectors_of(150)
    index.widen(3.0)
    index.add(vectors[:60])
    assert not built
    np.testing.assert_array_equal(index.search(vectors[:9], 5)[1], true_rows(Metric.L2, vectors[:60], vectors[:9], 5))
    index.add(vectors[60:120])
    assert [len(graph.vectors) for graph in built] == [120]
    assert built[0].breadth == 3
    index.add(vectors[120:])
    assert len(tails[-1].vectors) == 30
    assert len(built) == 1
    np.testing.assert_array_equal(index.search(vectors, 5)[1], true_rows(Metric.L2, vectors, vectors, 5))


@pytest.mark.skipif(gpu_count() > 0, reason="there is a GPU here")
def test_the_memory_of_gpus_that_are_not_there_is_not_known():
    assert gpu_memory_bytes() == 0
