"""The HTTP paths that Label Studio calls. It shows who it is by its own secrets: tokens are not asked for here.

No `from __future__ import annotations`: FastAPI reads the types of handlers that are made inside a function.
"""

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from scheduler.label_studio.calling import LabelStudioCalls
from scheduler.label_studio.linking import SECRET_HEADER
from sealpool.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    SealpoolError,
    Unauthenticated,
    Unavailable,
)

PREFIX = "/label-studio"
BODY_S = 60.0
"""For a whole body to come. Nothing else bounds these calls: they hold no permit."""
_STATUS: dict[type[SealpoolError], int] = {
    InvalidArgument: 422,
    NotFound: 404,
    FailedPrecondition: 409,
    ResourceExhausted: 413,
    Unauthenticated: 401,
    Unavailable: 503,
}


def router(calls: LabelStudioCalls, *, max_body_bytes: int) -> APIRouter:
    """Return the webhook and the ML backend of every campaign, under /label-studio/{campaign}.

    The webhook shows the link's secret in a header; the ML backend is asked with basic authentication, by any user
    name and the server's ml_password. Paths are not in the OpenAPI document: nobody else is to call them.
    """
    routes = APIRouter(prefix=PREFIX, include_in_schema=False)

    @routes.post("/{campaign}/webhook")
    async def webhook(campaign: str, request: Request) -> Response:
        secret = request.headers.get(SECRET_HEADER, "")

        def check() -> None:
            calls.check_secret(campaign, secret)

        def take(body: Any) -> dict[str, Any]:
            return {"received": calls.receive(campaign, secret, body)}

        return await _answer(request, check, take, max_body_bytes)

    def ask(campaign: str, request: Request, tell: Callable[[Any], dict[str, Any]]) -> Awaitable[Response]:
        def check() -> None:
            calls.check_password(campaign, _password(request))

        return _answer(request, check, tell, max_body_bytes)

    @routes.get("/{campaign}/ml/health")
    async def health(campaign: str, request: Request) -> Response:
        def tell(_body: Any) -> dict[str, Any]:
            return {"status": "UP", "model_class": "sealpool"}

        return await ask(campaign, request, tell)

    @routes.post("/{campaign}/ml/setup")
    async def setup(campaign: str, request: Request) -> Response:
        def tell(_body: Any) -> dict[str, Any]:
            return {"model_version": calls.version(campaign)}

        return await ask(campaign, request, tell)

    @routes.get("/{campaign}/ml/versions")
    async def versions(campaign: str, request: Request) -> Response:
        def tell(_body: Any) -> dict[str, Any]:
            return {"versions": [calls.version(campaign)]}

        return await ask(campaign, request, tell)

    @routes.post("/{campaign}/ml/predict")
    async def predict(campaign: str, request: Request) -> Response:
        def tell(body: Any) -> dict[str, Any]:
            tasks = body.get("tasks") if isinstance(body, dict) else None
            if not isinstance(tasks, list):
                raise InvalidArgument("tasks", "is not a list")
            return {"results": calls.predict(campaign, tasks)}

        return await ask(campaign, request, tell)

    @routes.post("/{campaign}/ml/webhook")
    async def ignored() -> dict[str, Any]:
        # Label Studio tells every ML backend of every change, without a secret. Annotations come by the real webhook.
        return {}

    return routes


async def _answer(
    request: Request, check: Callable[[], None], answer: Callable[[Any], dict[str, Any]], max_body_bytes: int
) -> Response:
    try:
        await run_in_threadpool(check)  # before anything of a stranger's is read
        async with asyncio.timeout(BODY_S):
            body = await _body(request, max_body_bytes)
        return JSONResponse(await run_in_threadpool(answer, body))
    except SealpoolError as error:
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
        headers = {"WWW-Authenticate": "Basic"} if status == _STATUS[Unauthenticated] else None
        return JSONResponse({"error": error.message, "field": error.field}, status_code=status, headers=headers)
    except TimeoutError:
        return JSONResponse({"error": "the body did not come in time", "field": "body"}, status_code=408)


async def _body(request: Request, max_body_bytes: int) -> Any:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > max_body_bytes:
            raise ResourceExhausted("body", limit=max_body_bytes, setting="max_message_bytes")
    if not content:
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument("body", "is not JSON") from error


def _password(request: Request) -> str:
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
