"""A client's calls as spans of the program that makes them."""

from typing import TYPE_CHECKING

from sealpool.errors import FailedPrecondition
from sealpool.runtime.tracing import CallTracer

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider


def client_tracer(provider: "TracerProvider") -> CallTracer:
    """Return what ClientOptions takes as `tracer`: each try of a call becomes a span, which the service's span follows.

    Not needed in a program that calls OpenTelemetry's GrpcInstrumentorClient: that instruments our channels too.

    Parameters
    ----------
    provider
        The program's own, which samples and exports: `opentelemetry.trace.get_tracer_provider()`, say.

    Raises
    ------
    FailedPrecondition
        The extra `tracing` is not installed.
    """
    try:
        from sealpool.runtime.tracing_opentelemetry import OpenTelemetryTracer
    except ImportError as error:
        raise FailedPrecondition(f"a client's tracer needs: pip install 'sealpool[tracing]' ({error})") from error
    return OpenTelemetryTracer(provider)
