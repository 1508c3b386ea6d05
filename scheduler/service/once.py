"""A mutating call takes effect once for each request id."""

import hashlib
from collections.abc import Callable
from typing import Protocol, TypeVar

from google.protobuf.message import Message
from sqlalchemy.orm import Session

from scheduler.service.checks import check_text
from scheduler.storage import requests
from scheduler.storage.store import Store
from sealpool.errors import InvalidArgument

MAX_REQUEST_ID_BYTES = 128


class MutatingRequest(Protocol):
    """Any request message with a request_id."""

    request_id: str

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes:  # noqa: N802 - protobuf's name
        """Return the message's bytes."""
        ...


AnswerT = TypeVar("AnswerT", bound=Message)


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
        with self._store.writing() as session:
            if not request.request_id:
                return effect(session)
            _check_request_id(request)
            requests.lock(session, request.request_id)
            earlier = _earlier(session, request, answer_type)
            if earlier is not None:
                return earlier
            answer = effect(session)
            requests.add(
                session,
                request.request_id,
                digest=_digest(request),
                answer=answer.SerializeToString(),
                now=self._store.clock.now(),
            )
            return answer

    def answered(self, request: MutatingRequest, answer_type: type[AnswerT]) -> AnswerT | None:
        """Return what the same request was answered before; None if it is new.

        For calls that ask another service before their effect: a repetition must be answered also when that one is
        away, or has changed its mind.
        """
        if not request.request_id:
            return None
        _check_request_id(request)
        with self._store.reading() as session:
            return _earlier(session, request, answer_type)


def _check_request_id(request: MutatingRequest) -> None:
    check_text("request_id", request.request_id, max_bytes=MAX_REQUEST_ID_BYTES)


def _earlier(session: Session, request: MutatingRequest, answer_type: type[AnswerT]) -> AnswerT | None:
    earlier = requests.find(session, request.request_id)
    if earlier is None:
        return None
    if earlier.digest != _digest(request):
        raise InvalidArgument("request_id", f"{request.request_id!r} came before with other content")
    return answer_type.FromString(earlier.answer)


def _digest(request: MutatingRequest) -> str:
    content = type(request).__name__.encode() + b"\0" + request.SerializeToString(deterministic=True)
    return hashlib.sha256(content).hexdigest()
