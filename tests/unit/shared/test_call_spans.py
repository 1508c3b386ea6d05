"""Calls as spans, on both sides: by OpenTelemetry's own interceptors, beside ours."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import grpc.experimental
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from sealpool.errors import InternalError, NotFound
from sealpool.runtime.tracing import NO_TRACING
from sealpool.v1 import index_pb2, index_pb2_grpc
from tests.support.recorded_spans import RecordedSpans, id_of, is_child, trace_of
from tests.unit.shared.small_service import SmallService

GET, SCAN = "/GetPool", "/ScanItems"


@pytest.fixture
def spans() -> RecordedSpans:
    return RecordedSpans()


@pytest.fixture
def service(spans: RecordedSpans) -> Iterator[SmallService]:
    service = SmallService(tracer=spans.tracer)
    yield service
    service.server.stop()


def sides(spans: RecordedSpans, service: SmallService, name: str) -> tuple[list[ReadableSpan], list[ReadableSpan]]:
    """Return the client's and the server's spans; the server's are complete once it has stopped."""
    service.server.stop()
    found = spans.ended(name)
    return [s for s in found if s.kind is SpanKind.CLIENT], [s for s in found if s.kind is SpanKind.SERVER]


@contextmanager
def traced_channel(spans: RecordedSpans, service: SmallService) -> Iterator[grpc.Channel]:
    options = [(grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1)]  # as our clients do
    with grpc.insecure_channel(service.server.address, options=options) as channel:
        yield spans.tracer.channel(channel)


def scan(channel: grpc.Channel, pool: str) -> Iterator[index_pb2.ScanItemsResponse]:
    return index_pb2_grpc.IndexServiceStub(channel).ScanItems(index_pb2.ScanItemsRequest(pool=pool))


def test_the_services_span_is_the_child_of_the_clients_in_the_callers_own(
    spans: RecordedSpans, service: SmallService
) -> None:
    with service.client(tracer=spans.tracer) as client, spans.tracer.span("mine"):
        client.get_pool("any")
    (asking,), (answering,) = sides(spans, service, GET)
    (mine,) = spans.ended("mine")
    assert is_child(answering, asking)
    assert is_child(asking, mine)


def test_each_try_of_a_call_is_a_span(spans: RecordedSpans, service: SmallService) -> None:
    with service.client(tracer=spans.tracer) as client, spans.tracer.span("mine"):
        client.get_pool("twice-away")
    asking, answering = sides(spans, service, GET)
    assert [span.status.status_code for span in asking] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    assert [is_child(a, b) for a, b in zip(answering, asking, strict=True)] == [True] * 3
    assert len({trace_of(span) for span in asking}) == 1


def test_a_callers_fault_is_no_error_of_the_service_and_one_of_its_own_is(
    spans: RecordedSpans, service: SmallService
) -> None:
    with service.client(tracer=spans.tracer) as client:
        with pytest.raises(NotFound):
            client.get_pool("missing")
        with pytest.raises(InternalError):
            client.get_pool("bug")
    asking, answering = sides(spans, service, GET)
    code = "rpc.grpc.status_code"
    assert [(s.status.status_code, (s.attributes or {})[code]) for s in answering] == [
        (StatusCode.UNSET, grpc.StatusCode.NOT_FOUND.value[0]),
        (StatusCode.ERROR, grpc.StatusCode.INTERNAL.value[0]),
    ]
    assert [s.status.status_code for s in asking] == [StatusCode.ERROR] * 2


def test_lines_of_log_name_the_span_that_the_service_was_in(spans: RecordedSpans) -> None:
    service = SmallService(tracer=spans.tracer, trace_endpoint="127.0.0.1:4317")
    with service.client(tracer=spans.tracer) as client:
        client.get_pool("any")
    _, (answering,) = sides(spans, service, GET)
    for event in ("asked", "call ended"):
        (line,) = service.lines(event)
        assert line["trace_id"] == trace.format_trace_id(trace_of(answering))
        assert line["span_id"] == trace.format_span_id(id_of(answering))


def test_streams_that_are_read_in_turns_leave_their_reader_in_the_span_it_was_in(
    spans: RecordedSpans, service: SmallService
) -> None:
    with traced_channel(spans, service) as channel, spans.tracer.span("outer"):
        first, second = scan(channel, "any"), scan(channel, "any")
        next(first)
        next(second)
        with spans.tracer.span("between"):
            pass
        list(first)
        list(second)
        with spans.tracer.span("after"):
            pass
    asking, answering = sides(spans, service, SCAN)
    (outer,) = spans.ended("outer")
    for inner in (*asking, *spans.ended("between"), *spans.ended("after")):
        assert is_child(inner, outer), inner.name
    assert len(asking) == len(answering) == 2


def test_a_stream_that_its_reader_leaves_ends_its_spans(spans: RecordedSpans, service: SmallService) -> None:
    with traced_channel(spans, service) as channel:
        stream = scan(channel, "endless")
        next(stream)
        del stream
        assert service.servicer.streams_ended.acquire(timeout=30)
    asking, answering = sides(spans, service, SCAN)
    assert (len(asking), len(answering)) == (1, 1)


def test_health_checks_are_in_no_trace(spans: RecordedSpans, service: SmallService) -> None:
    with grpc.insecure_channel(service.server.address) as channel:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    service.server.stop()
    assert spans.ended() == []


def test_a_span_around_what_fails_says_what_kind_of_error_it_was_and_no_more(spans: RecordedSpans) -> None:
    with pytest.raises(NotFound), spans.tracer.span("work", pool="p"):
        raise NotFound("item", "secret-item")
    (span,) = spans.ended("work")
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is None
    assert not span.events
    assert dict(span.attributes or {}) == {"sealpool.pool": "p", "error.type": "NotFound"}


def test_without_a_tracer_there_is_nothing(service: SmallService, spans: RecordedSpans) -> None:
    with NO_TRACING.span("work", pool="p"):
        assert NO_TRACING.here() is None
    assert NO_TRACING.interceptors(frozenset()) == ()
    assert spans.ended() == []
