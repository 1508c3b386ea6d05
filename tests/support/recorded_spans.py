"""A tracer whose spans can be looked at as they end."""

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sealpool.runtime.tracing_opentelemetry import OpenTelemetryTracer


class RecordedSpans:
    """Spans in the order that they ended, and the `tracer` that makes them."""

    def __init__(self) -> None:
        self._ended = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._ended))
        self.tracer = OpenTelemetryTracer(provider)

    def ended(self, name: str = "") -> list[ReadableSpan]:
        """Return the spans whose name ends so."""
        return [span for span in self._ended.get_finished_spans() if span.name.endswith(name)]


def id_of(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


def trace_of(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id


def is_child(span: ReadableSpan, of: ReadableSpan) -> bool:
    return span.parent is not None and span.parent.span_id == id_of(of) and trace_of(span) == trace_of(of)
