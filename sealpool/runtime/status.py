"""The one table from errors to gRPC status."""

from itertools import accumulate
from typing import Final

import grpc

from sealpool import errors

_MAX_DETAILS_BYTES: Final = 4096
"""Of an error's message as HTTP/2 carries it. All metadata of a call's end together may take 8 KiB: above that gRPC's
clients drop some of them, and above 16 KiB all, and tell their caller of that and not of the error."""
_MAX_FIELD_CHARACTERS: Final = 200

STATUS_OF: dict[type[errors.SealpoolError], grpc.StatusCode] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}


def status_of(error: errors.SealpoolError) -> grpc.StatusCode:
    """Return the status of an error, or of the nearest class above it in the tree."""
    for cls in type(error).__mro__:
        if cls in STATUS_OF:
            return STATUS_OF[cls]
    return grpc.StatusCode.INTERNAL


def details_of(error: errors.SealpoolError) -> str:
    """Return the message of an error, cut where it would be too long to be sent."""
    content = error.message[:_MAX_DETAILS_BYTES].encode("utf-8", "backslashreplace")
    # gRPC percent-encodes it: a byte that is not printable ASCII takes three.
    sizes = accumulate(1 if 0x20 <= byte < 0x7F and byte != ord("%") else 3 for byte in content)
    fitting = sum(size <= _MAX_DETAILS_BYTES for size in sizes)
    cut = fitting < len(content) or len(error.message) > _MAX_DETAILS_BYTES
    return content[:fitting].decode(errors="ignore") + "…" * cut


def trailing_metadata_of(error: errors.SealpoolError, *, stopping: bool = False) -> tuple[tuple[str, str], ...]:
    """Return what tells a client the kind of error, the field at fault, when to try again, and if the service stops.

    `grpc-retry-pushback-ms` says that to clients whose gRPC tries again by itself, of any language.
    """
    kind = next((cls.__name__ for cls in type(error).__mro__ if cls in STATUS_OF), "InternalError")
    metadata = [("sealpool-error", kind)]
    if stopping:
        metadata.append(("sealpool-stopping", "true"))
    if error.field and error.field.isascii() and error.field.isprintable():
        metadata.append(("sealpool-field", error.field[:_MAX_FIELD_CHARACTERS]))
    if isinstance(error, errors.ResourceExhausted | errors.Unavailable) and error.retry_after_s is not None:
        metadata.append(("sealpool-retry-after-seconds", f"{error.retry_after_s:.3f}"))
        metadata.append(("grpc-retry-pushback-ms", str(round(1000 * error.retry_after_s))))
    return tuple(metadata)
