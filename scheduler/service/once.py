"""A mutating call takes effect once for each request id."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from google.protobuf.message import Message
from sqlalchemy.orm import Session

from scheduler.service.checks import check_text
from scheduler.storage import requests as noted
from scheduler.storage.store import Store
from sealpool.errors import InvalidArgument, SealpoolError

MAX_REQUEST_ID_BYTES = 128


class MutatingRequest(Protocol):
    """Any request message with a request_id."""

    request_id: str

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes:  # noqa: N802 - protobuf's name
        """Return the message's bytes."""
        ...


AnswerT = TypeVar("AnswerT", bound=Message)
RefusalT = TypeVar("RefusalT")
RequestT = TypeVar("RequestT", bound=MutatingRequest)


class Once:
    """Runs the effect of a call in one transaction with the note of what it was answered."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def run(
        self, request: MutatingRequest, answer_type: type[AnswerT], effect: Callable[[Session], AnswerT]
    ) -> AnswerT:
        """Return what `effect` answers, or what it answered when the same request came first.

        Raises
        ------
        InvalidArgument
            The request id is too long, or came before with other content.
        """
        check_request_id(request)
        (answer,) = self.run_all([request], answer_type, lambda session, _: [effect(session)])
        if isinstance(answer, SealpoolError):
            raise answer
        return answer

    def run_all(
        self,
        requests: Sequence[MutatingRequest],
        answer_type: type[AnswerT],
        effect: Callable[[Session, Sequence[int]], Sequence[AnswerT | RefusalT]],
    ) -> list[AnswerT | RefusalT | InvalidArgument]:
        """Return the answers to several requests, done in one transaction.

        Parameters
        ----------
        requests
            With request ids that `check_request_id` let pass, none twice.
        effect
            Takes the positions of those requests that did not come before, and returns, parallel, the answer to each
            or anything else, of which no note is taken.

        Returns
        -------
        list
            Parallel to the requests: what `effect` returned, or what it answered when the same request came first, or
            InvalidArgument where its id came before with other content.
        """
        with self._store.writing() as session:
            ids = [request.request_id for request in requests if request.request_id]
            noted.lock(session, ids)
            known = noted.find(session, ids)
            new = [at for at, request in enumerate(requests) if request.request_id not in known]
            done = dict(zip(new, effect(session, new) if new else (), strict=True))
            answered = [
                noted.Answered(
                    request_id=request.request_id, digest=_digest(request), answer=answer.SerializeToString()
                )
                for request, answer in ((requests[at], done[at]) for at in new)
                if request.request_id and isinstance(answer, answer_type)
            ]
            noted.add(session, answered, now=self._store.clock.now())
        return [
            done[at] if at in done else _again(request, known[request.request_id], answer_type)
            for at, request in enumerate(requests)
        ]

    def answered(self, request: MutatingRequest, answer_type: type[AnswerT]) -> AnswerT | None:
        """Return what the same request was answered before; None if it is new.

        For calls that ask another service before their effect: a repetition must be answered also when that one is
        away, or has changed its mind.
        """
        if not request.request_id:
            return None
        check_request_id(request)
        with self._store.reading() as session:
            earlier = noted.find(session, [request.request_id]).get(request.request_id)
        answer = None if earlier is None else _again(request, earlier, answer_type)
        if isinstance(answer, InvalidArgument):
            raise answer
        return answer


def check_request_id(request: MutatingRequest) -> None:
    """Raise InvalidArgument if the request id is too long or cannot be kept."""
    check_text("request_id", request.request_id, max_bytes=MAX_REQUEST_ID_BYTES)


def parts(requests: Sequence[RequestT], size_of: Callable[[RequestT], int], *, most: int) -> Iterator[slice]:
    """Yield requests in their order, in parts that fit into a transaction each: no request id twice, `most` in size."""
    start, size = 0, 0
    ids: set[str] = set()
    for at, request in enumerate(requests):
        own = size_of(request)
        if at > start and (request.request_id in ids or size + own > most):
            yield slice(start, at)
            start, size = at, 0
            ids = set()
        size += own
        if request.request_id:
            ids.add(request.request_id)
    yield slice(start, len(requests))


def _again(request: MutatingRequest, earlier: noted.Answered, answer_type: type[AnswerT]) -> AnswerT | InvalidArgument:
    if earlier.digest != _digest(request):
        return InvalidArgument("request_id", f"{request.request_id!r} came before with other content")
    return answer_type.FromString(earlier.answer)


def _digest(request: MutatingRequest) -> str:
    content = type(request).__name__.encode() + b"\0" + request.SerializeToString(deterministic=True)
    return hashlib.sha256(content).hexdigest()
