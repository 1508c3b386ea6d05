"""Requests that wait together are done together."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from scheduler.combining import Combiner
from sealpool.errors import NotFound, Unavailable


class Groups:
    """Answers each request with its square, and remembers the groups; the first waits until it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, list[int]]] = []
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def handle(self, key: str, requests: Sequence[int]) -> list[int | Exception]:
        self.seen.append((key, list(requests)))
        self.entered.set()
        assert self.go_on.wait(20)
        if 13 in requests:
            raise Unavailable("the disk")
        return [NotFound("number", str(one)) if one < 0 else one * one for one in requests]


def waiting(combiner: Combiner[int, int], key: str) -> int:
    return len(combiner._waiting.get(key, ()))


def gather(groups: Groups, combiner: Combiner[int, int], requests: Sequence[int]) -> list[object]:
    """Let the first request be under way, and all others wait, before anything is answered."""

    def ask(one: int) -> object:
        try:
            return combiner.run("k", one)
        except (NotFound, Unavailable) as error:
            return type(error).__name__

    with ThreadPoolExecutor(len(requests)) as threads:
        first = threads.submit(ask, requests[0])
        assert groups.entered.wait(20)
        others = []
        for count, one in enumerate(requests[1:], start=1):
            others.append(threads.submit(ask, one))
            while waiting(combiner, "k") < count:
                pass
        groups.go_on.set()
        return [first.result(20), *(other.result(20) for other in others)]


def test_those_who_wait_form_the_next_group_in_the_order_they_came() -> None:
    groups = Groups()
    combiner = Combiner(groups.handle, most=3)
    assert gather(groups, combiner, [1, 2, 3, 4, 5, 6]) == [1, 4, 9, 16, 25, 36]
    assert groups.seen == [("k", [1]), ("k", [2, 3, 4]), ("k", [5, 6])]
    assert combiner._waiting == {}


def test_a_refused_request_harms_no_other() -> None:
    groups = Groups()
    assert gather(groups, Combiner(groups.handle, most=9), [1, -2, 3]) == [1, "NotFound", 9]


def test_a_group_that_fails_fails_for_all_of_it_and_the_next_goes_on() -> None:
    groups = Groups()
    combiner = Combiner(groups.handle, most=2)
    assert gather(groups, combiner, [1, 13, 3, 4]) == [1, "Unavailable", "Unavailable", 16]
    assert combiner.run("k", 5) == 25


def test_a_leader_whose_group_fails_passes_the_lead_on() -> None:
    groups = Groups()
    assert gather(groups, Combiner(groups.handle, most=9), [13, 2]) == ["Unavailable", 4]


def test_keys_do_not_wait_for_each_other() -> None:
    groups = Groups()
    combiner = Combiner(groups.handle, most=9)
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(combiner.run, "k", 2)
        assert groups.entered.wait(20)
        groups.entered.clear()
        other = threading.Thread(target=combiner.run, args=("other", 3))
        other.start()
        assert groups.entered.wait(20)
        groups.go_on.set()
        other.join(20)
        assert held.result(20) == 4


@pytest.mark.parametrize("threads", [8])
def test_every_request_of_many_threads_is_answered_once(threads: int) -> None:
    seen: list[int] = []

    def handle(_key: str, requests: Sequence[int]) -> list[int | Exception]:
        seen.extend(requests)
        return list(requests)

    combiner: Combiner[int, int] = Combiner(handle, most=5)
    with ThreadPoolExecutor(threads) as pool:
        answers = list(pool.map(lambda one: combiner.run("k", one), range(2000)))
    assert answers == list(range(2000))
    assert sorted(seen) == list(range(2000))
