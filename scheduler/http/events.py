"""A campaign's events as server-sent events."""

import asyncio
import json
from collections.abc import Generator
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from scheduler.http.answering import Serving, message_of, to_json, until_left
from scheduler.http.context import HttpContext
from scheduler.http.operations import Operation
from scheduler.http.problems import problem_of, problem_response
from sealpool.errors import SealpoolError
from sealpool.runtime.admitted import AdmittedCall, CalledMethod
from sealpool.runtime.request_ids import REQUEST_ID, REQUEST_ID_KEY

MEDIA_TYPE = "text/event-stream"

_FIRST_ANSWER_S = 0.25
"""How long a refusal may take to become the answer's status; what is refused later is told as an event."""

_HEARTBEAT = b": still here\n\n"


class EventsEndpoint:
    """Answers WatchCampaign."""

    def __init__(self, operation: Operation, serving: Serving) -> None:
        self._operation = operation
        self._serving = serving
        self._method = CalledMethod(operation.route.rpc, serving.rules)

    async def answer(self, request: Request) -> Response:
        """Return an answer that streams as long as it is sent."""
        return _Stream(request, self._operation, self._serving, self._method)


class _Stream(Response):
    """One watcher: admitted when it is sent, so that its permit comes back however sending ends."""

    def __init__(self, request: Request, operation: Operation, serving: Serving, method: CalledMethod) -> None:
        super().__init__(media_type=MEDIA_TYPE)
        self._request = request
        self._operation = operation
        self._serving = serving
        self._method = method
        self._context = HttpContext(request)
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until there are no more or the caller leaves."""
        try:
            self._serving.guard.check(self._request)
            with AdmittedCall(self._method, self._context) as call:
                await self._follow(call, send)
        except (TimeoutError, OSError):
            return  # nobody reads
        except SealpoolError as error:
            if not self._begun:
                await problem_response(error)(scope, receive, send)
                return
            await self._end(send, _event("error", json.dumps(problem_of(error))))
            return
        finally:
            self._context.leave()
        if self._begun:
            await self._end(send, b"")
        else:
            # No event, and none to come: 204 tells browsers not to connect again.
            await Response(status_code=HTTPStatus.NO_CONTENT)(scope, receive, send)

    async def _end(self, send: Send, content: bytes) -> None:
        with suppress(TimeoutError, OSError):  # nobody reads
            await self._send(send, content, more=False)

    async def _follow(self, call: AdmittedCall, send: Send) -> None:
        events = self._events(call)
        leaving = asyncio.ensure_future(until_left(self._request))
        pending: asyncio.Future[Any] | None = None
        try:
            while not leaving.done():
                pending = asyncio.ensure_future(self._serving.in_thread(lambda: next(events, None)))
                await self._until(pending, leaving, send)
                if pending.done():
                    event = pending.result()
                    if event is None:
                        return
                    await self._begin(send)
                    await self._send(send, _said(event))
        finally:
            self._context.leave()
            leaving.cancel()
            if pending is not None:
                await asyncio.wait({pending})
                with suppress(SealpoolError):
                    pending.exception()
            await self._serving.in_thread(events.close)

    def _events(self, call: AdmittedCall) -> Generator[Any, None, None]:
        query = self._request.query_params.multi_items()
        last = self._request.headers.get("last-event-id", "")
        if last:  # the browser's own, and newer than what the page asked for when it was opened
            query = [*(one for one in query if one[0] != "after_sequence"), ("after_sequence", last)]
        message = message_of(self._operation, self._request, query, b"")
        call.check_pools(message)
        yield from self._operation.behaviour(message, self._context)

    async def _until(self, pending: "asyncio.Future[Any]", leaving: "asyncio.Future[None]", send: Send) -> None:
        """Wait for the next event or for the caller to leave, with a sign of life now and then."""
        patience_s = self._serving.heartbeat_s if self._begun else _FIRST_ANSWER_S
        while True:
            await asyncio.wait({pending, leaving}, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            if pending.done() or leaving.done():
                return
            if self._begun:
                await self._send(send, _HEARTBEAT)
            await self._begin(send)
            patience_s = self._serving.heartbeat_s

    async def _begin(self, send: Send) -> None:
        if self._begun:
            return
        self._begun = True
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
            (REQUEST_ID_KEY.encode(), REQUEST_ID.get().encode()),
        ]
        await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": headers})
        await self._send(send, b": events follow\n\n")

    async def _send(self, send: Send, content: bytes, *, more: bool = True) -> None:
        async with self._serving.patience():
            await send({"type": "http.response.body", "body": content, "more_body": more})


def _said(event: Any) -> bytes:
    return _event(event.WhichOneof("event") or "message", to_json(event).decode(), number=event.sequence)


def _event(name: str, data: str, *, number: int | None = None) -> bytes:
    """Return one event; `data` has no line break."""
    identity = "" if number is None else f"id: {number}\n"
    return f"{identity}event: {name}\ndata: {data}\n\n".encode()
