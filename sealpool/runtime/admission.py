"""Who is let in: permits for calls, and tokens."""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sealpool.errors import PermissionDenied, ResourceExhausted, SealpoolError, Unauthenticated, Unavailable
from sealpool.runtime.access import Access
from sealpool.runtime.token_book import TokenBook
from sealpool.runtime.tokens import Token

_RETRY_AFTER_S = 0.2
"""A permit comes free when any call ends; most take milliseconds, and clients wait longer each time."""


class Refusal(NamedTuple):
    """Why a call is refused before any work: for the metric, in one of a few words, and for the caller."""

    reason: str
    error: SealpoolError


class Admission:
    """Permits for calls: taken before any work, refused at once when there is none.

    Parameters
    ----------
    max_concurrent_calls
        How many there are; one more call is refused with RESOURCE_EXHAUSTED.
    max_calls_per_client
        How many of them one client has at most, so that the others find some left. None: all.
    """

    def __init__(self, max_concurrent_calls: int, *, max_calls_per_client: int | None = None) -> None:
        self._limit = max_concurrent_calls
        self._limit_per_client = max_calls_per_client or max_concurrent_calls
        self._changed = threading.Condition()
        self._taken = 0
        self._taken_by: Counter[str] = Counter()
        self._stopping = False

    def stop(self) -> None:
        """Refuse every call from now on with UNAVAILABLE. Those under way go on."""
        self._stopping = True

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping

    def take(self, client: str = "") -> Refusal | None:
        """Take a permit for a client, "" for one that nobody knows from others, or return why there is none."""
        with self._changed:
            if self._stopping:
                return Refusal("stopping", Unavailable("the service is stopping"))
            if self._taken >= self._limit:
                return Refusal("concurrency", _no_permit("one more call at once", self._limit, "max_concurrent_calls"))
            if client and self._taken_by[client] >= self._limit_per_client:
                what = "one more call of this client at once"
                return Refusal("client", _no_permit(what, self._limit_per_client, "max_calls_per_client"))
            self._taken += 1
            if client:
                self._taken_by[client] += 1
        return None

    def give_back(self, client: str = "") -> None:
        """Return a permit that this client took."""
        with self._changed:
            self._taken -= 1
            if client:
                self._taken_by[client] -= 1
                if not self._taken_by[client]:
                    del self._taken_by[client]
            if not self._taken:
                self._changed.notify_all()

    def wait_until_unused(self, timeout_s: float) -> bool:
        """Return True once every permit was given back, or False after so long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._taken, timeout_s)


class Gate:
    """Which token a call shows, and whether its role is enough.

    Parameters
    ----------
    tokens
        None lets everyone in who can connect.
    access
        What each method asks for.
    """

    def __init__(self, tokens: TokenBook, access: Mapping[str, Access]) -> None:
        self._tokens = tokens
        self._access = access

    def identify(self, method: str, metadata: Sequence[tuple[str, Any]]) -> Token | Refusal:
        """Return the token in a call's metadata, or why the call is refused."""
        header = next((str(value) for key, value in metadata if key == "authorization"), "")
        scheme, _, secret = header.partition(" ")
        if scheme.lower() != "bearer" or not secret:
            return _unauthenticated("no token: the metadata `authorization: Bearer <token>` is asked for")
        token = self._tokens.find(secret.strip())
        if token is None:
            return _unauthenticated("the token is not known, or has expired")
        needed = self._access[method].role
        if token.role < needed:
            problem = f"{method} needs the role {needed.word}, and token {token.name!r} has {token.role.word}"
            return Refusal("role", PermissionDenied(f"authorization: {problem}", field="authorization"))
        return token

    def check_pools(self, method: str, token: Token, request: Any) -> None:
        """Raise PermissionDenied unless the token is for the pools of a request, or of a stream's first message."""
        self._access[method].check(token, request)


def _no_permit(what: str, limit: int, setting: str) -> ResourceExhausted:
    return ResourceExhausted(what, limit=limit, setting=setting, retry_after_s=_RETRY_AFTER_S)


def _unauthenticated(problem: str) -> Refusal:
    return Refusal("unauthenticated", Unauthenticated(f"authorization: {problem}", field="authorization"))
