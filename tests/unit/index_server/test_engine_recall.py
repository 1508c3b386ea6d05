"""Measuring what an engine finds, and widening it until that is enough."""

from contextlib import contextmanager

import numpy as np
import pytest

from index_server.engines import ENGINES, BuildRequest
from index_server.engines import exact as exact_module
from index_server.engines.exact import exact_top
from index_server.engines.recall import RecallReport, measure_recall, sample_truth, tune
from index_server.spec import Device, EngineOptions, Metric

DIMENSION = 12
METRICS = (Metric.INNER_PRODUCT, Metric.L2)


def vectors_of(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)


def engine_of(name, metric, vectors, **options):
    request = BuildRequest(
        dimension=DIMENSION,
        metric=metric,
        options=EngineOptions(**options),
        device=Device.CPU,
        items=len(vectors),
        sample=lambda count: vectors[:count],
        saved=None,
        threads=1,
        seed=0,
    )
    engine = ENGINES[name].build(request)
    engine.add(np.arange(len(vectors)), vectors)
    engine.reveal(np.arange(len(vectors)))
    return engine


def keys_of(metric, vectors, queries):
    if metric is Metric.L2:
        return ((queries[:, None].astype(np.float64) - vectors[None]) ** 2).sum(-1)
    return -(queries.astype(np.float64) @ vectors.T.astype(np.float64))


@pytest.mark.parametrize("metric", METRICS)
def test_recall_is_the_share_that_a_plain_count_gives(metric):
    vectors = vectors_of(900)
    engine = engine_of("ivf_flat", metric, vectors, ivf_lists=20, ivf_probes=2)
    engine.remove(np.arange(0, 900, 5))
    truth = sample_truth(engine, metric, seed=3, k=20, queries=40)
    keys = keys_of(metric, vectors, truth.queries)
    keys[:, ::5] = np.inf
    keys[np.arange(40), truth.rows] = np.inf
    true = np.argsort(keys, axis=1)[:, :20]
    found, _ = engine.search(truth.queries, 21)
    hits = [
        len(set(row[row != own][:20].tolist()) & set(near.tolist()))
        for row, own, near in zip(found, truth.rows, true, strict=True)
    ]
    measured = measure_recall(engine, truth)
    assert measured == pytest.approx(sum(hits) / 800)
    assert 0.2 < measured < 0.95
    np.testing.assert_array_equal(truth.queries, vectors[truth.rows])
    assert not (truth.rows % 5 == 0).any()


@pytest.mark.parametrize("metric", METRICS)
def test_an_exact_engine_has_a_recall_of_one_even_among_equal_vectors(metric):
    vectors = np.repeat(vectors_of(30), 20, axis=0)
    engine = engine_of("flat", metric, vectors)
    report = tune(engine, 1.0, metric=metric, seed=0)
    assert report == RecallReport(recall=1.0, k=100, queries=100, breadth=1.0, met=True)


def test_the_draw_depends_on_the_seed_alone():
    engine = engine_of("flat", Metric.L2, vectors_of(500))
    rows = [sample_truth(engine, Metric.L2, seed=seed, queries=30).rows.tolist() for seed in (1, 1, 2)]
    assert rows[0] == rows[1] != rows[2]
    assert len(set(rows[0])) == 30


@pytest.mark.parametrize(("count", "k"), [(0, 0), (1, 0), (2, 1), (60, 59)])
def test_a_small_pool_is_measured_with_the_neighbours_there_are(count, k):
    report = tune(engine_of("hnsw", Metric.L2, vectors_of(count)), 0.9, metric=Metric.L2, seed=0)
    assert (report.k, report.queries, report.met) == (k, count, True)


def test_breadth_is_doubled_until_the_floor_is_met_and_no_further():
    engine = engine_of("ivf_flat", Metric.L2, vectors_of(2000), ivf_lists=64, ivf_probes=1)
    truth = sample_truth(engine, Metric.L2, seed=0)
    report = tune(engine, 0.8, metric=Metric.L2, seed=0)
    assert report.met
    assert report.breadth == engine.breadth > 1
    assert report.recall == measure_recall(engine, truth) >= 0.8
    engine.breadth = report.breadth / 2
    assert measure_recall(engine, truth) < 0.8


def test_a_floor_that_is_out_of_reach_is_reported_as_not_met():
    engine = engine_of("ivf_flat", Metric.L2, vectors_of(2000), ivf_lists=64, ivf_probes=1)
    report = tune(engine, 0.999, metric=Metric.L2, seed=0, max_breadth=4.0)
    assert (report.met, report.breadth) == (False, 4.0)
    assert report.recall < 0.999


def test_nothing_is_held_for_longer_than_one_block(monkeypatch):
    # Blocks of 100 rows: the pool of 900 is read in nine turns, and compared outside of them.
    monkeypatch.setattr(exact_module, "BLOCK_BYTES", 100 * 4 * DIMENSION)
    held = []
    inside = False

    @contextmanager
    def reading():
        nonlocal inside
        assert not inside
        inside = True
        held.append(0)
        yield
        inside = False

    class Watched:
        def __init__(self, engine):
            self._engine = engine

        def __getattr__(self, name):
            return getattr(self._engine, name)

        def vectors(self, rows):
            assert inside
            held[-1] += len(rows)
            return self._engine.vectors(rows)

        def search(self, *arguments):
            assert inside
            return self._engine.search(*arguments)

    engine = Watched(engine_of("flat", Metric.L2, vectors_of(900)))
    report = tune(engine, 1.0, metric=Metric.L2, seed=0, k=1, queries=10, reading=reading)
    assert report.recall == 1
    assert max(held) <= 100
    assert held.count(100) == 9


@pytest.mark.parametrize("metric", METRICS)
def test_exact_top_agrees_with_numpy_across_blocks_and_pads(metric, monkeypatch):
    monkeypatch.setattr(exact_module, "BLOCK_BYTES", 64 * 4 * DIMENSION)
    vectors, queries = vectors_of(300), vectors_of(5, seed=1)
    kept = np.random.default_rng(2).random(300) < 0.5
    keys = keys_of(metric, vectors, queries)
    keys[:, ~kept] = np.inf
    for k in (1, 17, 200):
        rows, scores = exact_top(
            queries, k, metric=metric, size=300, read=lambda rows: vectors[rows], kept=lambda rows: kept[rows]
        )
        count = min(k, int(kept.sum()))
        np.testing.assert_array_equal(rows[:, :count], np.argsort(keys, axis=1)[:, :count])
        assert (rows[:, count:] == -1).all()
        assert (scores[:, count:] == 0).all()
        best = np.sort(keys, axis=1)[:, :count] * (-1 if metric.higher_is_nearer else 1)
        np.testing.assert_allclose(scores[:, :count], best, rtol=1e-4, atol=1e-5)
