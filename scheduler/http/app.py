"""The application: every operation at its route, the document, the probes, and other rooms' routers."""

import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route as StarletteRoute

from scheduler.http.answering import Endpoint, Serving
from scheduler.http.docs_page import DOCS_PAGE
from scheduler.http.document import document
from scheduler.http.events import EventsEndpoint
from scheduler.http.operations import EVENTS, Operation
from scheduler.http.problems import problem_response
from sealpool.errors import InternalError, InvalidArgument, NotFound, SealpoolError

_DOCS_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
"""The page takes a token: nothing of another site may be in it, nor it in a page of another site."""

_HEADERS_TAKEN = ["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Traceparent", "X-Request-ID"]


def build_app(
    operations: Sequence[Operation],
    serving: Serving,
    *,
    is_ready: Callable[[], bool],
    cors_origins: Sequence[str] = (),
    routers: Sequence[APIRouter] = (),
) -> FastAPI:
    """Return the application.

    Another room adds paths of its own with a router, which is served beside ours and is in the OpenAPI document.
    Nothing of ours stands before it: no token is asked for, no permit is taken and nothing is counted, so that it can
    use secrets of its own (a webhook's, say); it limits and checks its callers itself. Its functions run in FastAPI's
    threads unless they are `async`; what they raise of `sealpool.errors` is answered as everywhere here.

        router = APIRouter(prefix="/label-studio", tags=["Label Studio"])

        @router.post("/webhook/{secret}")
        def webhook(secret: str, event: Event) -> None: ...

        scheduler.http_routers.append(lambda: router)  # before `serve`; called only if the front is on

    Parameters
    ----------
    is_ready
        What /readyz says.
    cors_origins
        Origins whose pages may read answers; "*" for all.
    """
    app = FastAPI(title="sealpool scheduler", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=_HEADERS_TAKEN,
            expose_headers=["Retry-After", "X-Request-ID"],
        )
    app.router.routes.extend(_routes(operations, serving))
    app.router.routes.extend(_probes(is_ready))
    for router in routers:
        app.include_router(router)
    _document_at(app, operations, asks_for_tokens=serving.rules.gate is not None)
    _answer_errors(app, serving)
    return app


def _routes(operations: Iterable[Operation], serving: Serving) -> list[StarletteRoute]:
    by_path: dict[str, dict[str, Endpoint | EventsEndpoint]] = {}
    for operation in operations:
        endpoint = (EventsEndpoint if operation.route is EVENTS else Endpoint)(operation, serving)
        by_path.setdefault(operation.route.template, {})[operation.route.http_method] = endpoint
    # One route a path, so that a wrong method is told all right ones.
    return [StarletteRoute(path, _by_method(endpoints), methods=list(endpoints)) for path, endpoints in by_path.items()]


def _by_method(endpoints: dict[str, Any]) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        answered: Response = await endpoints[method].answer(request)
        return answered

    return answer


def _probes(is_ready: Callable[[], bool]) -> list[StarletteRoute]:
    async def alive(_request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def ready(_request: Request) -> Response:
        if is_ready():
            return PlainTextResponse("ready\n")
        return PlainTextResponse("starting or stopping\n", status_code=HTTPStatus.SERVICE_UNAVAILABLE)

    return [StarletteRoute("/healthz", alive, methods=["GET"]), StarletteRoute("/readyz", ready, methods=["GET"])]


def _document_at(app: FastAPI, operations: Sequence[Operation], *, asks_for_tokens: bool) -> None:
    theirs = app.openapi  # of the routers

    @cache
    def whole() -> dict[str, Any]:
        ours = document(operations, asks_for_tokens=asks_for_tokens)
        other = theirs()
        ours["paths"].update(other.get("paths", {}))
        for kind, components in other.get("components", {}).items():
            ours["components"][kind] = {**components, **ours["components"].get(kind, {})}
        return ours

    async def openapi(_request: Request) -> Response:
        return JSONResponse(whole())

    async def docs(_request: Request) -> Response:
        return HTMLResponse(DOCS_PAGE, headers=_DOCS_HEADERS)

    app.openapi = whole  # type: ignore[method-assign]  # FastAPI's own way to extend its document
    app.router.routes.append(StarletteRoute("/openapi.json", openapi, methods=["GET"]))
    app.router.routes.append(StarletteRoute("/docs", docs, methods=["GET"]))


def _answer_errors(app: FastAPI, serving: Serving) -> None:
    async def refused(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.BAD_REQUEST
        headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
        if status == HTTPStatus.NOT_FOUND:
            return problem_response(NotFound("path", request.url.path[:200]), headers=headers)
        field = "method" if status == HTTPStatus.METHOD_NOT_ALLOWED else "request"
        detail = str(getattr(error, "detail", "is refused"))
        return problem_response(InvalidArgument(field, detail), status=status, headers=headers)

    async def ended(_request: Request, error: Exception) -> Response:
        return problem_response(error if isinstance(error, SealpoolError) else InternalError(str(error)))

    async def failed(request: Request, error: Exception) -> Response:
        fault = uuid.uuid4().hex[:12]
        serving.rules.log.error("request failed", path=request.url.path, fault=fault, exc_info=error)
        return problem_response(InternalError(f"internal fault {fault}; the service's log has it under this id"))

    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(SealpoolError, ended)
    app.add_exception_handler(Exception, failed)
