"""A server stops though clients cancelled calls the moment they began."""

import io
import socket
import struct
import threading
from contextlib import ExitStack

from prometheus_client import CollectorRegistry

from sealpool.runtime.logs import make_logger
from sealpool.runtime.server import ServiceServer
from sealpool.runtime.settings import ServiceSettings
from sealpool.v1 import index_pb2, index_pb2_grpc

GRACE_S = 60.0
HEADERS, RST_STREAM, SETTINGS, END_HEADERS = 1, 3, 4, 4
CANCEL = struct.pack(">I", 8)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """Return a header as HPACK writes it without a table: RFC 7541, 6.2.2."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def a_call_begun_and_cancelled(path: bytes) -> bytes:
    """Return what a client sends that begins a call and cancels it, in one packet."""
    names = {b":method": b"POST", b":scheme": b"http", b":path": path, b":authority": b"x", b"te": b"trailers"}
    headers = b"".join(literal(*pair) for pair in {**names, b"content-type": b"application/grpc"}.items())
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0)
    return preface + frame(HEADERS, END_HEADERS, 1, headers) + frame(RST_STREAM, 0, 1, CANCEL)


def test_a_server_does_not_wait_for_calls_that_were_cancelled_as_they_began() -> None:
    settings = ServiceSettings(metrics_listen="", grace_s=GRACE_S)
    service = index_pb2.DESCRIPTOR.services_by_name["IndexService"]
    server = ServiceServer(
        settings,
        service="index_server",
        descriptors=[service],
        registry=CollectorRegistry(),
        log=make_logger(settings, "index_server", stream=io.StringIO()),
    )
    index_pb2_grpc.add_IndexServiceServicer_to_server(index_pb2_grpc.IndexServiceServicer(), server.grpc_server)
    server.start()
    host, _, port = server.address.rpartition(":")
    closed = threading.Event()
    server.on_close(closed.set)
    with ExitStack() as connections:
        for _ in range(30):
            connection = connections.enter_context(socket.create_connection((host, int(port))))
            connection.sendall(a_call_begun_and_cancelled(f"/{service.full_name}/GetPool".encode()))
            connection.recv(1)  # the server has read it, or is about to
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        in_time = closed.wait(GRACE_S / 3)
    stopping.join()
    assert in_time
