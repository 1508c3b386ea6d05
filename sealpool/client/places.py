"""Which of several servers behind one name a campaign's calls go to."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar
from urllib.parse import quote

import grpc

T = TypeVar("T")
Metadata = tuple[tuple[str, str], ...]

CAMPAIGN_KEY: Final = "sealpool-campaign"
"""Metadata by which calls are told apart. A mesh that balances by a header can use it as well."""

ROUND_ROBIN: Final = '{"loadBalancingConfig": [{"round_robin": {}}]}'
_BY_CAMPAIGN: Final = (
    f'{{"loadBalancingConfig": [{{"ring_hash_experimental": {{"requestHashHeader": "{CAMPAIGN_KEY}"}}}}, '
    '{"round_robin": {}}]}'
)
_SWITCH: Final = "GRPC_EXPERIMENTAL_RING_HASH_SET_REQUEST_HASH_KEY"
_AWAY: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)
_DETOUR_S: Final = 10.0
"""How long a campaign keeps away, at least."""
_LONGEST_NAME: Final = 200


def by_campaign() -> str:
    """Return the service config that sends calls of one campaign to one server while it is there (gRFC A76).

    gRPC has the hash of a header behind a switch of the environment, which this turns on unless it is turned off there;
    then, and in a gRPC that has no ring_hash, calls go round all servers.
    """
    if os.environ.setdefault(_SWITCH, "true").lower() not in ("true", "1"):
        return ROUND_ROBIN
    return _BY_CAMPAIGN


class Places:
    """Gives each call the metadata that decides on its server. Safe to share between threads.

    A campaign whose call failed, as its server is away, full or hangs, goes to another place for a while: gRPC itself
    leaves a server only when it does not answer at all, not one that drains. Where a deadline passed, that is as long
    as the call had: else each call of a round would lose as much again.

    Parameters
    ----------
    clock
        Seconds; measures how long a detour lasts.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._detours: dict[str, tuple[int, float]] = {}

    def call(self, campaign: str, make: Callable[[Metadata], T]) -> T:
        """Return the answer of a call that is made with the campaign's metadata."""
        with self._noting(campaign) as place:
            return make(place)

    def stream(self, campaign: str, make: Callable[[Metadata], Iterator[T]]) -> Iterator[T]:
        """Yield the answers of a call that is made with the campaign's metadata."""
        with self._noting(campaign) as place:
            yield from make(place)

    @contextmanager
    def _noting(self, campaign: str) -> Iterator[Metadata]:
        number, began = self._detour(campaign), self._clock()
        # Metadata is ASCII; the server is to refuse a bad name, not gRPC.
        name = quote(campaign[:_LONGEST_NAME], safe="")
        try:
            yield ((CAMPAIGN_KEY, f"{name}/{number}" if number else name),)
        except grpc.RpcError as error:
            if error.code() in _AWAY:
                lost_s = self._clock() - began if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else 0.0
                self._take_detour(campaign, number + 1, max(_DETOUR_S, lost_s))
            raise

    def _detour(self, campaign: str) -> int:
        with self._guard:
            number, until = self._detours.get(campaign, (0, 0.0))
            if number and self._clock() >= until:
                del self._detours[campaign]
                return 0
            return number

    def _take_detour(self, campaign: str, number: int, seconds: float) -> None:
        until = self._clock() + seconds
        with self._guard:
            # A call that began earlier may fail later: it knows nothing of the places tried since.
            known, known_until = self._detours.get(campaign, (0, 0.0))
            self._detours[campaign] = (max(number, known), max(until, known_until))
