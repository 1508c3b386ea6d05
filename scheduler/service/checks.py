"""Checks of callers' short texts, and what callers are told of other services."""

from collections.abc import Iterator
from contextlib import contextmanager

from sealpool.errors import Cancelled, DeadlineExceeded, InvalidArgument, Unavailable


@contextmanager
def asking(service: str) -> Iterator[None]:
    """Turn our own deadline, and a call cut off while stopping, into Unavailable: the caller's time has not run out."""
    try:
        yield
    except (DeadlineExceeded, Cancelled) as error:
        raise Unavailable(f"{service} does not answer: {error.message}") from error


def check_text(field: str, value: str, *, max_bytes: int, min_bytes: int = 0) -> str:
    """Return `value` if it is that long and holds no NUL, which PostgreSQL cannot keep; InvalidArgument otherwise."""
    if not min_bytes <= len(value.encode()) <= max_bytes:
        raise InvalidArgument(field, f"has {len(value.encode()):,} bytes, not {min_bytes} to {max_bytes}")
    if "\0" in value:
        raise InvalidArgument(field, "holds a NUL character")
    return value


def check_annotator(annotator: str) -> str:
    """Return the name of an annotator, 1 to 128 bytes, or raise InvalidArgument."""
    return check_text("annotator", annotator, min_bytes=1, max_bytes=128)
