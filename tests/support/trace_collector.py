"""A collector of traces as services know it: OTLP's TraceService, in this process."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

ENOUGH_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Received:
    """One span, and the resource that made it."""

    span: trace_pb2.Span
    resource: dict[str, str]

    @property
    def service(self) -> str:
        return self.resource["service.name"]

    @property
    def name(self) -> str:
        return self.span.name

    @property
    def trace(self) -> str:
        return self.span.trace_id.hex()

    @property
    def attributes(self) -> dict[str, object]:
        return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in self.span.attributes}


class TraceCollector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what services send to `address`. A context manager."""

    def __init__(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(4))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self._changed = threading.Condition()
        self._received: list[Received] = []

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        with self._changed:
            for group in request.resource_spans:
                resource = {one.key: one.value.string_value for one in group.resource.attributes}
                self._received += [
                    Received(span=span, resource=resource) for scope in group.scope_spans for span in scope.spans
                ]
            self._changed.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    def spans(self) -> list[Received]:
        with self._changed:
            return list(self._received)

    def wait_for(self, found: Callable[[Sequence[Received]], bool]) -> list[Received]:
        """Return all spans once `found` is true of them."""
        with self._changed:
            if not self._changed.wait_for(lambda: found(self._received), ENOUGH_S):
                raise AssertionError(f"not among {sorted({(one.service, one.name) for one in self._received})}")
            return list(self._received)


def parent_of(one: Received, spans: Sequence[Received]) -> Received | None:
    """Return the span that `one` is a child of, None for a root."""
    if not one.span.parent_span_id:
        return None
    return next(other for other in spans if other.span.span_id == one.span.parent_span_id)


def lineage(one: Received, spans: Sequence[Received]) -> list[tuple[str, str]]:
    """Return (service, name) of a span, of its parent, and so on up to the root."""
    told = []
    above: Received | None = one
    while above is not None:
        told.append((above.service, above.name))
        above = parent_of(above, spans)
    return told
