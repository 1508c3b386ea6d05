"""Searches that wait are merged into one.

FAISS answers 100 queries at once in far less time than one after the other, since vectors pass through the cache once
for all of them. So a search that finds the engine busy waits, and then goes with the others that wait.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from index_server.concurrency import error_like
from index_server.ports import Rows
from sealpool.errors import Cancelled, ResourceExhausted
from sealpool.types import Vectors

MAX_WAITING_SETTING: Final = "merge_max_waiting"
"""The setting that a refusal names."""

Answer = tuple[Rows, NDArray[np.float32]]
"""rows (q, k) int64 and scores (q, k) float32."""


class Search(Protocol):
    """Answers queries (q, d) with the k nearest of each."""

    def __call__(self, queries: Vectors, k: int, /, *, links: Sequence[object] = ()) -> Answer:
        """Search; `links` are the spans of those, beside the caller, whom it is done for."""


class Caller(Protocol):
    """Who waits for an answer."""

    def remaining_s(self) -> float | None:
        """Return the seconds until the caller's deadline, None without one."""

    def is_gone(self) -> bool:
        """Whether the caller left."""

    def check(self) -> None:
        """Raise Cancelled if the caller left, DeadlineExceeded if its time ran out."""


class MergeObserver(Protocol):
    """Is told what was merged. Called by many threads at once, outside the merger's lock."""

    def searched(self, requests: int, queries: int) -> None:
        """Count an engine call that begins, for so many requests and queries in all."""

    def waited(self, seconds: float) -> None:
        """Count the wait of a request whose search begins; 0 for one that found the engine free."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeLimits:
    """How much is merged, and how much may wait.

    Parameters
    ----------
    max_queries
        Queries in one engine call. A larger request is searched alone, never split.
    max_wait_s
        How long a search that waited for the engine and got it, with fewer than max_queries, waits for more. It costs
        so much latency where calls come side by side, and none where they do not: a caller who finds the engine free
        never waits. 0 for a CPU; about the time between two calls of one client for a GPU.
    max_waiting
        Queries that may wait. One request more is refused at once, so it is to be no smaller than the largest.
    max_k_ratio
        How far apart the k's of one engine call may lie: it pays the largest k for all of its queries. 1 merges equal
        ones only, for an engine that finds others when it looks for more (hnsw).
    width
        Engine calls at once.
    """

    max_queries: int
    max_wait_s: float = 0.0
    max_waiting: int
    max_k_ratio: float = 4.0
    width: int = 1


class _State(Enum):
    ARRIVED = auto()
    QUEUED = auto()
    LEADING = auto()  # holds one of `width` places, and searches
    TAKEN = auto()  # a leader searches for it
    DONE = auto()
    LEFT = auto()


class _Request:
    woken: threading.Event  # once queued: making one takes longer than all else that an idle engine's caller does here

    def __init__(self, queries: Vectors, k: int, caller: Caller, arrived_s: float, span: object | None) -> None:
        self.queries = queries
        self.k = k
        self.caller = caller
        self.arrived_s = arrived_s
        self.span = span
        self.state = _State.ARRIVED
        self.waited = False
        self.members: list[_Request] = []
        self.answer: Answer | None = None
        self.error: BaseException | None = None

    def finish(self, *, answer: Answer | None = None, error: BaseException | None = None) -> None:
        """Wake the thread that waits: with an answer, an error, or neither if its caller is gone."""
        self.answer, self.error, self.state = answer, error, _State.DONE
        self.woken.set()

    def result(self) -> Answer:
        if self.error is not None:
            raise self.error
        if self.answer is None:
            self.caller.check()
            raise Cancelled("the caller left while its search waited")
        return self.answer


class SearchMerger:
    """One engine's searches, each as if it were alone.

    Without a thread of its own: who finds the engine free searches at once; who finds it busy waits, and when a search
    ends, the first who waits leads the next one, for all that fit with it. Those who left or ran out of time while they
    waited are passed over.

    Threads: `submit` by any number.

    Parameters
    ----------
    search
        The engine call. A query's answer must not depend on the queries beside it, and be the beginning of its answer
        for a larger k. FAISS promises neither, since it rounds by the place in the block: scores are to be computed
        anew from the vectors. What is searched must stay the same while callers wait: each holds what keeps it so.
    clock
        Seconds, monotonic.
    here
        Says which span a thread is in.
    """

    def __init__(
        self,
        search: Search,
        limits: MergeLimits,
        *,
        observer: MergeObserver,
        clock: Callable[[], float] = time.monotonic,
        here: Callable[[], object | None] = lambda: None,
    ) -> None:
        self._search = search
        self._here = here
        self._limits = limits
        self._observer = observer
        self._clock = clock
        # Guards all below and every request's state. Whenever a request is queued, all `width` places are taken.
        self._changed = threading.Condition(threading.Lock())
        self._queue = deque[_Request]()
        self._waiting = 0
        self._leaders = 0

    def submit(self, queries: Vectors, k: int, *, caller: Caller) -> Answer:
        """Return the nearest rows of `queries` (q, d) float32: rows (q, k) int64 and scores (q, k) float32.

        Raises
        ------
        ResourceExhausted
            Too many queries wait.
        Cancelled, DeadlineExceeded
            The caller left, or its time ran out, while it waited.

        And what the search raised, also where it was raised for another's queries in the same search.
        """
        request = _Request(queries, k, caller, self._clock(), self._here())
        try:
            self._enter(request)
            if request.waited:
                self._await(request)
            return self._lead(request) if request.state is _State.LEADING else request.result()
        finally:
            self._leave(request)

    def _enter(self, request: _Request) -> None:
        """Take a place, or queue."""
        with self._changed:
            if self._leaders < self._limits.width:
                self._leaders += 1
                request.state = _State.LEADING
                return
            waiting, limit = self._waiting + len(request.queries), self._limits.max_waiting
            if waiting > limit:
                what = f"{waiting:,} queries waiting for the index"
                raise ResourceExhausted(what, limit=limit, setting=MAX_WAITING_SETTING)
            request.state, request.waited, request.woken = _State.QUEUED, True, threading.Event()
            self._queue.append(request)
            self._waiting = waiting
            self._changed.notify_all()

    def _await(self, request: _Request) -> None:
        """Wait until `request` leads or is answered, as long as its caller does."""
        while not request.woken.wait(_at_most(request.caller)):
            request.caller.check()

    def _lead(self, leader: _Request) -> Answer:
        """Search for `leader` and those who fit with it."""
        if leader.waited:
            self._linger(leader)
            leader.caller.check()
            self._take(leader)
        together = [leader, *leader.members]
        self._tell(together)
        try:
            answers = self._search_for(together)
        except BaseException as error:
            _fail(leader.members, error)
            raise
        for member, answer in zip(leader.members, answers[1:], strict=True):
            member.finish(answer=answer)
        return answers[0]

    def _linger(self, leader: _Request) -> None:
        """Wait for more to fill the search."""
        wait_s = min(self._limits.max_wait_s, _at_most(leader.caller))
        room = self._limits.max_queries - len(leader.queries)
        with self._changed:
            self._changed.wait_for(lambda: self._waiting >= room, wait_s)

    def _take(self, leader: _Request) -> None:
        """Take those who wait and fit, first in first out; let those go whose callers are gone."""
        with self._changed:
            taken = self._fitting(leader)
            leader.members = taken
            for request in taken:
                request.state = _State.TAKEN
                self._waiting -= len(request.queries)
            self._queue = deque(request for request in self._queue if request.state is _State.QUEUED)
        for request in taken:
            if _is_gone(request.caller):
                request.finish()
        leader.members = [request for request in taken if request.state is _State.TAKEN]

    def _fitting(self, leader: _Request) -> list[_Request]:
        low = high = leader.k
        room = self._limits.max_queries - len(leader.queries)
        fitting = []
        for request in self._queue:
            if len(request.queries) > room:
                break
            if max(high, request.k) > self._limits.max_k_ratio * min(low, request.k):
                continue  # it does not starve: the first in the queue leads next
            low, high = min(low, request.k), max(high, request.k)
            room -= len(request.queries)
            fitting.append(request)
        return fitting

    def _tell(self, together: list[_Request]) -> None:
        now_s = self._clock()
        for request in together:
            self._observer.waited(now_s - request.arrived_s if request.waited else 0.0)
        self._observer.searched(len(together), sum(len(request.queries) for request in together))

    def _search_for(self, together: list[_Request]) -> list[Answer]:
        if len(together) == 1:
            return [self._search(together[0].queries, together[0].k)]
        queries = np.concatenate([request.queries for request in together])
        links = [request.span for request in together[1:] if request.span is not None]
        k = max(request.k for request in together)
        rows, scores = self._search(queries, k, links=links) if links else self._search(queries, k)
        ends = np.cumsum([len(request.queries) for request in together[:-1]])
        parts = zip(together, np.split(rows, ends), np.split(scores, ends), strict=True)
        return [(np.ascontiguousarray(r[:, : one.k]), np.ascontiguousarray(s[:, : one.k])) for one, r, s in parts]

    def _leave(self, request: _Request) -> None:
        """Give back what `request` holds: its place in the queue, or that of a leader to the first who waits.

        However the thread got here: a leader that was interrupted puts those back whom it did not answer.
        """
        with self._changed:
            if request.state is _State.QUEUED:
                self._queue.remove(request)
                self._waiting -= len(request.queries)
            elif request.state is _State.LEADING:
                self._put_back([member for member in request.members if member.state is _State.TAKEN])
                self._hand_over()
            request.state = _State.LEFT

    def _put_back(self, requests: list[_Request]) -> None:
        self._queue.extendleft(reversed(requests))
        for request in requests:
            request.state = _State.QUEUED
            self._waiting += len(request.queries)

    def _hand_over(self) -> None:
        if not self._queue:
            self._leaders -= 1
            return
        leader = self._queue.popleft()
        self._waiting -= len(leader.queries)
        leader.state = _State.LEADING
        leader.woken.set()


def _at_most(caller: Caller) -> float:
    """Return how long to wait for something, in a form that locks take."""
    remaining_s = caller.remaining_s()
    return threading.TIMEOUT_MAX if remaining_s is None else min(max(remaining_s, 0.0), threading.TIMEOUT_MAX)


def _is_gone(caller: Caller) -> bool:
    return caller.is_gone() or _at_most(caller) <= 0


def _fail(requests: list[_Request], error: BaseException) -> None:
    """Give each an error like `error`, unless that is about the thread (KeyboardInterrupt), not the search."""
    if isinstance(error, Exception):
        for request in requests:
            request.finish(error=error_like(error))
