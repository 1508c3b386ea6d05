"""A name server for tests: what a cluster's does for headless services, with names that move."""

import socket
import struct
import threading
from collections.abc import Iterable

_HEADER = struct.Struct(">HHHHHH")
_RECORD = struct.Struct(">HHHIH4s")
_ASKED_NAME = 0xC00C
"""A pointer to the name in the question."""
_A, _INTERNET = 1, 1


class NameServer:
    """Answers who asks for the IPv4 addresses of a name, over UDP on loopback. A context manager."""

    def __init__(self) -> None:
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, name="names")
        self.asked = 0

    def target(self, name: str, port: int) -> str:
        """Return what a client connects to for a port of a name of ours."""
        host, own_port = self._socket.getsockname()
        return f"dns://{host}:{own_port}/{name}:{port}"

    def set(self, name: str, addresses: Iterable[str]) -> None:
        """Let a name stand for other addresses from now on."""
        self._addresses[name] = tuple(addresses)

    def __enter__(self) -> "NameServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # An empty datagram from the thread's own socket ends it.
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, asker = self._socket.recvfrom(512)
            if not query:
                return
            self.asked += 1
            self._socket.sendto(self._answer(query), asker)

    def _answer(self, query: bytes) -> bytes:
        number, *_ = _HEADER.unpack_from(query)
        labels: list[str] = []
        at = _HEADER.size
        while size := query[at]:
            labels.append(query[at + 1 : at + 1 + size].decode())
            at += 1 + size
        kind, _ = struct.unpack_from(">HH", query, at + 1)
        found = self._addresses.get(".".join(labels)) if kind == _A else ()
        flags = 0x8400 if found is not None else 0x8403  # an answer with authority; no such name
        records = [_RECORD.pack(_ASKED_NAME, _A, _INTERNET, 0, 4, socket.inet_aton(address)) for address in found or ()]
        question = query[_HEADER.size : at + 5]
        return _HEADER.pack(number, flags, 1, len(records), 0, 0) + question + b"".join(records)
