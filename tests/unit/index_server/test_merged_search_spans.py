"""A search that serves several requests says for whom."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from index_server.merging import MergeLimits, SearchMerger
from sealpool.runtime.callers import NO_CALLER

ENOUGH_S = 20


class NoObserver:
    def searched(self, requests, queries):
        pass

    def waited(self, seconds):
        pass


def test_a_merged_search_is_linked_to_the_spans_of_those_who_waited_for_it():
    span_of_thread = threading.local()
    entered, go_on = threading.Semaphore(0), threading.Semaphore(0)
    linked = []

    def search(queries, k, links=()):
        linked.append((len(queries), list(links)))
        entered.release()
        assert go_on.acquire(timeout=ENOUGH_S)
        return np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k), np.float32)

    limits = MergeLimits(max_queries=100, max_waiting=1000)
    merger = SearchMerger(search, limits, observer=NoObserver(), here=lambda: span_of_thread.name)

    def ask(name):
        span_of_thread.name = name
        merger.submit(np.zeros((1, 2), np.float32), 3, caller=NO_CALLER)

    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(ask, "alone")]
        assert entered.acquire(timeout=ENOUGH_S)
        for waiting, name in enumerate(("leader", "follower", None), start=1):
            asked.append(threads.submit(ask, name))
            with merger._changed:
                assert merger._changed.wait_for(lambda waiting=waiting: merger._waiting == waiting, ENOUGH_S)
        go_on.release(2)
        for one in asked:
            one.result(ENOUGH_S)
    assert linked == [(1, []), (3, ["follower"])]
