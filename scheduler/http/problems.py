"""The one table from errors to HTTP status, and errors as problem JSON."""

import json
import math
from http import HTTPStatus
from typing import Final

from starlette.responses import Response

from sealpool import errors

MEDIA_TYPE: Final = "application/problem+json"

CALLER_LEFT: Final = 499
"""Nobody reads it; it is what proxies log for a caller that left."""

HTTP_STATUS_OF: dict[type[errors.SealpoolError], int] = {
    errors.InvalidArgument: HTTPStatus.BAD_REQUEST,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.AlreadyExists: HTTPStatus.CONFLICT,
    errors.FailedPrecondition: HTTPStatus.CONFLICT,
    errors.ResourceExhausted: HTTPStatus.TOO_MANY_REQUESTS,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
    errors.Cancelled: CALLER_LEFT,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.PermissionDenied: HTTPStatus.FORBIDDEN,
    errors.InternalError: HTTPStatus.INTERNAL_SERVER_ERROR,
}

_MAX_MESSAGE_CHARACTERS: Final = 4096


def problem_of(error: errors.SealpoolError, *, status: int | None = None) -> dict[str, str | int | float]:
    """Return an error as problem JSON: `error`, `status`, `message`, and where there is one `field` and
    `retry_after_seconds`.

    Parameters
    ----------
    status
        Instead of the table's: what HTTP has a word of its own for.
    """  # noqa: D205 - one sentence
    kind = next((cls for cls in type(error).__mro__ if cls in HTTP_STATUS_OF), errors.InternalError)
    problem: dict[str, str | int | float] = {
        "error": kind.__name__,
        "status": int(status or HTTP_STATUS_OF[kind]),
        "message": error.message[:_MAX_MESSAGE_CHARACTERS],
    }
    if error.field:
        problem["field"] = error.field[:_MAX_MESSAGE_CHARACTERS]
    if isinstance(error, errors.ResourceExhausted | errors.Unavailable) and error.retry_after_s is not None:
        problem["retry_after_seconds"] = error.retry_after_s
    return problem


def problem_response(
    error: errors.SealpoolError, *, status: int | None = None, headers: dict[str, str] | None = None
) -> Response:
    """Return an error as an answer, with the headers that its status asks for."""
    problem = problem_of(error, status=status)
    told = dict(headers or {})
    if "retry_after_seconds" in problem:
        told["Retry-After"] = str(max(1, math.ceil(float(problem["retry_after_seconds"]))))
    if isinstance(error, errors.Unauthenticated):
        told["WWW-Authenticate"] = "Bearer"
    content = json.dumps(problem, ensure_ascii=True)
    return Response(content, status_code=int(problem["status"]), headers=told, media_type=MEDIA_TYPE)
