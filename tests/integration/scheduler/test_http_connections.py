"""Connections to the HTTP front that ask nothing, or too slowly, and callers without a secret."""

import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import httpx
import pytest

from scheduler.http import connections
from scheduler.label_studio import routes
from tests.unit.scheduler.world import World, make_spec

HTTP = {"http_listen": "127.0.0.1:0"}


@contextmanager
def connected(world: World) -> Iterator[socket.socket]:
    host, _, port = world.scheduler.http_address.rpartition(":")
    with closing(socket.create_connection((host, int(port)), timeout=20)) as made:
        yield made


def read_to_the_end(made: socket.socket) -> bytes:
    content = b""
    while True:
        try:
            part = made.recv(4096)
        except ConnectionResetError:
            return content
        if not part:
            return content
        content += part


@pytest.mark.parametrize(
    "begun", [b"", b"GET /healthz HTTP/1.1\r\nHost: 1", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nG"]
)
def test_a_request_that_never_ends_is_not_waited_for(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.1)
    with connected(make_world(**HTTP)) as made:
        made.sendall(begun)
        assert (b"alive" in read_to_the_end(made)) == (b"\r\n\r\n" in begun)


def test_an_answer_may_take_longer_than_a_request(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.1)
    world = make_world(**HTTP, http_heartbeat_s=0.3)
    world.client.create_campaign(make_spec())
    with connected(world) as made:
        made.sendall(b"GET /v1/campaigns/c/events?after_sequence=9 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
        content = b""
        while b"still here" not in content:
            part = made.recv(4096)
            assert part
            content += part


def test_one_connection_too_many_is_closed(make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 1)
    world = make_world(**HTTP)
    with connected(world) as first:
        first.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
        assert b"200" in first.recv(4096)
        with connected(world) as second:
            assert read_to_the_end(second) == b""


def test_the_page_that_takes_a_token_can_be_in_no_other_page(make_world: Callable[..., World]) -> None:
    page = httpx.get(f"http://{make_world(**HTTP).scheduler.http_address}/docs")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["webhook", "ml/setup", "ml/predict"])
def test_nothing_is_read_of_what_a_stranger_sends_for_label_studio(make_world: Callable[..., World], path: str) -> None:
    with connected(make_world(**HTTP)) as made:
        head = f"POST /label-studio/c/{path} HTTP/1.1\r\nHost: 127.0.0.1:1\r\nContent-Length: 1000\r\n\r\n"
        made.sendall(head.encode())
        assert made.recv(4096).startswith(b"HTTP/1.1 401")


def test_the_body_of_a_webhook_has_to_come_in_time(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "BODY_S", 0.1)
    world = make_world(**HTTP)
    monkeypatch.setattr(world.scheduler.label_studio.calls, "check_secret", lambda _name, _secret: None)
    with connected(world) as made:
        head = "POST /label-studio/c/webhook HTTP/1.1\r\nHost: 127.0.0.1:1\r\nContent-Length: 1000\r\n\r\n"
        made.sendall(head.encode())
        assert made.recv(4096).startswith(b"HTTP/1.1 408")
