"""Spans by OpenTelemetry's SDK, calls by its official gRPC interceptors, sent to a collector over OTLP.

Nothing global is set or patched: the interceptors are given to our own channels and servers.
"""

import os
import socket
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from http import HTTPStatus
from typing import Any, Final

import grpc
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.grpc import client_interceptor, server_interceptor
from opentelemetry.instrumentation.grpc.grpcext import (
    StreamClientInterceptor,
    UnaryClientInterceptor,
    intercept_channel,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sealpool.runtime.logs import Logger, library_log
from sealpool.runtime.settings import ServiceSettings
from sealpool.runtime.tracing import Attribute
from sealpool.runtime.version import installed_version

_FLUSH_S: Final = 2.0
_PREFIX: Final = "sealpool."


def trace_fields() -> dict[str, str]:
    """Return the ids of the trace and the span that this thread is in; nothing outside any."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": trace.format_trace_id(context.trace_id), "span_id": trace.format_span_id(context.span_id)}


def open_exporting(settings: ServiceSettings, service: str, *, log: Logger) -> "OpenTelemetryTracer":
    """Return a tracer that sends its spans to the settings' collector, in batches, from a thread of its own."""
    resource = Resource.create(
        {
            "service.name": f"sealpool-{service.replace('_', '-')}",
            "service.version": installed_version(),
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        }
    )
    endpoint = settings.trace_endpoint
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=not endpoint.startswith("https://"))
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.trace_sample_share)), resource=resource, shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(_Discreet(exporter)))
    told = library_log("opentelemetry", log)

    def close() -> None:
        # The SDK's own shutdown waits for 30 s where the exporter waits for its collector.
        flush = threading.Thread(target=provider.force_flush, name="trace flush", daemon=True)
        flush.start()
        flush.join(_FLUSH_S)
        if flush.is_alive():
            log.warning("traces lost: the collector did not take them in time", trace_endpoint=endpoint)
            exporter.shutdown()
        provider.shutdown()
        told.close()

    return OpenTelemetryTracer(provider, close=close)


class OpenTelemetryTracer:
    """Spans of an OpenTelemetry provider; see `sealpool.runtime.tracing.CallTracer`.

    Parameters
    ----------
    close
        Called by the first `close`.
    """

    def __init__(self, provider: trace.TracerProvider, *, close: Callable[[], None] = lambda: None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("sealpool", installed_version())
        self._close = close
        self._closed = False

    @contextmanager
    def span(self, name: str, *, links: Sequence[object] = (), **attributes: Attribute) -> Iterator[object]:
        """Return a span for the block."""
        with self._begun(
            name,
            SpanKind.INTERNAL,
            {_PREFIX + key: value for key, value in attributes.items()},
            links=[Link(link) for link in links if isinstance(link, SpanContext)],
        ) as span:
            yield span

    def here(self) -> object | None:
        """Return the span that this thread is in."""
        context = trace.get_current_span().get_span_context()
        return context if context.is_valid and context.trace_flags.sampled else None

    @contextmanager
    def http_call(self, method: str, route: str, headers: Iterable[tuple[str, str]]) -> "Iterator[_HttpCall]":
        """Return a span for a call over HTTP."""
        parent = TraceContextTextMapPropagator().extract(dict(headers))
        attributes: dict[str, Attribute] = {"http.request.method": method, "http.route": route}
        with self._begun(f"{method} {route}", SpanKind.SERVER, attributes, context=parent) as span:
            yield _HttpCall(span)

    def channel(self, channel: grpc.Channel) -> grpc.Channel:
        """Return a channel whose calls are spans."""
        official = client_interceptor(tracer_provider=self._provider)  # type: ignore[no-untyped-call]
        traced: grpc.Channel = intercept_channel(channel, _ClientInterceptor(official))  # type: ignore[no-untyped-call]
        return traced

    def interceptors(self, services: frozenset[str]) -> Sequence[grpc.ServerInterceptor]:
        """Return what makes spans of calls. Health and reflection are left alone: they run in threads of their own."""

        def is_ours(call: grpc.HandlerCallDetails) -> bool:
            return call.method.lstrip("/").partition("/")[0] in services

        return (server_interceptor(tracer_provider=self._provider, filter_=is_ours),)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Send what was not sent yet."""
        if not self._closed:
            self._closed = True
            self._close()

    @contextmanager
    def _begun(
        self, name: str, kind: SpanKind, attributes: dict[str, Attribute], **options: Any
    ) -> Iterator[trace.Span]:
        with self._tracer.start_as_current_span(
            name, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False, **options
        ) as span:
            try:
                yield span
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
                raise


class _HttpCall:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def answered(self, status: int) -> None:
        self._span.set_attribute("http.response.status_code", status)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._span.set_status(Status(StatusCode.ERROR))


class _ClientInterceptor(UnaryClientInterceptor, StreamClientInterceptor):
    """The official interceptor, which reads a stream of answers in a context of the stream's own.

    Its generator makes its span the current one until the stream ends, also for its reader: what the reader did between
    two messages became a child of the stream, and after two streams that were read in turns the thread stayed in a span
    that had ended.
    """

    def __init__(self, official: Any) -> None:
        self._official = official

    def intercept_unary(self, request: Any, metadata: Any, client_info: Any, invoker: Any) -> Any:
        return self._official.intercept_unary(request, metadata, client_info, invoker)

    def intercept_stream(self, request_or_iterator: Any, metadata: Any, client_info: Any, invoker: Any) -> Any:
        answers = self._official.intercept_stream(request_or_iterator, metadata, client_info, invoker)
        return _in_own_context(answers) if isinstance(answers, Generator) else answers


def _in_own_context(answers: Generator[Any, None, None]) -> Iterator[Any]:
    context, end = copy_context(), object()
    try:
        while (answer := context.run(next, answers, end)) is not end:
            yield answer
    finally:
        context.run(answers.close)


class _Discreet(SpanExporter):
    """Lets no message of an error leave the process: the instrumentation puts them, and tracebacks, into spans.

    They name items, and may quote what a caller sent.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans without events and descriptions of their status."""
        return self._exporter.export([_bare(span) for span in spans])

    def shutdown(self) -> None:
        """End."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what is held back."""
        return self._exporter.force_flush(timeout_millis)


def _bare(span: ReadableSpan) -> ReadableSpan:
    if not span.events and span.status.description is None:
        return span
    return ReadableSpan(
        span.name,
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
