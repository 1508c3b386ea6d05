"""The connections to one endpoint: bounded in what comes over them, and cut when there is no more time."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any
from weakref import WeakSet

from openai import DefaultHttpxClient

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""Of the body of an answer; ours have a few hundred."""
_OPENED = ("connection.connect_tcp.complete", "connection.start_tls.complete")
_UNTIL = "sealpool_until"


class Connections:
    """Opens the connections of one client, and knows their sockets. Any thread may use it.

    Parameters
    ----------
    timeout_s
        For a whole answer. The client's own is for each of its parts: an endpoint that sends a blank now and then, as
        some do while a request waits in line, would never end.
    """

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._is_cut = False
        self.client = DefaultHttpxClient(event_hooks={"request": [self._prepare], "response": [self._bound]})
        self._bounded = _bounded_stream()

    def cut(self) -> None:
        """End every connection: who waits for an answer is told that it broke. There are no others afterwards."""
        with self._lock:
            self._is_cut = True
            for each in list(self._sockets):
                _shut(each)

    def _prepare(self, request: Any) -> None:
        until = time.monotonic() + self._timeout_s
        request.extensions = {**request.extensions, "trace": self._note, _UNTIL: until}

    def _note(self, event: str, told: dict[str, Any]) -> None:
        if event not in _OPENED:
            return
        opened = told["return_value"].get_extra_info("socket")
        with self._lock:
            self._sockets.add(opened)
            if self._is_cut:
                _shut(opened)

    def _bound(self, response: Any) -> None:
        response.stream = self._bounded(response.stream, until=response.request.extensions[_UNTIL])


def _bounded_stream() -> Any:
    """Return the class of a body that ends in time and in size.

    It has to be made: openai has changed from httpx to a fork of it, and either wants streams of its own.
    """
    library = import_module(DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])

    class Bounded(library.SyncByteStream):  # type: ignore[misc,name-defined]
        def __init__(self, stream: Any, *, until: float) -> None:
            self._stream = stream
            self._until = until

        def __iter__(self) -> Iterator[bytes]:
            left = MAX_ANSWER_BYTES
            for part in self._stream:
                left -= len(part)
                if left < 0:
                    raise library.ReadError(f"the answer has over {MAX_ANSWER_BYTES:,} bytes")
                if time.monotonic() > self._until:
                    raise library.ReadTimeout("the answer did not end in time")
                yield part

        def close(self) -> None:
            self._stream.close()

    return Bounded


def _shut(opened: socket.socket) -> None:
    # Closing would not wake a thread that reads. Not the method of a TLS socket, which forgets its session first.
    with suppress(OSError):
        socket.socket.shutdown(opened, socket.SHUT_RDWR)
