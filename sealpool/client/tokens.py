"""Sending a token, and a request id, with every call."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from sealpool.client.options import ClientOptions
from sealpool.errors import InvalidArgument
from sealpool.runtime.request_ids import REQUEST_ID_KEY

_LOOK_EVERY_S = 1.0


def token_source(options: ClientOptions) -> Callable[[], str] | None:
    """Return what gives the token to send, or None if there is none.

    Raises
    ------
    InvalidArgument
        Metadata cannot hold it: it is empty, or has other characters than printable ASCII.
    OSError
        The token's file cannot be read.
    """
    if options.token_file is not None:
        return _TokenFile(options.token_file)
    token = os.environ.get("SEALPOOL_TOKEN", "") if options.token is None else options.token
    if not token:
        return None
    _check(token, "token")
    return lambda: token


class MetadataSender(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds the token, and the request id unless it is "", to the metadata of each call."""

    def __init__(self, *, token: Callable[[], str] | None, request_id: Callable[[], str] | None) -> None:
        self._token = token
        self._request_id = request_id

    def _send(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        metadata = list(details.metadata or ())
        if self._token is not None:
            metadata.append(("authorization", f"Bearer {self._token()}"))
        request_id = self._request_id() if self._request_id is not None else ""
        if request_id:
            metadata.append((REQUEST_ID_KEY, request_id))
        return continuation(_Details(details, tuple(metadata)), request)

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Add them."""
        return self._send(continuation, client_call_details, request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Add them."""
        return self._send(continuation, client_call_details, request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Add them."""
        return self._send(continuation, client_call_details, request_iterator)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Add them."""
        return self._send(continuation, client_call_details, request_iterator)


class _Details(grpc.ClientCallDetails):
    def __init__(self, details: grpc.ClientCallDetails, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        self.method = details.method
        self.timeout = details.timeout
        self.metadata = metadata
        self.credentials = details.credentials
        self.wait_for_ready = details.wait_for_ready
        self.compression = details.compression


class _TokenFile:
    """The token in a file. One that cannot be read, or is empty, leaves the token as it was."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = self._read()
        self._read_at = time.monotonic()
        self._reading = threading.Lock()

    def __call__(self) -> str:
        if time.monotonic() - self._read_at >= _LOOK_EVERY_S and self._reading.acquire(blocking=False):
            try:
                self._read_at = time.monotonic()
                self._token = self._read()
            except (OSError, InvalidArgument):
                pass  # it is being replaced; a wrong token shows in the next call's UNAUTHENTICATED
            finally:
                self._reading.release()
        return self._token

    def _read(self) -> str:
        token = self._path.read_text(errors="replace").strip()
        _check(token, "token_file")
        return token


def _check(token: str, field: str) -> None:
    if not token or not token.isascii() or not token.isprintable():
        raise InvalidArgument(field, "a token is one line of printable ASCII")
