import queue
import threading
import weakref

import structlog

from index_server.background import UpkeepThread


class FakePool:
    """What the thread knows of a pool: upkeep that it may run, which answers as told."""

    def __init__(self, *answers):
        self.upkeep, self.runs, self.answers = self, queue.Queue(), list(answers)
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def run(self):
        self.runs.put(threading.current_thread().name)
        assert self.may_go_on.wait(20)
        return self.answers.pop(0) if self.answers else None


def started():
    upkeep = UpkeepThread(structlog.get_logger())
    upkeep.start()
    return upkeep


def test_a_pool_that_changed_is_looked_after_on_another_thread():
    upkeep, pool = started(), FakePool()
    upkeep.wake(pool)
    assert pool.runs.get(timeout=20) == "upkeep"
    upkeep.stop()
    assert pool.runs.empty()


def test_a_pool_that_asks_for_it_is_looked_after_again_without_another_change():
    upkeep, pool = started(), FakePool(0.001, 0.001, None)
    upkeep.wake(pool)
    for _ in range(3):
        pool.runs.get(timeout=20)
    upkeep.stop()
    assert pool.runs.empty()


def test_many_changes_meanwhile_are_one_reason():
    upkeep, slow, busy = started(), FakePool(), FakePool()
    slow.may_go_on.clear()
    upkeep.wake(slow)
    slow.runs.get(timeout=20)
    for _ in range(50):
        upkeep.wake(busy)
    slow.may_go_on.set()
    busy.runs.get(timeout=20)
    upkeep.stop()
    assert busy.runs.empty()


def test_one_step_at_a_time_and_stopping_waits_for_it():
    upkeep, first, second = started(), FakePool(), FakePool()
    first.may_go_on.clear()
    upkeep.wake(first)
    first.runs.get(timeout=20)
    upkeep.wake(second)
    stopping = threading.Thread(target=upkeep.stop)
    stopping.start()
    stopping.join(0.05)
    assert stopping.is_alive()
    assert second.runs.empty()
    first.may_go_on.set()
    stopping.join(20)
    assert not stopping.is_alive()


def test_one_that_never_began_can_be_stopped():
    UpkeepThread(structlog.get_logger()).stop()


class OneStep:
    """Upkeep that is done once."""

    def run(self):
        return None


class PlainPool:
    def __init__(self):
        self.upkeep = OneStep()


def test_a_pool_that_nobody_else_has_any_more_is_not_kept():
    upkeep, pool, gone = started(), PlainPool(), threading.Event()
    weakref.finalize(pool, gone.set)
    upkeep.wake(pool)
    del pool
    assert gone.wait(20)
    upkeep.stop()
