"""Calls of a campaign go to one of several servers, and to another one while that is away."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import grpc
import pytest

from sealpool.client import ClientOptions
from sealpool.client.connection import Connection
from sealpool.client.places import ROUND_ROBIN, Places, by_campaign

SERVERS, CAMPAIGNS = 3, 40


class Server:
    """Answers with its own address, or refuses as one that drains does."""

    def __init__(self) -> None:
        self.drains = False
        self.calls = 0
        self.grpc = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        handler = grpc.unary_unary_rpc_method_handler(self._answer)
        self.grpc.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Test", {"Ask": handler})])
        self.address = f"127.0.0.1:{self.grpc.add_insecure_port('127.0.0.1:0')}"
        self.grpc.start()

    def _answer(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        self.calls += 1
        if self.drains:
            context.abort(grpc.StatusCode.UNAVAILABLE, "drains")
        return self.address.encode()


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    made = [Server() for _ in range(SERVERS)]
    yield made
    for server in made:
        server.grpc.stop(0).wait()


@pytest.fixture
def ask(servers: list[Server]) -> Iterator[Callable[[str], str]]:
    """Call with a campaign's name; the address of the server that answered comes back."""
    target = "ipv4:" + ",".join(server.address for server in servers)
    with Connection(target, options=ClientOptions(affinity=True, timeout_s=20)) as connection:
        method, places = connection._channel.unary_unary("/test.Test/Ask"), Places()

        def call(campaign: str) -> str:
            def attempt(seconds: float) -> bytes:
                return places.call(campaign, lambda place: method(b"", timeout=seconds, metadata=place))

            return connection.call(attempt).decode()

        yield call


def homes(ask: Callable[[str], str]) -> list[str]:
    return [ask(f"campaign {number}") for number in range(CAMPAIGNS)]


def test_a_campaign_keeps_its_server_and_campaigns_are_spread(ask, servers: list[Server]) -> None:
    first = homes(ask)
    assert homes(ask) == first
    assert set(first) == {server.address for server in servers}


def test_only_the_campaigns_of_a_server_that_stopped_move(ask, servers: list[Server]) -> None:
    before = homes(ask)
    servers[0].grpc.stop(0).wait()
    after = homes(ask)
    gone = servers[0].address
    assert gone not in after
    assert [a for a, b in zip(after, before, strict=True) if b != gone] == [b for b in before if b != gone]


def test_a_server_that_drains_is_asked_once_and_left_alone_for_a_while(ask, servers: list[Server]) -> None:
    before = homes(ask)
    servers[0].drains = True
    refused_before = servers[0].calls
    for _ in range(3):
        assert servers[0].address not in homes(ask)
    own = before.count(servers[0].address)
    # Each of its campaigns found out, some more than once: another place may be on the same server. Not each time.
    assert own <= servers[0].calls - refused_before < 2 * own + CAMPAIGNS


def test_a_name_that_no_service_would_take_is_the_service_s_to_refuse(ask) -> None:
    for name in ("", "ü\n", "x" * 100_000):
        assert ask(name)


def test_calls_go_round_where_the_environment_turns_the_switch_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_EXPERIMENTAL_RING_HASH_SET_REQUEST_HASH_KEY", "false")
    assert by_campaign() == ROUND_ROBIN


class AwayError(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


def test_a_detour_ends_after_a_while_and_is_one_campaign_s_alone() -> None:
    time = SimpleNamespace(s=100.0)
    places = Places(clock=lambda: time.s)

    def where(campaign: str, code: grpc.StatusCode | None = None, seconds: float = 0) -> str:
        seen = []

        def make(place) -> None:
            time.s += seconds
            seen.append(dict(place)["sealpool-campaign"])
            if code is not None:
                raise AwayError(code)

        if code is None:
            places.call(campaign, make)
        else:
            with pytest.raises(AwayError):
                list(places.stream(campaign, lambda place: iter([make(place)])))
        return seen[0]

    assert where("a", grpc.StatusCode.NOT_FOUND) == "a"
    assert where("a", grpc.StatusCode.UNAVAILABLE) == "a"
    assert where("a", grpc.StatusCode.DEADLINE_EXCEEDED) == "a/1"
    assert (where("a"), where("b")) == ("a/2", "b")
    time.s += 9
    assert where("a") == "a/2"
    time.s += 2
    assert where("a") == "a"
    assert where("a", grpc.StatusCode.DEADLINE_EXCEEDED, seconds=60) == "a"  # it hangs, and may for longer
    time.s += 59
    assert where("a") == "a/1"
    time.s += 2
    assert where("a", grpc.StatusCode.UNAVAILABLE, seconds=60) == "a"
    time.s += 11
    assert where("a") == "a"


def test_a_call_that_fails_late_does_not_lead_back_to_a_place_that_was_left() -> None:
    places, seen = Places(clock=lambda: 0.0), []

    def fail(place) -> None:
        seen.append(dict(place)["sealpool-campaign"])
        raise AwayError(grpc.StatusCode.UNAVAILABLE)

    def meanwhile(place) -> None:
        for _ in range(2):
            with pytest.raises(AwayError):
                places.call("a", fail)
        fail(place)

    with pytest.raises(AwayError):
        places.call("a", meanwhile)
    with pytest.raises(AwayError):
        places.call("a", fail)
    assert seen == ["a", "a/1", "a", "a/2"]
