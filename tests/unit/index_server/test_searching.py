"""What an index answers does not depend on what else is searched for."""

import threading

import numpy as np
import pytest

from index_server.engines import ENGINES, BuildRequest
from index_server.merging import MergeLimits, SearchMerger
from index_server.searching import RescoredSearch, without_own
from index_server.spec import Device, EngineOptions, Metric
from sealpool.runtime.callers import NO_CALLER
from tests.support.pools import NoObserver

DIMENSION = 24
COUNT = 3000


def vectors_of(metric):
    vectors = np.random.default_rng(0).standard_normal((COUNT, DIMENSION)).astype(np.float32)
    vectors[100:140] = vectors[0]  # twins: ties at the k-th place
    vectors[200:260] = vectors[1] * np.float32(1 + 1e-7)  # alike but for rounding
    if metric is Metric.COSINE:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def searching(metric, engine="flat"):
    vectors = vectors_of(metric)
    request = BuildRequest(
        dimension=DIMENSION,
        metric=metric,
        options=EngineOptions(ivf_lists=8, ivf_probes=3),
        device=Device.CPU,
        items=COUNT,
        sample=lambda count: vectors[:count],
        saved=None,
        threads=1,
        seed=0,
    )
    built = ENGINES[engine].build(request)
    built.add(np.arange(COUNT), vectors)
    built.reveal(np.arange(COUNT))
    search = RescoredSearch(built, metric, DIMENSION)
    search.longest = float(np.linalg.norm(vectors, axis=1).max())
    return search, vectors


def exact(metric, query, vectors, k, without=()):
    products = (vectors * query).sum(axis=1, dtype=np.float64)
    keys = np.linalg.norm(vectors - query, axis=1) if metric is Metric.L2 else -products
    order = [row for row in np.lexsort((np.arange(len(vectors)), keys.round(5))) if row not in without]
    return order[:k]


@pytest.mark.parametrize("metric", list(Metric))
def test_of_equally_near_rows_the_first_come_also_at_the_last_place(metric):
    search, vectors = searching(metric)
    rows, scores = search.nearest(vectors[:1], 20)
    if metric is not Metric.INNER_PRODUCT:
        assert rows[0].tolist() == [0, *range(100, 119)]
    assert rows[0].tolist() == exact(metric, vectors[0], vectors, 20)
    assert np.all(np.diff(scores[0]) >= 0 if metric is Metric.L2 else np.diff(scores[0]) <= 0)


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("engine", ["flat", "ivf_flat"])
def test_a_query_gets_the_same_answer_alone_among_others_and_for_a_larger_k(metric, engine):
    search, vectors = searching(metric, engine)
    queries = np.concatenate([vectors[:4], vectors[200:204], vectors[1000:1040]])
    together, scores = search.nearest(queries, 30)
    for place, query in enumerate(queries):
        alone, its_scores = search.nearest(query[None], 12)
        np.testing.assert_array_equal(alone[0], together[place, :12])
        np.testing.assert_array_equal(its_scores[0], scores[place, :12])


@pytest.mark.parametrize("metric", list(Metric))
def test_excluded_rows_are_in_no_answer(metric):
    search, vectors = searching(metric)
    rows, _ = search.nearest(vectors[:3], 5, excluded=np.array([0, 101, 1]))
    for place in range(3):
        assert rows[place].tolist() == exact(metric, vectors[place], vectors, 5, without=(0, 101, 1))


def test_rows_that_are_not_there_are_minus_1():
    search, vectors = searching(Metric.L2)
    rows, _ = search.nearest(vectors[:1], COUNT + 2)
    assert (rows[0] >= 0).sum() == COUNT
    assert rows[0, -2:].tolist() == [-1, -1]


def test_the_querys_own_row_is_left_out_wherever_it_is():
    rows = np.array([[4, 7, 9], [7, 4, 9], [1, 2, 3]])
    scores = np.array([[1, 2, 3], [1, 2, 3], [1, 2, 3]], np.float32)
    found, kept = without_own(rows, scores, np.array([4, 4, 4]))
    assert found.tolist() == [[7, 9], [7, 9], [1, 2]]
    assert kept.tolist() == [[2, 3], [1, 3], [1, 2]]


def test_searches_that_were_merged_get_the_answers_of_lone_ones():
    search, vectors = searching(Metric.COSINE)
    calls, go_on = [], threading.Event()

    def counted(queries, k):
        calls.append(len(queries))
        assert go_on.wait(20)
        return search.nearest(queries, k)

    merger = SearchMerger(counted, MergeLimits(max_queries=100, max_waiting=1000), observer=NoObserver())
    wanted = [(vectors[start : start + 1 + start % 3], 5 + start % 7) for start in range(0, 24, 2)]
    answers = {}

    def ask(place):
        answers[place] = merger.submit(*wanted[place], caller=NO_CALLER)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(wanted))]
    for thread in threads:
        thread.start()
    while len(merger._queue) < len(wanted) - 1:
        threads[-1].join(0.001)
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert len(calls) < len(wanted)
    for place, (queries, k) in enumerate(wanted):
        rows, scores = search.nearest(queries, k)
        np.testing.assert_array_equal(answers[place][0], rows)
        np.testing.assert_array_equal(answers[place][1], scores)
