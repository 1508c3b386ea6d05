"""Who waits for an answer, as domain code sees it: how long still, and whether at all. Imports no gRPC."""

import time
from contextvars import ContextVar
from typing import TYPE_CHECKING

from sealpool.errors import Cancelled, DeadlineExceeded
from sealpool.runtime.tokens import Token

if TYPE_CHECKING:
    import grpc

_FOREVER_S = 10 * 365 * 86_400.0
"""gRPC says "no deadline" as a time far away."""

TOKEN_OF_CALL: ContextVar[Token | None] = ContextVar("token of the call", default=None)
"""The token of the call that this thread serves; set by the runtime when the call begins."""


class Caller:
    """One call's caller. Safe to share between threads, and cheap enough to ask in a loop.

    Parameters
    ----------
    remaining_s
        Seconds that the caller waits from now on, None for any time.
    token
        What the caller showed; None where none is asked for.
    """

    __slots__ = ("_deadline", "_gone", "_token")

    def __init__(self, *, remaining_s: float | None = None, token: Token | None = None) -> None:
        self._deadline = None if remaining_s is None else time.monotonic() + remaining_s
        self._gone = False
        self._token = token

    def remaining_s(self) -> float | None:
        """Return the seconds until the deadline, 0 when it has passed, None where there is none."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def is_gone(self) -> bool:
        """Whether nobody waits any more: the caller left, or the deadline has passed."""
        return self._gone or (self._deadline is not None and time.monotonic() >= self._deadline)

    def check(self) -> None:
        """Go on only if the caller still waits.

        Raises
        ------
        DeadlineExceeded
            The caller's time ran out.
        Cancelled
            The caller left.
        """
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise DeadlineExceeded("the caller's time ran out")
        if self._gone:
            raise Cancelled("the caller left")

    def may_use(self, pool: str) -> bool:
        """Whether the caller's token is for a pool: lists leave out what it is not for."""
        return self._token is None or self._token.may_use(pool)

    def leave(self) -> None:
        """Note that nobody waits any more."""
        self._gone = True


NO_CALLER = Caller()
"""For work of our own: it always waits, and may use every pool. Nobody calls its `leave`."""


def caller_of(context: "grpc.ServicerContext") -> Caller:
    """Return the caller of a call. To be asked in the thread that gRPC calls the servicer in."""
    remaining_s = context.time_remaining()
    caller = Caller(remaining_s=remaining_s if remaining_s < _FOREVER_S else None, token=TOKEN_OF_CALL.get())
    if not context.add_callback(caller.leave):
        caller.leave()
    return caller
