"""The runtime around a call, seen through the client, over a real connection."""

import io
import json
import signal
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from prometheus_client import CollectorRegistry

from sealpool.client import ClientOptions, IndexClient
from sealpool.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from sealpool.runtime.logs import make_logger
from sealpool.runtime.server import ServiceServer
from sealpool.runtime.settings import ServiceSettings
from sealpool.v1 import index_pb2, index_pb2_grpc


class Servicer(index_pb2_grpc.IndexServiceServicer):
    """Answers as the pool's name asks it to."""

    def __init__(self) -> None:
        self.calls = 0
        self.entered = threading.Semaphore(0)
        self.go_on = threading.Event()

    def GetPool(self, request: index_pb2.GetPoolRequest, context: grpc.ServicerContext) -> index_pb2.GetPoolResponse:
        self.calls += 1
        if request.name == "bug":
            raise ZeroDivisionError("of the service's own")
        if request.name == "missing":
            raise NotFound("pool", request.name)
        if request.name.startswith("long"):
            raise NotFound("pool", request.name, field=request.name)
        if request.name == "twice-away" and self.calls < 3:
            raise Unavailable("loading")
        if request.name == "away":
            raise Unavailable("loading")
        if request.name == "wait":
            self.entered.release()
            self.go_on.wait(10)
        return index_pb2.GetPoolResponse(pool=index_pb2.Pool(version=self.calls))

    def ScanItems(
        self, request: index_pb2.ScanItemsRequest, context: grpc.ServicerContext
    ) -> Iterator[index_pb2.ScanItemsResponse]:
        yield index_pb2.ScanItemsResponse(pool_version=1)
        if request.pool == "wait":
            self.entered.release()
            self.go_on.wait(10)
        raise InvalidArgument("pool", "breaks in the middle")


class Running:
    """A server with the servicer above, its log and its registry."""

    def __init__(self, **settings: object) -> None:
        self.settings = ServiceSettings.model_validate({"log_level": "debug", **settings})
        self.log = io.StringIO()
        self.servicer = Servicer()
        self.server = ServiceServer(
            self.settings,
            service="index_server",
            descriptors=[index_pb2.DESCRIPTOR.services_by_name["IndexService"]],
            registry=CollectorRegistry(),
            log=make_logger(self.settings, "index_server", stream=self.log),
        )
        index_pb2_grpc.add_IndexServiceServicer_to_server(self.servicer, self.server.grpc_server)
        self.server.start()
        self.server.set_serving()

    def client(self, **options: float) -> IndexClient:
        return IndexClient(self.server.address, options=ClientOptions(**{"retry_for_s": 5, **options}))  # type: ignore[arg-type]

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://{self.server.metrics_address}/metrics") as answer:
            return str(answer.read().decode())

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Start servers that are stopped at the end of the test."""
    started: list[Running] = []

    def begin(**settings: object) -> Running:
        started.append(Running(**settings))
        return started[-1]

    yield begin
    for running in started:
        running.servicer.go_on.set()
        running.server.stop()


def test_an_error_comes_back_as_the_same_error_with_its_field(start: Callable[..., Running]) -> None:
    with start().client() as client, pytest.raises(NotFound, match="no such pool: 'missing'") as caught:
        client.get_pool("missing")
    assert caught.value.field == "pool"


@pytest.mark.parametrize("character", ["x", "ü", "%", "\n"])
def test_an_error_comes_back_though_its_message_is_too_long_to_be_sent(
    start: Callable[..., Running], character: str
) -> None:
    with start().client() as client, pytest.raises(NotFound, match="no such pool: 'long"):
        client.get_pool("long" + character * 100_000)


def test_an_error_in_the_middle_of_a_stream_comes_after_what_was_sent(start: Callable[..., Running]) -> None:
    with start().client() as client:
        items = client.scan_items("x")
        assert next(items).ids == []
        with pytest.raises(InvalidArgument, match="breaks in the middle"):
            next(items)


def test_a_fault_of_ours_shows_an_id_and_no_traceback_and_the_log_has_both(start: Callable[..., Running]) -> None:
    running = start()
    with running.client() as client, pytest.raises(InternalError) as caught:
        client.get_pool("bug")
    assert "ZeroDivisionError" not in caught.value.message
    (line,) = [line for line in running.lines() if line["event"] == "call failed"]
    assert str(line["fault"]) in caught.value.message
    assert "ZeroDivisionError" in str(line["exception"])


def test_an_idempotent_call_is_tried_again_while_unavailable(start: Callable[..., Running]) -> None:
    running = start()
    with running.client() as client:
        assert client.get_pool("twice-away").version == 3


def test_trying_again_ends(start: Callable[..., Running]) -> None:
    running = start()
    with running.client(retry_for_s=0.2) as client, pytest.raises(Unavailable, match="loading"):
        client.get_pool("away")
    assert running.servicer.calls > 1


def test_a_call_on_a_closed_client_is_cancelled(start: Callable[..., Running]) -> None:
    client = start().client()
    client.close()
    with pytest.raises(Cancelled, match="is closed"):
        client.get_pool("x")


@pytest.mark.parametrize("retry_for_s", [0, 5])
def test_closing_a_client_ends_the_calls_of_other_threads_as_cancelled(
    start: Callable[..., Running], retry_for_s: float
) -> None:
    running = start()
    client = running.client(retry_for_s=retry_for_s)
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(client.get_pool, "wait")
        watching = threads.submit(lambda: list(client.scan_items("wait")))
        for _ in range(2):
            assert running.servicer.entered.acquire(timeout=5)
        client.close()
        for call in (waiting, watching):
            with pytest.raises(Cancelled):
                call.result(5)


def test_a_stream_that_is_waited_for_ends_at_control_c(start: Callable[..., Running]) -> None:
    running = start()
    with running.client() as client:
        items = client.scan_items("wait")
        next(items)
        threading.Timer(0.2, signal.raise_signal, (signal.SIGINT,)).start()
        with pytest.raises(KeyboardInterrupt):
            next(items)


def test_a_deadline_is_kept(start: Callable[..., Running]) -> None:
    with start().client(timeout_s=0.2) as client, pytest.raises(DeadlineExceeded):
        client.get_pool("wait")


def test_one_call_too_many_is_refused_at_once_and_counted(start: Callable[..., Running]) -> None:
    running = start(max_concurrent_calls=1)
    with running.client(retry_for_s=0) as client:
        waiting = threading.Thread(target=client.get_pool, args=("wait",))
        waiting.start()
        running.servicer.entered.acquire(timeout=5)
        with pytest.raises(ResourceExhausted, match="max_concurrent_calls") as caught:
            client.get_pool("x")
        assert caught.value.retry_after_s
        assert _health(running.server.address) == health_pb2.HealthCheckResponse.SERVING
        running.servicer.go_on.set()
        waiting.join()
        assert client.get_pool("x").version == 2
    assert 'sealpool_index_server_refusals_total{reason="concurrency"} 1.0' in running.metrics()


def test_calls_are_counted_by_method_and_status(start: Callable[..., Running]) -> None:
    running = start()
    with running.client() as client:
        client.get_pool("x")
        with pytest.raises(NotFound):
            client.get_pool("missing")
    metrics = running.metrics()
    assert 'sealpool_index_server_requests_total{code="OK",method="GetPool"} 1.0' in metrics
    assert 'sealpool_index_server_requests_total{code="NOT_FOUND",method="GetPool"} 1.0' in metrics
    assert 'sealpool_index_server_request_seconds_count{method="GetPool"} 2.0' in metrics
    assert 'sealpool_index_server_requests_in_progress{method="GetPool"} 0.0' in metrics


def test_a_stream_whose_reader_leaves_gives_its_permit_back(start: Callable[..., Running]) -> None:
    running = start(max_concurrent_calls=1)
    with running.client() as client:
        items = client.scan_items("x")
        next(items)
        items.close()  # type: ignore[attr-defined]
        del items
        assert _eventually(lambda: _answers(client))


def test_stopping_lets_calls_under_way_end_and_runs_the_stages_in_order(start: Callable[..., Running]) -> None:
    running = start(grace_s=10)
    stages: list[str] = []
    running.server.on_drain(lambda: (stages.append("drain"), running.servicer.go_on.set()))  # type: ignore[arg-type]
    running.server.on_close(lambda: stages.append("close store"))
    running.server.on_close(lambda: stages.append("close index"))
    answers: list[int] = []
    with running.client() as client:
        waiting = threading.Thread(target=lambda: answers.append(client.get_pool("wait").version))
        waiting.start()
        running.servicer.entered.acquire(timeout=5)
        running.server.stop()
        waiting.join()
    running.server.stop()
    assert answers == [1]
    assert stages == ["drain", "close index", "close store"]


def test_a_call_that_outlasts_the_grace_is_cancelled(start: Callable[..., Running]) -> None:
    running = start(grace_s=0.1)
    errors: list[Exception] = []

    def call(client: IndexClient) -> None:
        try:
            client.get_pool("wait")
        except (Unavailable, Cancelled) as error:
            errors.append(error)

    with running.client(retry_for_s=0) as client:
        waiting = threading.Thread(target=call, args=(client,))
        waiting.start()
        running.servicer.entered.acquire(timeout=5)
        running.server.stop()
        waiting.join()
    assert len(errors) == 1


def test_sigterm_stops_the_server(start: Callable[..., Running]) -> None:
    running = start()
    threading.Timer(0.2, signal.raise_signal, (signal.SIGTERM,)).start()
    running.server.wait_until_stopped()
    with running.client(retry_for_s=0) as client, pytest.raises(Unavailable):
        client.get_pool("x")


def test_health_says_not_serving_until_ready_and_knows_the_service_by_name() -> None:
    settings = ServiceSettings(metrics_listen="")
    server = ServiceServer(
        settings,
        service="index_server",
        descriptors=[index_pb2.DESCRIPTOR.services_by_name["IndexService"]],
        registry=CollectorRegistry(),
        log=make_logger(settings, "index_server", stream=io.StringIO()),
    )
    server.start()
    assert _health(server.address) == health_pb2.HealthCheckResponse.NOT_SERVING
    server.set_serving()
    assert _health(server.address) == health_pb2.HealthCheckResponse.SERVING
    assert _health(server.address, "sealpool.v1.IndexService") == health_pb2.HealthCheckResponse.SERVING
    server.stop()
    assert server.metrics_address == ""


def test_reflection_names_our_service_and_describes_its_calls(start: Callable[..., Running]) -> None:
    with grpc.insecure_channel(start().server.address) as channel:
        reflected = ProtoReflectionDescriptorDatabase(channel)
        assert "sealpool.v1.IndexService" in reflected.get_services()
        file = reflected.FindFileContainingSymbol("sealpool.v1.IndexService")
        assert "ExpandCandidates" in {method.name for method in file.service[0].method}


@pytest.mark.parametrize("setting", ["listen", "metrics_listen"])
def test_a_taken_port_stops_the_start_with_one_line(start: Callable[..., Running], setting: str) -> None:
    server = start().server
    taken = {"listen": server.address, "metrics_listen": server.metrics_address}[setting]
    with pytest.raises(SystemExit, match=f"cannot listen on {setting}={taken}"):
        start(**{setting: taken})


def test_a_start_that_fails_ends_what_works_in_the_background(start: Callable[..., Running]) -> None:
    settings = ServiceSettings(listen=start().server.address, metrics_listen="")
    server = ServiceServer(
        settings,
        service="index_server",
        descriptors=[index_pb2.DESCRIPTOR.services_by_name["IndexService"]],
        registry=CollectorRegistry(),
        log=make_logger(settings, "index_server", stream=io.StringIO()),
    )
    ended: list[str] = []
    server.on_drain(lambda: ended.append("background"))
    server.on_close(lambda: ended.append("store"))
    with pytest.raises(SystemExit):
        server.start()
    assert ended == ["background", "store"]


def _health(address: str, service: str = "") -> int:
    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=5).status)


def _answers(client: IndexClient) -> bool:
    try:
        client.get_pool("x")
    except ResourceExhausted:
        return False
    return True


def _eventually(condition: Callable[[], bool]) -> bool:
    pause = threading.Event()
    return any(condition() or pause.wait(0.02) for _ in range(250))
