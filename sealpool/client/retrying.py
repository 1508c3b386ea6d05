"""Whether a call that failed is tried again, and for how long."""

import math
import random
import time
from collections.abc import Callable

import grpc

from sealpool.errors import ResourceExhausted, SealpoolError, Unavailable

_NOT_SENT = (
    "failed to connect to all addresses",
    "connections to all backends failing",
    "ring hash cannot find a connected endpoint",
    "errors resolving ",
)
"""How gRPC begins what it says of calls that it had no connection for."""

_LEFT = ("Locally cancelled by application!", "Channel closed!")
"""What gRPC says, among other words, of calls that this client itself has cancelled."""

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0


class Patience:
    """How often and when one call is tried again: for `retry_for_s` from when its service went away.

    That is when the first try failed. A service that had a try for longer than that, and then went away from it, was
    there meanwhile: it is waited for anew.

    Parameters
    ----------
    budget_s
        Seconds for all tries and pauses together.
    """

    def __init__(self, retry_for_s: float, budget_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._retry_for_s = retry_for_s
        self._clock = clock
        self._began = clock()
        self._ends = self._began + budget_s
        self._away_since = math.inf
        self._pause_s = _FIRST_PAUSE_S

    def begin(self) -> float:
        """Begin a try, and return the seconds that it has."""
        self._began = self._clock()
        return max(self._ends - self._began, 0.001)

    def pause_s(self, error: grpc.RpcError, raised: SealpoolError, *, idempotent: bool) -> float | None:
        """Return the seconds before the next try, or None if this one was the last: it ended with `error`."""
        now = self._clock()
        if now - self._began > self._retry_for_s and _left_in_the_middle(error):
            self._away_since, self._pause_s = now, _FIRST_PAUSE_S
        never_there = was_broken_off(error) or _was_not_sent(error)
        self._away_since = min(self._away_since, self._began if never_there else now)
        pause_s = _wanted_pause_s(raised, self._pause_s) if idempotent or _was_not_begun(error) else math.inf
        if now + pause_s > min(self._ends, self._away_since + self._retry_for_s):
            return None
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return pause_s


class Breaks:
    """How often and when a stream that breaks in its middle is begun again.

    At once, after it has gone on for a while. A service that breaks it off again and again, each time soon after its
    first message, is not there: that is borne for `retry_for_s`, as with calls.
    """

    def __init__(self, retry_for_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._retry_for_s = retry_for_s
        self._clock = clock
        self._began = self._broken_since = clock()
        self._pause_s = 0.0

    def begin(self) -> None:
        """Take note of a first message."""
        self._began = self._clock()

    def pause_s(self) -> float | None:
        """Return the seconds before the stream is begun again after a break, or None if it is not."""
        now = self._clock()
        if not self._pause_s or now - self._began > _LONGEST_PAUSE_S:
            self._broken_since, self._pause_s = now, _FIRST_PAUSE_S
        else:
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return None if now + self._pause_s > self._broken_since + self._retry_for_s else self._pause_s


def was_broken_off(error: grpc.RpcError) -> bool:
    """Return whether the server cancelled a call, without a word why.

    One that stops does so with a call that has arrived and has no thread yet; and one whose client stalls.
    """
    details = error.details() or ""
    return (
        error.code() is grpc.StatusCode.CANCELLED
        and not any(words in details for words in _LEFT)
        and not _says(error, "sealpool-error")
    )


def _left_in_the_middle(error: grpc.RpcError) -> bool:
    # A service that says UNAVAILABLE and does not stop is there: what it needs is away, and it has waited for that.
    if _says(error, "sealpool-error"):
        return _says(error, "sealpool-stopping")
    return not was_broken_off(error) and not _was_not_sent(error)


def _was_not_begun(error: grpc.RpcError) -> bool:
    # Either the service says so itself, or gRPC has no connection to send anything over. It has no other sign of that
    # than its words; with others a call that is not idempotent is not tried again, which does no harm.
    return _says(error, "sealpool-error") or was_broken_off(error) or _was_not_sent(error)


def _was_not_sent(error: grpc.RpcError) -> bool:
    return (error.details() or "").startswith(_NOT_SENT)


def _says(error: grpc.RpcError, key: str) -> bool:
    return any(entry.key == key for entry in error.trailing_metadata() or ())


def _wanted_pause_s(error: SealpoolError, pause_s: float) -> float:
    # Infinite where trying again is no use. Clients that were refused together should not come back together.
    jitter = random.uniform(0.5, 1.0)  # noqa: S311 - no secret
    if not isinstance(error, ResourceExhausted | Unavailable):
        return math.inf
    if error.retry_after_s is not None:
        return max(pause_s * jitter, error.retry_after_s * (0.5 + jitter))
    return pause_s * jitter if isinstance(error, Unavailable) else math.inf
