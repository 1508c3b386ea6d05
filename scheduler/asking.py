"""What callers are told of other services."""

from collections.abc import Iterator
from contextlib import contextmanager

from sealpool.errors import Cancelled, DeadlineExceeded, Unavailable


@contextmanager
def asking(service: str) -> Iterator[None]:
    """Turn our own deadline, and a call cut off while stopping, into Unavailable: the caller's time has not run out."""
    try:
        yield
    except (DeadlineExceeded, Cancelled) as error:
        raise Unavailable(f"{service} does not answer: {error.message}") from error
