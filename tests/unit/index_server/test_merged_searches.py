import queue
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from index_server.merging import MAX_WAITING_SETTING, MergeLimits, SearchMerger
from sealpool.errors import Cancelled, DeadlineExceeded, InvalidArgument, ResourceExhausted

SOON = 30
AN_HOUR = 3600.0


def answer(queries, k):
    rows = queries[:, :1].astype(np.int64) * 1000 + np.arange(k)
    return rows, (rows / 2).astype(np.float32)


class Gate:
    """A search that tells of each call and returns once it is let go; `fail` holds what the next ones raise."""

    def __init__(self):
        self.entered = queue.Queue()
        self.permits = threading.Semaphore(0)
        self.fail = []
        self.calls = []

    def __call__(self, queries, k):
        self.calls.append((queries[:, 0].astype(int).tolist(), k))
        self.entered.put(None)
        assert self.permits.acquire(timeout=SOON)
        if self.fail:
            error = self.fail.pop(0)
            if error is not None:
                raise error
        return answer(queries, k)

    def wait_until_entered(self):
        self.entered.get(timeout=SOON)

    def let_go(self, calls=1):
        self.permits.release(calls)

    @property
    def queries(self):
        return [queries for queries, _ in self.calls]


class Patient:
    """A caller; `waits` is set once it waits. With `deadline_passes` its time is up when that is set."""

    def __init__(self):
        self.waits = threading.Event()
        self.gone = False
        self.late = False

    def remaining_s(self):
        self.waits.set()
        return 0.0 if self.late else None

    def is_gone(self):
        return self.gone

    def check(self):
        if self.gone:
            raise Cancelled("the caller left")
        if self.late:
            raise DeadlineExceeded("the caller's time ran out")


class OutOfTimeOnceQueued(Patient):
    def remaining_s(self):
        self.late = True
        return 0.0


class Ledger:
    def __init__(self):
        self.searches = []
        self.waits = []

    def searched(self, requests, queries):
        self.searches.append((requests, queries))

    def waited(self, seconds):
        self.waits.append(seconds)


class Clients:
    """Callers in threads of their own, in a known order."""

    def __init__(self, search=None, *, max_queries=100, max_waiting=1000, clock=None, **limits):
        self.gate = Gate() if search is None else search
        self.ledger = Ledger()
        clocked = {} if clock is None else {"clock": clock}
        limits = MergeLimits(max_queries=max_queries, max_waiting=max_waiting, **limits)
        self.merger = SearchMerger(self.gate, limits, observer=self.ledger, **clocked)
        self.threads = ThreadPoolExecutor(16)

    def ask(self, *values, k=2, caller=None):
        queries = np.array([[value, 0] for value in values], np.float32)
        return self.threads.submit(self.merger.submit, queries, k, caller=caller or Patient())

    def search(self, *values, k=2):
        asked = self.ask(*values, k=k)
        self.gate.wait_until_entered()
        return asked

    def wait(self, *values, k=2, caller=None):
        caller = caller or Patient()
        asked = self.ask(*values, k=k, caller=caller)
        assert caller.waits.wait(SOON)
        return asked


@pytest.fixture
def make():
    made = []

    def make_clients(*arguments, **options):
        made.append(Clients(*arguments, **options))
        return made[-1]

    yield make_clients
    for clients in made:
        if isinstance(clients.gate, Gate):
            clients.gate.let_go(100)
        clients.threads.shutdown()


def assert_answered(asked, *values, k=2):
    rows, scores = asked.result(SOON)
    expected_rows, expected_scores = answer(np.array([[value] for value in values], np.float32), k)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(scores, expected_scores)
    assert (rows.dtype, scores.dtype) == (np.int64, np.float32)


def test_who_finds_the_engine_free_searches_at_once_and_alone(make):
    clients = make(max_wait_s=AN_HOUR)
    asked = clients.search(7)
    clients.gate.let_go()
    assert_answered(asked, 7)
    assert clients.gate.calls == [([7], 2)]


def test_searches_that_wait_become_one_and_each_gets_its_own(make):
    clients = make()
    asked = [(clients.search(1), (1,), 2)]
    for values, k in [((2, 3), 5), ((4,), 2), ((9,), 3), ((5, 6), 8)]:
        asked.append((clients.wait(*values, k=k), values, k))
    clients.gate.let_go(2)
    for future, values, k in asked:
        assert_answered(future, *values, k=k)
    assert clients.gate.calls == [([1], 2), ([2, 3, 4, 9, 5, 6], 8)]


def test_no_more_than_max_queries_are_merged_and_the_first_come_first(make):
    clients = make(max_queries=4)
    asked = [clients.search(1), *(clients.wait(value, value + 1) for value in (10, 20, 30)), clients.wait(40)]
    clients.gate.let_go(3)
    assert_answered(asked[3], 30, 31)
    assert_answered(asked[4], 40)
    assert clients.gate.queries == [[1], [10, 11, 20, 21], [30, 31, 40]]


def test_a_small_request_does_not_overtake_one_that_does_not_fit(make):
    clients = make(max_queries=3)
    asked = [clients.search(1), clients.wait(10, 11), clients.wait(20, 21), clients.wait(30)]
    clients.gate.let_go(3)
    assert_answered(asked[3], 30)
    assert clients.gate.queries == [[1], [10, 11], [20, 21, 30]]


def test_a_request_larger_than_a_merged_search_goes_alone_and_whole(make):
    clients = make(max_queries=2)
    asked = [clients.search(1), clients.wait(10, 11, 12, 13), clients.wait(20)]
    clients.gate.let_go(3)
    assert_answered(asked[1], 10, 11, 12, 13)
    assert_answered(asked[2], 20)
    assert clients.gate.queries == [[1], [10, 11, 12, 13], [20]]


def test_requests_for_very_different_numbers_of_neighbours_are_not_merged(make):
    clients = make()
    asked = [clients.search(1), *(clients.wait(k, k=k) for k in (10, 41, 3, 40, 12))]
    clients.gate.let_go(4)
    for future, k in zip(asked[1:], (10, 41, 3, 40, 12), strict=True):
        assert_answered(future, k, k=k)
    assert clients.gate.calls == [([1], 2), ([10, 3, 12], 12), ([41, 40], 41)]


def test_an_engine_whose_answers_depend_on_k_can_have_equal_ones_merged_only(make):
    clients = make(max_k_ratio=1)
    asked = [clients.search(1), clients.wait(10, k=5), clients.wait(20, k=6), clients.wait(30, k=5)]
    clients.gate.let_go(3)
    assert_answered(asked[2], 20, k=6)
    assert clients.gate.calls == [([1], 2), ([10, 30], 5), ([20], 6)]


def test_a_full_queue_refuses_at_once_and_names_the_setting(make):
    clients = make(max_waiting=3)
    asked = [clients.search(1), clients.wait(10, 11)]
    refused = clients.ask(20, 21)
    with pytest.raises(ResourceExhausted, match="4 queries waiting") as caught:
        refused.result(SOON)
    assert (caught.value.setting, caught.value.limit) == (MAX_WAITING_SETTING, 3)
    asked.append(clients.wait(30))
    clients.gate.let_go(2)
    assert_answered(asked[1], 10, 11)
    assert_answered(asked[2], 30)


def test_the_queue_has_room_again_once_it_was_searched(make):
    clients = make(max_waiting=3)
    clients.search(1)
    leads, led = clients.wait(10, 11), clients.wait(12)
    clients.gate.let_go()
    clients.gate.wait_until_entered()
    again = clients.wait(20, 21, 22)
    clients.gate.let_go(2)
    assert_answered(leads, 10, 11)
    assert_answered(led, 12)
    assert_answered(again, 20, 21, 22)


def test_who_left_while_waiting_is_not_searched_for(make):
    clients = make()
    first, leaver = clients.search(1), Patient()
    stays, leaves, stays_too = clients.wait(10), clients.wait(20, caller=leaver), clients.wait(30)
    leaver.gone = True
    clients.gate.let_go(2)
    with pytest.raises(Cancelled):
        leaves.result(SOON)
    for future, value in ((first, 1), (stays, 10), (stays_too, 30)):
        assert_answered(future, value)
    assert clients.gate.queries == [[1], [10, 30]]


def test_who_left_while_waiting_and_was_to_lead_lets_the_next_one_lead(make):
    clients = make()
    clients.search(1)
    leavers = Patient(), Patient()
    leaves = [clients.wait(value, caller=leaver) for value, leaver in zip((10, 20), leavers, strict=True)]
    stays = clients.wait(30)
    for leaver in leavers:
        leaver.gone = True
    clients.gate.let_go(2)
    for future in leaves:
        with pytest.raises(Cancelled):
            future.result(SOON)
    assert_answered(stays, 30)
    assert clients.gate.queries == [[1], [30]]


def test_who_runs_out_of_time_in_the_queue_is_told_while_the_engine_is_busy(make):
    clients = make(max_waiting=2)
    first = clients.search(1)
    with pytest.raises(DeadlineExceeded):
        clients.ask(10, 11, caller=OutOfTimeOnceQueued()).result(SOON)
    next_one = clients.wait(20, 21)
    clients.gate.let_go(2)
    assert_answered(first, 1)
    assert_answered(next_one, 20, 21)
    assert clients.gate.queries == [[1], [20, 21]]


def test_an_error_reaches_every_member_as_its_own(make):
    clients = make()
    clients.search(1)
    members = [clients.wait(value) for value in (10, 20, 30)]
    error = InvalidArgument("k", "is beyond what the engine takes")
    clients.gate.fail = [None, error]
    clients.gate.let_go(2)
    raised = [future.exception(SOON) for future in members]
    assert len({id(one) for one in raised}) == 3
    assert len({id(one.__traceback__) for one in raised}) == 3
    for one in raised:
        assert isinstance(one, InvalidArgument)
        assert (one.field, one.message, str(one)) == (error.field, error.message, str(error))


@pytest.mark.parametrize("error", [OSError(12, "no memory"), KeyError("x"), MemoryError(), ResourceExhausted("a search",
    limit=1, setting="s")])  # fmt: skip
def test_errors_of_any_make_are_copied_whole(make, error):
    clients = make()
    clients.search(1)
    members = [clients.wait(value) for value in (10, 20)]
    clients.gate.fail = [None, error]
    clients.gate.let_go(2)
    for future in members:
        copied = future.exception(SOON)
        assert type(copied) is type(error)
        assert (copied.args, str(copied), vars(copied)) == (error.args, str(error), vars(error))


def test_an_error_of_one_search_does_not_stop_the_next(make):
    clients = make()
    failing = clients.search(1)
    waiting = clients.wait(10)
    clients.gate.fail = [OSError("device lost")]
    clients.gate.let_go(2)
    assert isinstance(failing.exception(SOON), OSError)
    assert_answered(waiting, 10)


def test_a_leader_that_is_interrupted_hands_over_whom_it_led(make):
    clients = make()
    first = clients.search(1)
    led = [clients.wait(value) for value in (10, 20, 30)]
    clients.gate.fail = [None, KeyboardInterrupt()]
    clients.gate.let_go(3)
    assert_answered(first, 1)
    assert isinstance(led[0].exception(SOON), KeyboardInterrupt)
    assert_answered(led[1], 20)
    assert_answered(led[2], 30)
    assert clients.gate.queries == [[1], [10, 20, 30], [20, 30]]


def test_those_put_back_go_before_those_who_came_later(make):
    clients = make(max_queries=2)
    clients.search(1)
    led = [clients.wait(value) for value in (10, 20, 30)]
    clients.gate.fail = [None, SystemExit()]
    clients.gate.let_go(3)
    assert_answered(led[1], 20)
    assert_answered(led[2], 30)
    assert clients.gate.queries == [[1], [10, 20], [20, 30]]


def test_an_engine_is_free_again_after_an_interrupted_search(make):
    clients = make()
    interrupted = clients.search(1)
    clients.gate.fail = [KeyboardInterrupt()]
    clients.gate.let_go()
    assert isinstance(interrupted.exception(SOON), KeyboardInterrupt)
    asked = clients.search(2)
    clients.gate.let_go()
    assert_answered(asked, 2)


def test_two_searches_run_side_by_side_where_the_width_is_two(make):
    clients = make(width=2)
    asked = [clients.search(1), clients.search(2), clients.wait(3), clients.wait(4)]
    clients.gate.let_go()
    clients.gate.wait_until_entered()
    clients.gate.let_go(2)
    for future, value in zip(asked, (1, 2, 3, 4), strict=True):
        assert_answered(future, value)
    assert clients.gate.queries == [[1], [2], [3, 4]]
    asked = [clients.search(5), clients.search(6)]
    clients.gate.let_go(2)
    assert_answered(asked[1], 6)


def test_a_leader_waits_for_more_until_the_search_is_full(make):
    clients = make(max_queries=3, max_wait_s=AN_HOUR)
    first = clients.search(1)
    waiting = clients.wait(10)
    clients.gate.let_go(2)
    assert_answered(first, 1)
    late = [clients.wait(20), clients.wait(30)]
    for future, value in zip([waiting, *late], (10, 20, 30), strict=True):
        assert_answered(future, value)
    assert clients.gate.queries == [[1], [10, 20, 30]]


def test_a_leader_for_whom_nobody_comes_searches_alone(make):
    clients = make(max_wait_s=0.001)
    clients.search(1)
    waiting = clients.wait(10)
    clients.gate.let_go(2)
    assert_answered(waiting, 10)


def test_an_observer_learns_what_was_merged_and_how_long_it_waited(make):
    seconds = iter(range(100))
    clients = make(clock=lambda: float(next(seconds)))  # arrivals at 0, 2 and 3; searches begin at 1 and 4
    clients.search(1)
    waiting = [clients.wait(10, 11), clients.wait(20)]
    clients.gate.let_go(2)
    for future in waiting:
        future.result(SOON)
    assert clients.ledger.searches == [(1, 1), (2, 3)]
    assert clients.ledger.waits == [0.0, 2.0, 1.0]


@pytest.mark.parametrize("width", [1, 2])
def test_many_threads_get_what_each_would_have_got_alone(make, width):
    lock = threading.Lock()
    running, most, largest = 0, 0, 0

    def search(queries, k):
        nonlocal running, most, largest
        with lock:
            running += 1
            most, largest = max(most, running), max(largest, len(queries))
        result = answer(queries, k)
        with lock:
            running -= 1
        return result

    clients = make(search, width=width, max_queries=8)

    def client(seed):
        draw = random.Random(seed)
        for _ in range(100):
            values = [draw.randrange(1000) for _ in range(draw.randrange(1, 6))]
            k = draw.randrange(1, 30)
            queries = np.array([[value, 0] for value in values], np.float32)
            rows, scores = clients.merger.submit(queries, k, caller=Patient())
            np.testing.assert_array_equal(rows, answer(queries, k)[0])
            np.testing.assert_array_equal(scores, answer(queries, k)[1])

    for done in [clients.threads.submit(client, seed) for seed in range(8)]:
        done.result(SOON)
    assert most <= width
    assert largest <= 8
    assert sum(requests for requests, _ in clients.ledger.searches) == 800
