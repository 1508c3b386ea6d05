"""For how long a client tries a call again: from when its service went away, and not for ever."""

import math
from typing import Any

import grpc
import pytest

from sealpool.client.connection import to_error
from sealpool.client.retrying import Breaks, Patience


class Ended(grpc.RpcError):
    """How a call ended; `says` are keys of its trailing metadata."""

    def __init__(self, code: grpc.StatusCode, details: str, *says: str) -> None:
        self._code, self._details = code, details
        self._metadata = tuple(Entry(key) for key in says)

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[Any, ...]:
        return self._metadata


class Entry:
    """Of metadata."""

    value = "1"

    def __init__(self, key: str) -> None:
        self.key = key


UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
BROKEN = Ended(UNAVAILABLE, "Cancelling all calls")
NOBODY_THERE = Ended(UNAVAILABLE, "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: timeout")
CANCELLED = Ended(grpc.StatusCode.CANCELLED, "CANCELLED")
STOPPING = Ended(UNAVAILABLE, "the service is stopping", "sealpool-error", "sealpool-stopping")
ANOTHER_IS_AWAY = Ended(UNAVAILABLE, "the learner is unavailable", "sealpool-error")
WRONG = Ended(grpc.StatusCode.INVALID_ARGUMENT, "k: too large", "sealpool-error")

HOUR = 3600.0


class Caller:
    """Makes a call that is tried again for 30 s, on a clock of its own."""

    def __init__(self, *, budget_s: float = math.inf, idempotent: bool = True) -> None:
        self.now = 1000.0
        self._idempotent = idempotent
        self._patience = Patience(30, budget_s, clock=lambda: self.now)

    def is_tried_again(self, error: Ended, *, after_s: float = 0.0) -> bool:
        """Whether there is another try after one that took so long; the pause before it passes."""
        self.now += min(after_s, self._patience.begin())
        pause_s = self._patience.pause_s(error, to_error(error, "service"), idempotent=self._idempotent)
        self.now += pause_s or 0
        return pause_s is not None

    def tries(self, error: Ended, *, lasting_s: float) -> int:
        """Return how many tries there are that take so long and end so."""
        tries = 1
        while self.is_tried_again(error, after_s=lasting_s):
            tries += 1
            assert tries < 1000
        return tries


@pytest.mark.parametrize("error", [BROKEN, NOBODY_THERE, CANCELLED, STOPPING, ANOTHER_IS_AWAY])
def test_a_service_that_is_away_is_tried_for_so_long_and_no_longer(error: Ended) -> None:
    caller = Caller()
    assert caller.tries(error, lasting_s=0) > 15
    assert 1028 <= caller.now <= 1030


def test_what_another_try_would_not_mend_is_not_tried_again() -> None:
    assert not Caller().is_tried_again(WRONG)


@pytest.mark.parametrize("error", [BROKEN, STOPPING, ANOTHER_IS_AWAY])
def test_the_time_counts_from_when_the_service_went_away_and_not_from_when_it_was_called(error: Ended) -> None:
    caller = Caller()
    assert caller.is_tried_again(error, after_s=20)
    assert caller.is_tried_again(BROKEN, after_s=29.5)
    assert not caller.is_tried_again(BROKEN, after_s=1)


@pytest.mark.parametrize("error", [BROKEN, STOPPING])
def test_a_service_that_worked_for_longer_than_that_is_waited_for_anew_each_time_it_goes_away(error: Ended) -> None:
    caller = Caller()
    for _ in range(20):
        assert caller.is_tried_again(error, after_s=600)
        assert caller.is_tried_again(NOBODY_THERE)
        assert caller.is_tried_again(NOBODY_THERE, after_s=20)


def test_a_service_that_waits_in_vain_for_another_one_is_not_asked_again_for_ever() -> None:
    assert Caller().tries(ANOTHER_IS_AWAY, lasting_s=31) == 2


@pytest.mark.parametrize("error", [NOBODY_THERE, CANCELLED])
def test_a_try_that_reached_nobody_for_longer_than_that_was_the_last(error: Ended) -> None:
    assert Caller().tries(error, lasting_s=31) == 1


def test_pauses_are_short_again_after_a_service_had_come_back() -> None:
    caller = Caller()
    for _ in range(12):
        caller.is_tried_again(NOBODY_THERE)
    assert caller.is_tried_again(BROKEN, after_s=600)
    before = caller.now
    assert caller.is_tried_again(NOBODY_THERE)
    assert caller.now - before <= 0.1


def test_all_tries_together_keep_to_the_calls_own_time() -> None:
    caller = Caller(budget_s=HOUR)
    assert caller.tries(BROKEN, lasting_s=600) == 6
    assert caller.now <= 1000 + HOUR


@pytest.mark.parametrize(
    ("error", "again"), [(BROKEN, False), (NOBODY_THERE, True), (CANCELLED, True), (STOPPING, True)]
)
def test_a_call_that_is_not_idempotent_is_tried_again_where_the_service_has_not_begun_with_it(
    error: Ended, again: bool
) -> None:
    assert Caller(idempotent=False).is_tried_again(error) == again


@pytest.mark.parametrize(
    "words", ["Channel closed!", "Stream removed (Channel closed!)", "Locally cancelled by application!"]
)
def test_a_call_that_we_have_cancelled_ourselves_is_not_tried_again(words: str) -> None:
    assert not Caller().is_tried_again(Ended(grpc.StatusCode.CANCELLED, words))


def test_a_stream_that_went_on_for_a_while_is_begun_again_soon_however_often_it_breaks() -> None:
    seconds = [0.0]
    breaks = Breaks(30, clock=lambda: seconds[0])
    for _ in range(50):
        breaks.begin()
        seconds[0] += 5
        assert breaks.pause_s() == pytest.approx(0.05)


def test_a_stream_that_breaks_after_each_first_message_is_begun_again_for_as_long_as_a_call_is_tried() -> None:
    seconds = [0.0]
    breaks = Breaks(30, clock=lambda: seconds[0])
    pauses = []
    while (pause_s := breaks_once(breaks)) is not None:
        pauses.append(pause_s)
        seconds[0] += pause_s
    assert pauses[:3] == pytest.approx([0.05, 0.1, 0.2])
    assert max(pauses) == 2
    assert 28 <= sum(pauses) <= 30


def test_without_patience_a_stream_is_not_begun_again() -> None:
    breaks = Breaks(0, clock=lambda: 0.0)
    assert breaks_once(breaks) is None


def breaks_once(breaks: Breaks) -> float | None:
    breaks.begin()
    return breaks.pause_s()
