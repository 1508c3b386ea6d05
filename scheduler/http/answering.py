"""A request over HTTP, let in as every call is, and answered by a servicer's method in a thread."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from http import HTTPStatus
from itertools import chain
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from scheduler.http.context import HttpContext
from scheduler.http.guarding import BrowserGuard
from scheduler.http.operations import Operation, page_size
from scheduler.http.problems import problem_response
from sealpool.errors import Cancelled, InvalidArgument, ResourceExhausted, SealpoolError
from sealpool.runtime.admitted import AdmittedCall, CalledMethod, CallRules
from sealpool.runtime.request_ids import REQUEST_ID, REQUEST_ID_KEY

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """What all calls over HTTP share.

    Parameters
    ----------
    rules
        Permits, tokens and metrics: those of the calls over gRPC.
    threads
        Where methods run: at least as many as there are permits.
    patience_s
        Seconds after which a call is ended whose caller neither sends nor reads; 0 for never.
    heartbeat_s
        Seconds of silence after which a stream of events says that it is there.
    """

    rules: CallRules
    guard: BrowserGuard
    threads: ThreadPoolExecutor
    max_body_bytes: int
    patience_s: float
    heartbeat_s: float

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Return what `work` does, done in a thread that knows whose call it serves."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, copy_context().run, work)

    def patience(self) -> "asyncio.Timeout":
        """Return what raises TimeoutError when a wait for the caller is too long."""
        return asyncio.timeout(self.patience_s or None)


class Endpoint:
    """Answers an operation."""

    def __init__(self, operation: Operation, serving: Serving) -> None:
        self._operation = operation
        self._serving = serving
        self._method = CalledMethod(operation.route.rpc, serving.rules)

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        tracer, route = self._serving.rules.tracer, self._operation.route
        with tracer.http_call(route.http_method, route.template, request.headers.items()) as call:
            response = await self._answer(request)
            call.answered(response.status_code)
        if REQUEST_ID.get():
            response.headers[REQUEST_ID_KEY] = REQUEST_ID.get()
        return response

    async def _answer(self, request: Request) -> Response:
        context = HttpContext(request)
        try:
            self._serving.guard.check(request)
            with AdmittedCall(self._method, context) as call:
                content = await self._run(request, context, call)
        except SealpoolError as error:
            return problem_response(error, status=context.status)
        except ClientDisconnect:
            return problem_response(Cancelled("the caller left"))
        finally:
            context.leave()
        return Response(content, media_type="application/json")

    async def _run(self, request: Request, context: HttpContext, call: AdmittedCall) -> bytes:
        try:
            body = await read_body(request, self._serving, context) if self._operation.has_body else b""
            return await self._run_until_left(request, context, self._work(request, body, context, call))
        except (asyncio.CancelledError, ClientDisconnect):
            context.leave()
            raise

    async def _run_until_left(self, request: Request, context: HttpContext, work: Callable[[], bytes]) -> bytes:
        running = asyncio.ensure_future(self._serving.in_thread(work))
        leaving = asyncio.ensure_future(until_left(request))
        try:
            await asyncio.wait({running, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                context.leave()
            return await running
        finally:
            leaving.cancel()

    def _work(self, request: Request, body: bytes, context: HttpContext, call: AdmittedCall) -> Callable[[], bytes]:
        def work() -> bytes:
            query = request.query_params.multi_items()
            pages = self._operation.route.pages
            limit, query = page_size(query) if "after_sequence" in self._operation.query else (sys.maxsize, query)
            message = message_of(self._operation, request, query, body)
            call.check_pools(message)
            answer = self._operation.behaviour(message, context)
            return _page(answer, pages, limit) if pages else to_json(answer)

        return work


def message_of(operation: Operation, request: Request, query: list[tuple[str, str]], body: bytes) -> Message:
    """Return the message of a request."""
    key = request.headers.get("idempotency-key", "")
    return operation.message(path=request.path_params, query=query, body=body, key=key)


async def read_body(request: Request, serving: Serving, context: HttpContext) -> bytes:
    """Return the body of a request that says it is JSON.

    Raises
    ------
    InvalidArgument
        It says that it is something else.
    ResourceExhausted
        It is too large.
    Cancelled
        It does not come.
    """
    parts: list[bytes] = []
    size = 0
    chunks = aiter(request.stream())
    while part := await _next_part(chunks, serving, context):
        size += len(part)
        if size > serving.max_body_bytes:
            context.status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            raise ResourceExhausted("body: it", limit=serving.max_body_bytes, setting="max_message_bytes")
        parts.append(part)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if size and kind != "application/json":
        context.status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        raise InvalidArgument("content-type", f"{kind[:60]!r} is not application/json")
    return b"".join(parts)


async def _next_part(chunks: AsyncIterator[bytes], serving: Serving, context: HttpContext) -> bytes:
    """Return the next part of a body, b"" at its end."""
    try:
        async with serving.patience():
            return await anext(chunks, b"")
    except TimeoutError as error:
        context.status = HTTPStatus.REQUEST_TIMEOUT
        raise Cancelled("body: it did not come in time") from error


async def until_left(request: Request) -> None:
    """Return when the caller has left. The body must have been read, or be none."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def to_json(message: Message) -> bytes:
    """Return a message in protobuf's JSON, under the contract's names and with every field that has a value."""
    return _dumps(_plain(message))


def _page(chunks: Any, field: str, limit: int) -> bytes:
    """Return one page of a listing, and after which number the next begins, if there is one."""
    rows: list[Any] = []
    for row in chain.from_iterable(getattr(chunk, field) for chunk in chunks):
        rows.append(row)
        if len(rows) > limit:
            break
    chunks.close()
    page: dict[str, Any] = {field: [_plain(row) for row in rows[:limit]]}
    if len(rows) > limit:
        page["next_after_sequence"] = str(rows[limit - 1].sequence)
    return _dumps(page)


def _plain(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def _dumps(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
