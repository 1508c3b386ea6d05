"""What a cluster asks of a server: health on a port of its own, and connections that end so that others are found."""

import io
import threading
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from sealpool.client import ClientOptions, IndexClient
from sealpool.runtime.addresses import is_loopback
from sealpool.runtime.logs import make_logger
from sealpool.runtime.server import ServiceServer
from sealpool.runtime.settings import ServiceSettings
from sealpool.v1 import index_pb2, index_pb2_grpc
from tests.deploy.rolling_names import NameServer
from tests.support.processes import free_port

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Servicer(index_pb2_grpc.IndexServiceServicer):
    """Counts calls and the connections that they come over; one may be held."""

    def __init__(self) -> None:
        self.calls = 0
        self.peers: set[str] = set()
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def GetPool(self, request: index_pb2.GetPoolRequest, context: grpc.ServicerContext) -> index_pb2.GetPoolResponse:
        self.calls += 1
        self.peers.add(context.peer())
        return index_pb2.GetPoolResponse()

    def ScanItems(
        self, request: index_pb2.ScanItemsRequest, context: grpc.ServicerContext
    ) -> Iterator[index_pb2.ScanItemsResponse]:
        yield index_pb2.ScanItemsResponse(pool_version=1)
        self.entered.set()
        self.go_on.wait(20)
        yield index_pb2.ScanItemsResponse(pool_version=1)


class Served:
    """A server with that servicer, SERVING unless it is still to load."""

    def __init__(self, *, loading: bool = False, **settings: object) -> None:
        parsed = ServiceSettings.model_validate({"metrics_listen": "", **settings})
        self.servicer = Servicer()
        self.server = ServiceServer(
            parsed,
            service="index_server",
            descriptors=[index_pb2.DESCRIPTOR.services_by_name["IndexService"]],
            registry=CollectorRegistry(),
            log=make_logger(parsed, "index_server", stream=io.StringIO()),
        )
        index_pb2_grpc.add_IndexServiceServicer_to_server(self.servicer, self.server.grpc_server)
        self.server.start()
        if not loading:
            self.server.set_serving()

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *_: object) -> None:
        self.servicer.go_on.set()
        self.server.stop()


def probe(address: str, service: str = "") -> int:
    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=5).status)


def test_probes_have_a_port_of_their_own_that_knows_when_the_service_serves() -> None:
    with Served(loading=True, health_listen="127.0.0.1:0") as served:
        address = served.server.health_address
        assert address != served.server.address
        assert [probe(address), probe(address, "liveness")] == [NOT_SERVING, SERVING]
        served.server.set_serving()
        for port in (address, served.server.address):
            names = ("", "sealpool.v1.IndexService", "liveness")
            assert [probe(port, name) for name in names] == [SERVING] * 3
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
            index_pb2_grpc.IndexServiceStub(channel).GetPool(index_pb2.GetPoolRequest(name="x"), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_probes_are_answered_while_the_service_is_full_and_until_all_is_closed() -> None:
    with Served(health_listen="127.0.0.1:0", max_concurrent_calls=1, grace_s=5) as served:
        address = served.server.health_address
        said: list[int] = []
        served.server.on_drain(lambda: said.extend([probe(address), probe(address, "liveness")]))
        served.server.on_drain(served.servicer.go_on.set)
        served.server.on_close(lambda: said.extend([probe(address), probe(address, "liveness")]))
        with IndexClient(served.server.address, options=ClientOptions(retry_for_s=0)) as client:
            scan = client.scan_items("x")
            next(scan)
            assert probe(address) == SERVING
            served.server.stop()
            assert len(list(scan)) == 1
        assert said == [NOT_SERVING, SERVING] * 2
        with pytest.raises(grpc.RpcError):
            probe(address)


def test_probes_are_answered_beyond_loopback_and_the_service_itself_is_not() -> None:
    with Served(health_listen="0.0.0.0:0") as served:
        assert probe(served.server.health_address.replace("0.0.0.0", "127.0.0.1")) == SERVING


def test_a_health_port_that_is_taken_stops_the_start_with_one_line() -> None:
    with Served(health_listen="127.0.0.1:0") as served:
        taken = served.server.health_address
        with pytest.raises(SystemExit, match=f"cannot listen on health_listen={taken}"):
            Served(health_listen=taken)


def test_old_connections_are_replaced_and_no_call_notices() -> None:
    impatient = ClientOptions(retry_for_s=0)
    with Served(connection_age_s=0.2) as served, IndexClient(served.server.address, options=impatient) as client:
        scan = client.scan_items("x")
        next(scan)
        while len(served.servicer.peers) < 4:
            client.get_pool("x")
        served.servicer.go_on.set()
        assert len(list(scan)) == 1


def test_without_an_age_connections_stay() -> None:
    with Served() as served, IndexClient(served.server.address) as client:
        for _ in range(300):
            client.get_pool("x")
        assert len(served.servicer.peers) == 1


@pytest.fixture
def three() -> Iterator[list[Served]]:
    """Servers on one port of three hosts."""
    port = free_port()
    servers = [Served(listen=f"127.0.0.{host}:{port}") for host in (2, 3, 4)]
    yield servers
    for served in servers:
        served.server.stop()


def test_calls_are_spread_over_all_addresses_and_leave_out_a_dead_one(three: list[Served]) -> None:
    target = "ipv4:" + ",".join(served.server.address for served in three)
    assert is_loopback(target)
    assert not is_loopback(f"{target},10.0.0.1:7301")
    with IndexClient(target) as client:
        for _ in range(30):
            client.get_pool("x")
        # The first calls may find one connected alone.
        assert all(served.servicer.calls >= 5 for served in three)
        three[1].server.stop()
        before = [served.servicer.calls for served in three]
        for _ in range(30):
            client.get_pool("x")
        after = [served.servicer.calls - count for served, count in zip(three, before, strict=True)]
        assert after[1] == 0
        assert min(after[0], after[2]) >= 10


def test_a_service_that_comes_back_at_another_address_is_found_by_its_name(three: list[Served]) -> None:
    first, *others = three
    with NameServer() as names:
        names.set("index.test", ["127.0.0.2"])
        target = names.target("index.test", int(first.server.address.rpartition(":")[2]))
        with IndexClient(target, options=ClientOptions(retry_for_s=10)) as client:
            for host, served in zip((3, 4), others, strict=True):
                client.get_pool("x")
                names.set("index.test", [f"127.0.0.{host}"])
                three[host - 3].server.stop()
                client.get_pool("x")
                assert served.servicer.calls == 1
                served.servicer.calls -= 1


def test_more_servers_of_a_name_are_found_when_a_connection_grows_old() -> None:
    port = free_port()
    with NameServer() as names, Served(listen=f"127.0.0.2:{port}", connection_age_s=0.5):
        names.set("index.test", ["127.0.0.2"])
        with IndexClient(names.target("index.test", port)) as client:
            client.get_pool("x")
            with Served(listen=f"127.0.0.3:{port}") as more:
                names.set("index.test", ["127.0.0.2", "127.0.0.3"])
                while not more.servicer.calls:
                    client.get_pool("x")
