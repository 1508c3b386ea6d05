"""Spans: what was done for a call, for how long, and on whose behalf. Without a collector they cost next to nothing."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, Protocol

from sealpool.runtime.request_ids import REQUEST_ID

if TYPE_CHECKING:
    import grpc

    from sealpool.runtime.logs import Logger
    from sealpool.runtime.settings import ServiceSettings

Attribute = str | int | float
"""Names and sizes. Never a text, a vector, an item's id or a token: collectors are read by more people than pools."""

MISSING: Final = "trace_endpoint needs OpenTelemetry: pip install 'sealpool[tracing]'"


class Tracer(Protocol):
    """Makes spans. One is the child of that which its thread is in; a copy of the context takes that to other threads.

    Threads: by any number.
    """

    def span(
        self, name: str, *, links: Sequence[object] = (), **attributes: Attribute
    ) -> AbstractContextManager[object]:
        """Return a span for the block; one that raises is marked as failed.

        Parameters
        ----------
        links
            What `here` returned in other threads, for which this is done too.
        """
        ...

    def here(self) -> object | None:
        """Return the span that this thread is in, None if there is none or it is not recorded."""
        ...


class AnsweredCall(Protocol):
    """A call under way."""

    def answered(self, status: int) -> None:
        """Note the HTTP status of the answer."""
        ...


class CallTracer(Tracer, Protocol):
    """A tracer that also follows calls from one process into the next."""

    def http_call(
        self, method: str, route: str, headers: Iterable[tuple[str, str]]
    ) -> AbstractContextManager[AnsweredCall]:
        """Return a span for a call over HTTP, a child of what its `traceparent` header names."""
        ...

    def channel(self, channel: "grpc.Channel") -> "grpc.Channel":
        """Return a channel whose calls are spans, and tell the service that they are."""
        ...

    def interceptors(self, services: frozenset[str]) -> "Sequence[grpc.ServerInterceptor]":
        """Return what makes spans of the calls to those gRPC services."""
        ...

    def close(self) -> None:
        """Send what was not sent yet, for 2 s at most. Closing twice does no harm."""
        ...


class _NoCall:
    def answered(self, status: int) -> None:
        """Do nothing."""


class NoTracing:
    """No spans."""

    def span(
        self,
        name: str,  # noqa: ARG002
        *,
        links: Sequence[object] = (),  # noqa: ARG002
        **attributes: Attribute,  # noqa: ARG002
    ) -> AbstractContextManager[object]:
        """Return a block that nothing is done around."""
        return _NOTHING

    def here(self) -> object | None:
        """Return None."""
        return None

    def http_call(
        self,
        method: str,  # noqa: ARG002
        route: str,  # noqa: ARG002
        headers: Iterable[tuple[str, str]],  # noqa: ARG002
    ) -> AbstractContextManager[AnsweredCall]:
        """Return a block that nothing is done around."""
        return _NO_CALL

    def channel(self, channel: "grpc.Channel") -> "grpc.Channel":
        """Return the channel itself."""
        return channel

    def interceptors(self, services: frozenset[str]) -> "Sequence[grpc.ServerInterceptor]":  # noqa: ARG002
        """Return none."""
        return ()

    def close(self) -> None:
        """Do nothing."""


_NOTHING: Final[AbstractContextManager[object]] = nullcontext()
_NO_CALL: Final[AbstractContextManager[AnsweredCall]] = nullcontext(_NoCall())

NO_TRACING: Final = NoTracing()
"""It keeps no state: safe to share."""


def open_tracer(settings: "ServiceSettings", service: str, *, log: "Logger") -> CallTracer:
    """Return the tracer that the settings ask for. OpenTelemetry is imported only where there is a collector.

    Raises
    ------
    SystemExit
        OpenTelemetry is not installed.
    """
    if not settings.trace_endpoint:
        return NO_TRACING
    return _opentelemetry().open_exporting(settings, service, log=log)  # type: ignore[no-any-return]


def log_fields(settings: "ServiceSettings") -> Any:
    """Return what says, for a line of log, which request and which span its thread works for: a dict of strings.

    Raises
    ------
    SystemExit
        OpenTelemetry is asked for and not installed.
    """
    if not settings.trace_endpoint:
        return _request_fields
    trace_fields = _opentelemetry().trace_fields
    return lambda: {**_request_fields(), **trace_fields()}


def _request_fields() -> dict[str, str]:
    request_id = REQUEST_ID.get()
    return {"request_id": request_id} if request_id else {}


def _opentelemetry() -> Any:
    try:
        from sealpool.runtime import tracing_opentelemetry
    except ImportError as error:
        raise SystemExit(f"{MISSING} ({error})") from error
    return tracing_opentelemetry
