"""Calls that wait for the same lock or disk are done together: a group commit.

While one group is being done, those who come wait and form the next. With one caller nothing is put off; with many the
price of a transaction is shared by all of a group.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")

Handle = Callable[[str, Sequence[RequestT]], Sequence[AnswerT | Exception]]


class _Waiting(Generic[RequestT, AnswerT]):
    """A caller's request, and what becomes of it: an answer, or None, which says: do the next group yourself."""

    def __init__(self, request: RequestT) -> None:
        self.request = request
        self.turn: Future[tuple[AnswerT] | None] = Future()


class Combiner(Generic[RequestT, AnswerT]):
    """Does the requests of many threads in groups, those of one key one group after the other.

    Parameters
    ----------
    handle
        Takes a key and the requests of a group, in the order they came; returns for each, parallel, its answer or the
        exception that its caller is to get. Where it raises, every caller of the group gets that.
    most
        Requests in a group at most.
    """

    def __init__(self, handle: Handle[RequestT, AnswerT], *, most: int) -> None:
        self._handle = handle
        self._most = most
        self._lock = threading.Lock()
        self._waiting: dict[str, list[_Waiting[RequestT, AnswerT]]] = {}

    def run(self, key: str, request: RequestT) -> AnswerT:
        """Return the answer to a request, done in a group with others of its key that wait; raise its exception."""
        mine: _Waiting[RequestT, AnswerT] = _Waiting(request)
        with self._lock:
            queue = self._waiting.get(key)
            if queue is None:
                self._waiting[key] = []
            else:
                queue.append(mine)
        if queue is not None:
            answer = mine.turn.result()
            if answer is not None:
                return answer[0]
        return self._lead(key, mine)

    def _lead(self, key: str, mine: _Waiting[RequestT, AnswerT]) -> AnswerT:
        """Do a group with `mine` first in it, and let the next in line lead the one after."""
        with self._lock:
            queue = self._waiting[key]
            group = [mine, *queue[: self._most - 1]]
            del queue[: self._most - 1]
        try:
            answers = self._handle(key, [one.request for one in group])
        except Exception as error:  # noqa: BLE001 - each caller of the group raises it
            answers = [error] * len(group)
        finally:
            self._pass_on(key)
        for one, answer in zip(group[1:], answers[1:], strict=True):
            if isinstance(answer, Exception):
                one.turn.set_exception(answer)
            else:
                one.turn.set_result((answer,))
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    def _pass_on(self, key: str) -> None:
        with self._lock:
            queue = self._waiting[key]
            following = queue.pop(0) if queue else None
            if following is None:
                del self._waiting[key]
        if following is not None:
            following.turn.set_result(None)
