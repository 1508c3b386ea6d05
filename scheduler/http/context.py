"""A caller over HTTP, as the runtime and the servicers see callers."""

import threading
from collections.abc import Callable
from typing import Any

from starlette.requests import Request

from sealpool.runtime.request_ids import REQUEST_ID_KEY

_FOREVER_S = 100 * 365 * 86_400.0
"""As gRPC says "no deadline": a time far away."""


class HttpContext:
    """One call's caller: what of gRPC's ServicerContext the servicers use, and what the runtime asks of a peer.

    Safe to share between threads.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._left = False
        self.status: int | None = None
        """Of the answer, where HTTP has a word of its own for what the call ended in."""

    def metadata(self) -> list[tuple[str, Any]]:
        """Return the headers that say who calls, and under which id."""
        told = [("authorization", self._request.headers.get("authorization", ""))]
        if REQUEST_ID_KEY in self._request.headers:
            told.append((REQUEST_ID_KEY, self._request.headers[REQUEST_ID_KEY]))
        return told

    def invocation_metadata(self) -> list[tuple[str, Any]]:
        """Return the same under gRPC's name."""
        return self.metadata()

    def host(self) -> str:
        """Return where the caller is, as gRPC writes it: one client is one client over either."""
        host = self._request.client.host if self._request.client is not None else ""
        return f"ipv6:%5B{host}%5D" if ":" in host else f"ipv4:{host}"

    def is_active(self) -> bool:
        """Whether somebody still waits for the answer."""
        return not self._left

    def time_remaining(self) -> float:
        """Return the seconds until the caller's deadline: HTTP has none."""
        return _FOREVER_S

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call `callback` when the call has ended or its caller left; False if that is so already."""
        with self._lock:
            if not self._left:
                self._callbacks.append(callback)
            return not self._left

    def leave(self) -> None:
        """Note that nobody waits any more. Asking twice does no harm."""
        with self._lock:
            callbacks, self._callbacks, self._left = self._callbacks, [], True
        for callback in callbacks:
            callback()
