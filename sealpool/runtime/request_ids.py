"""The id under which one request is found in the logs of every service that had a part in it.

Not to be mixed up with `request_id` in a message, which makes trying again harmless.
"""

import random
import re
from collections.abc import Iterable
from contextvars import ContextVar
from functools import cache
from typing import Any, Final

REQUEST_ID_KEY: Final = "x-request-id"
"""Of metadata and HTTP headers."""

REQUEST_ID: ContextVar[str] = ContextVar("sealpool_request_id", default="")
"""Of what this thread works for; "" outside any request. Work handed to another thread takes it along in a copy of the
context."""

_SANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,63}")


def make_request_id() -> str:
    """Return an id that nobody else has."""
    return f"{_randomness().getrandbits(128):032x}"


def request_id_in(metadata: Iterable[tuple[str, Any]]) -> str:
    """Return the id that a caller sent, or one of our own where it sent none, or one not fit for a log."""
    for key, value in metadata:
        if key == REQUEST_ID_KEY:
            return value if isinstance(value, str) and _SANE.fullmatch(value) else make_request_id()
    return make_request_id()


@cache
def _randomness() -> random.Random:
    # Of its own, because models seed the shared one. Asking the system each time, as uuid4 does, was half of what ids
    # cost a call.
    return random.Random()  # noqa: S311 - no secret
