"""Trainings take turns in the order they came, as many at once as memory allows."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from learner.waiting import KeyedLocks, TrainingQueue
from sealpool.errors import Cancelled, ResourceExhausted

LONG_S = 30


def never() -> bool:
    return False


def queue_of(*, running: int = 1, waiting: int = 10, memory: int = 100) -> TrainingQueue:
    return TrainingQueue(running=running, waiting=waiting, memory_bytes=memory, setting="max_waiting_trainings")


class Training:
    """A training in a thread of its own, which ends when it is told to. What happens goes to `events`."""

    def __init__(self, turns: TrainingQueue, name: str, events: "queue.Queue[tuple[str, object]]", needed: int) -> None:
        self.name = name
        self.left = threading.Event()
        self._end = threading.Event()
        self._events = events
        self._thread = threading.Thread(target=self._run, args=(turns, needed))
        self._thread.start()

    def _run(self, turns: TrainingQueue, needed: int) -> None:
        try:
            with turns.turn(needed, lambda place: self._events.put((self.name, place)), self.left.is_set):
                self._events.put((self.name, "begins"))
                self._end.wait(2 * LONG_S)  # longer than anybody waits to hear
        except Cancelled:
            self._events.put((self.name, "cancelled"))

    def end(self) -> None:
        self._end.set()
        self._thread.join(LONG_S)
        assert not self._thread.is_alive()


class Hall:
    """Some trainings, and what is heard of them."""

    def __init__(self, turns: TrainingQueue) -> None:
        self.turns = turns
        self.events: queue.Queue[tuple[str, object]] = queue.Queue()
        self.trainings: dict[str, Training] = {}

    def start(self, name: str, *, needed: int = 10) -> None:
        self.trainings[name] = Training(self.turns, name, self.events, needed)

    def end(self, name: str) -> None:
        self.trainings.pop(name).end()

    def heard(self) -> tuple[str, object]:
        return self.events.get(timeout=LONG_S)

    def begun(self, count: int) -> set[str]:
        """Return who begins next, in any order, whatever else is heard meanwhile."""
        names: set[str] = set()
        while len(names) < count:
            name, what = self.heard()
            names |= {name} if what == "begins" else set()
        return names

    def heard_in_any_order(self, count: int) -> set[tuple[str, object]]:
        return {self.heard() for _ in range(count)}


@contextmanager
def hall(turns: TrainingQueue) -> Iterator[Hall]:
    opened = Hall(turns)
    try:
        yield opened
    finally:
        for training in opened.trainings.values():
            training.left.set()
            training.end()


def test_a_free_queue_lets_in_at_once_and_tells_no_place() -> None:
    with hall(queue_of()) as trainings:
        trainings.start("a")
        assert trainings.heard() == ("a", "begins")
        trainings.end("a")
        assert trainings.events.empty()


def test_trainings_begin_in_the_order_they_came_and_are_told_their_places() -> None:
    with hall(queue_of()) as trainings:
        trainings.start("a")
        assert trainings.heard() == ("a", "begins")
        for place, name in enumerate("bcd", start=1):
            trainings.start(name)
            assert trainings.heard() == (name, place)
        assert trainings.turns.waiting == 3
        for ended, begins, moved in (("a", "b", {("c", 1), ("d", 2)}), ("b", "c", {("d", 1)}), ("c", "d", set())):
            trainings.end(ended)
            assert trainings.heard_in_any_order(2 + len(moved)) == {(begins, 0), (begins, "begins"), *moved}
        assert trainings.turns.waiting == 0


def test_as_many_train_at_once_as_may() -> None:
    with hall(queue_of(running=2)) as trainings:
        for name in "ab":
            trainings.start(name)
            assert trainings.heard() == (name, "begins")
        trainings.start("c")
        assert trainings.heard() == ("c", 1)
        trainings.end("b")
        assert trainings.heard_in_any_order(2) == {("c", 0), ("c", "begins")}


def test_those_that_train_and_those_that_wait_are_counted() -> None:
    turns = queue_of(running=2)
    assert (turns.running, turns.waiting) == (0, 0)
    with turns.turn(10, lambda _: None, never), turns.turn(10, lambda _: None, never):
        left = iter([False, True])
        counted = []

        def leaves() -> bool:
            counted.append((turns.running, turns.waiting))
            return next(left)

        with pytest.raises(Cancelled), turns.turn(10, lambda _: None, leaves):
            pass
    assert counted == [(2, 1)] * 2
    assert (turns.running, turns.waiting) == (0, 0)


def test_what_does_not_fit_beside_the_others_waits_and_holds_back_who_came_later() -> None:
    with hall(queue_of(running=9, memory=100)) as trainings:
        trainings.start("a", needed=60)
        assert trainings.heard() == ("a", "begins")
        trainings.start("b", needed=50)
        assert trainings.heard() == ("b", 1)
        trainings.start("c", needed=10)  # would fit, but b came first
        assert trainings.heard() == ("c", 2)
        trainings.end("a")
        assert trainings.begun(2) == {"b", "c"}


def test_memory_to_the_last_byte_is_used() -> None:
    with hall(queue_of(running=9, memory=100)) as trainings:
        for name in ("a", "b"):
            trainings.start(name, needed=50)
            assert trainings.heard() == (name, "begins")
        trainings.start("c", needed=1)
        assert trainings.heard() == ("c", 1)


def test_a_training_larger_than_all_memory_trains_alone() -> None:
    with hall(queue_of(running=9, memory=100)) as trainings:
        trainings.start("small", needed=1)
        assert trainings.heard() == ("small", "begins")
        trainings.start("large", needed=1000)
        assert trainings.heard() == ("large", 1)
        trainings.end("small")
        assert trainings.heard_in_any_order(2) == {("large", 0), ("large", "begins")}
        trainings.start("next", needed=1)
        assert trainings.heard() == ("next", 1)
        trainings.end("large")
        assert trainings.heard_in_any_order(2) == {("next", 0), ("next", "begins")}


def test_one_too_many_is_refused_at_once_and_the_setting_named() -> None:
    with hall(queue_of(waiting=1)) as trainings:
        for name, heard in (("a", "begins"), ("b", 1)):
            trainings.start(name)
            assert trainings.heard() == (name, heard)
        with (
            pytest.raises(ResourceExhausted, match="max_waiting_trainings"),
            trainings.turns.turn(1, lambda _: None, never),
        ):
            raise AssertionError("it was let in")
        assert trainings.turns.waiting == 1
        trainings.end("a")
        assert trainings.heard_in_any_order(2) == {("b", 0), ("b", "begins")}
        trainings.start("c")
        assert trainings.heard() == ("c", 1)


def test_without_places_to_wait_a_free_queue_still_lets_in() -> None:
    with hall(queue_of(running=2, waiting=0)) as trainings:
        for name in "ab":
            trainings.start(name)
            assert trainings.heard() == (name, "begins")
        with pytest.raises(ResourceExhausted), trainings.turns.turn(1, lambda _: None, never):
            raise AssertionError("it was let in")


def test_who_leaves_while_waiting_makes_room_and_the_others_move_up() -> None:
    with hall(queue_of()) as trainings:
        trainings.start("a")
        assert trainings.heard() == ("a", "begins")
        for place, name in enumerate("bcd", start=1):
            trainings.start(name)
            assert trainings.heard() == (name, place)
        trainings.trainings["b"].left.set()
        assert trainings.heard_in_any_order(3) == {("b", "cancelled"), ("c", 1), ("d", 2)}
        trainings.end("a")
        assert trainings.heard_in_any_order(3) == {("c", 0), ("c", "begins"), ("d", 1)}


def test_a_training_that_fails_gives_its_turn_and_its_memory_back() -> None:
    turns = queue_of(memory=10)
    for _ in range(3):
        with pytest.raises(ValueError, match="broke"), turns.turn(10, lambda _: None, never):
            raise ValueError("it broke")
    with turns.turn(10, lambda _: None, never):
        assert turns.waiting == 0


def test_calls_of_one_name_take_turns_and_of_others_do_not() -> None:
    locks = KeyedLocks()
    with locks.turn("a", never), locks.turn("b", never), pytest.raises(Cancelled), locks.turn("a", lambda: True):
        raise AssertionError("it was let in")
    with locks.turn("a", lambda: True):
        pass
