"""Callers that wait, leave, stall or come too often, over real connections."""

import io
import queue
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from sealpool.client import ClientOptions, IndexClient
from sealpool.errors import Cancelled, DeadlineExceeded, ResourceExhausted, SealpoolError, Unavailable
from sealpool.runtime.access import INDEX_ACCESS
from sealpool.runtime.admission import Admission
from sealpool.runtime.callers import NO_CALLER, Caller, caller_of
from sealpool.runtime.logs import make_logger
from sealpool.runtime.server import ServiceServer
from sealpool.runtime.settings import ServiceSettings
from sealpool.runtime.tokens import Role, edited, make_token
from sealpool.v1 import common_pb2, index_pb2, index_pb2_grpc

GET_POOL = "/sealpool.v1.IndexService/GetPool"
MEBIBYTE = 1 << 20


class Servicer(index_pb2_grpc.IndexServiceServicer):
    """Answers as the pool's name asks it to, and tells what it saw."""

    def __init__(self) -> None:
        self.seen: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.go_on = threading.Event()
        self.calls = 0
        self.error: SealpoolError | None = None
        self.errors = 0

    def GetPool(self, request: index_pb2.GetPoolRequest, context: grpc.ServicerContext) -> index_pb2.GetPoolResponse:
        self.calls += 1
        caller = caller_of(context)
        if request.name == "fails" and self.error is not None and self.calls <= self.errors:
            raise self.error
        if request.name == "remaining":
            self.seen.put(caller.remaining_s())
        if request.name == "wait":
            self.seen.put("entered")
            self.go_on.wait(10)
        if request.name == "until gone":
            self.seen.put("entered")
            while not caller.is_gone():
                self.go_on.wait(0.01)
            self._check(caller)
        return index_pb2.GetPoolResponse(pool=index_pb2.Pool(version=1))

    def ScanItems(
        self, request: index_pb2.ScanItemsRequest, context: grpc.ServicerContext
    ) -> Iterator[index_pb2.ScanItemsResponse]:
        items = common_pb2.ItemBatch(payloads=common_pb2.Payloads(texts=["x" * MEBIBYTE]))
        try:
            for _ in range(100):
                yield index_pb2.ScanItemsResponse(items=items)
        finally:
            self.seen.put("scan ended")

    def Upsert(
        self, request_iterator: Iterator[index_pb2.UpsertRequest], context: grpc.ServicerContext
    ) -> index_pb2.UpsertResponse:
        next(request_iterator)
        self.seen.put("entered")
        try:
            next(request_iterator)
        finally:
            self.seen.put("upload ended")
        return index_pb2.UpsertResponse()

    def _check(self, caller: Caller) -> None:
        try:
            caller.check()
        except SealpoolError as error:
            self.seen.put(type(error))
            raise


class Running:
    def __init__(self, **settings: object) -> None:
        made = ServiceSettings.model_validate({"metrics_listen": "", **settings})
        self.log = io.StringIO()
        self.servicer = Servicer()
        self.server = ServiceServer(
            made,
            service="index_server",
            descriptors=[index_pb2.DESCRIPTOR.services_by_name["IndexService"]],
            registry=CollectorRegistry(),
            log=make_logger(made, "index_server", stream=self.log),
            access=INDEX_ACCESS,
        )
        index_pb2_grpc.add_IndexServiceServicer_to_server(self.servicer, self.server.grpc_server)
        self.server.start()
        self.server.set_serving()
        self.address = f"127.0.0.1:{self.server.address.rpartition(':')[2]}"

    def client(self, *, retry_for_s: float = 0, token: str = "", timeout_s: float = 20) -> IndexClient:
        options = ClientOptions(retry_for_s=retry_for_s, token=token, timeout_s=timeout_s)
        return IndexClient(self.address, options=options)

    def saw(self) -> object:
        return self.servicer.seen.get(timeout=10)


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def begin(**settings: object) -> Running:
        started.append(Running(**settings))
        return started[-1]

    yield begin
    for running in started:
        running.servicer.go_on.set()
        running.server.stop()


# Callers


def test_a_caller_tells_how_long_it_waits_or_that_it_always_does(start: Callable[..., Running]) -> None:
    running = start()
    with running.client(timeout_s=7) as client:
        client.get_pool("remaining")
        left = running.saw()
        assert isinstance(left, float)
        assert 0 < left <= 7.1  # gRPC rounds what it sends up, by a hundredth at most
    with grpc.insecure_channel(running.address) as channel:
        index_pb2_grpc.IndexServiceStub(channel).GetPool(index_pb2.GetPoolRequest(name="remaining"))
        assert running.saw() is None


def test_work_for_a_caller_whose_time_ran_out_ends(start: Callable[..., Running]) -> None:
    running = start()
    with running.client(timeout_s=0.3) as client, pytest.raises(DeadlineExceeded):
        client.get_pool("until gone")
    assert running.saw() == "entered"
    assert running.saw() is DeadlineExceeded


def test_work_for_a_caller_who_left_ends(start: Callable[..., Running]) -> None:
    running = start()
    with grpc.insecure_channel(running.address) as channel:
        call = index_pb2_grpc.IndexServiceStub(channel).GetPool.future(index_pb2.GetPoolRequest(name="until gone"))
        assert running.saw() == "entered"
        call.cancel()
        assert running.saw() is Cancelled
    assert "call failed" not in running.log.getvalue()


def test_no_caller_always_waits_and_may_use_every_pool() -> None:
    NO_CALLER.check()
    assert NO_CALLER.remaining_s() is None
    assert not NO_CALLER.is_gone()
    assert NO_CALLER.may_use("any")


def test_a_deadline_in_the_past_is_seen_without_grpc() -> None:
    late = Caller(remaining_s=0)
    assert late.is_gone()
    assert late.remaining_s() == 0
    with pytest.raises(DeadlineExceeded):
        late.check()


# Trying again


def test_a_client_comes_back_when_it_was_told_to(start: Callable[..., Running]) -> None:
    running = start()
    running.servicer.errors = 2
    for error in (
        ResourceExhausted("memory", limit=1, setting="x", retry_after_s=0.01),
        Unavailable("loading", retry_after_s=0.01),
    ):
        running.servicer.calls, running.servicer.error = 0, error
        with running.client(retry_for_s=5) as client:
            client.get_pool("fails")
        assert running.servicer.calls == 3


def test_a_client_does_not_come_back_where_that_is_no_use_or_too_late(start: Callable[..., Running]) -> None:
    running = start()
    running.servicer.errors = 2
    for error, after_s in (
        (ResourceExhausted("rows", limit=1, setting="max_rows"), None),
        (ResourceExhausted("memory", limit=1, setting="x", retry_after_s=60), 60),
        (Unavailable("loading", retry_after_s=60), 60),
    ):
        running.servicer.calls, running.servicer.error = 0, error
        with running.client(retry_for_s=5) as client, pytest.raises(type(error)) as caught:
            client.get_pool("fails")
        assert running.servicer.calls == 1
        assert caught.value.retry_after_s == after_s  # type: ignore[attr-defined]


def test_grpcs_own_word_for_when_to_come_back_is_sent_too(start: Callable[..., Running]) -> None:
    running = start()
    running.servicer.errors, running.servicer.error = 1, Unavailable("loading", retry_after_s=1.5)
    with grpc.insecure_channel(running.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            index_pb2_grpc.IndexServiceStub(channel).GetPool(index_pb2.GetPoolRequest(name="fails"))
        sent = {entry.key: entry.value for entry in caught.value.trailing_metadata()}
    assert sent["sealpool-retry-after-seconds"] == "1.500"
    assert sent["grpc-retry-pushback-ms"] == "1500"


# Slow and hostile clients


def test_a_reader_that_stops_reading_loses_its_call(start: Callable[..., Running]) -> None:
    running = start(stalled_call_s=0.3)
    with grpc.insecure_channel(running.address) as channel:
        answers = index_pb2_grpc.IndexServiceStub(channel).ScanItems(index_pb2.ScanItemsRequest(pool="x"))
        next(answers)
        assert running.saw() == "scan ended"
    assert "neither sends nor reads" in running.log.getvalue()


def test_a_writer_that_stops_writing_loses_its_call(start: Callable[..., Running]) -> None:
    running = start(stalled_call_s=0.3)
    silent = threading.Event()
    with grpc.insecure_channel(running.address) as channel:
        call = index_pb2_grpc.IndexServiceStub(channel).Upsert.future(_then_silence(silent))
        assert running.saw() == "entered"
        assert running.saw() == "upload ended"
        assert call.code() is grpc.StatusCode.CANCELLED
        silent.set()


def test_work_that_takes_long_is_no_stall(start: Callable[..., Running]) -> None:
    running = start(stalled_call_s=0.1)
    answers: list[int] = []
    with running.client() as client:
        working = threading.Thread(target=lambda: answers.append(client.get_pool("wait").version))
        working.start()
        assert running.saw() == "entered"
        running.servicer.go_on.wait(0.4)  # several times the patience
        running.servicer.go_on.set()
        working.join()
    assert answers == [1]


def test_calls_that_never_send_their_message_stop_neither_health_nor_others(start: Callable[..., Running]) -> None:
    running = start(max_concurrent_calls=2, stalled_call_s=0.5)
    silent = threading.Event()
    with grpc.insecure_channel(running.address) as channel, running.client(retry_for_s=10) as client:
        hostile = [channel.stream_unary(GET_POOL).future(_silence(silent)) for _ in range(30)]
        refused = {call.code() for call in hostile}
        # UNAVAILABLE is gRPC's own, on a busy machine, for a call that had not left the client yet.
        ours = refused - {grpc.StatusCode.UNAVAILABLE}
        assert ours == {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED}
        again = [channel.stream_unary(GET_POOL).future(_silence(silent)) for _ in range(30)]
        assert _health(running.address) == health_pb2.HealthCheckResponse.SERVING
        assert client.get_pool("x").version == 1
        silent.set()
        assert len([call.code() for call in again]) == 30


def test_reflection_streams_that_stay_open_do_not_stop_health(start: Callable[..., Running]) -> None:
    running = start(max_concurrent_calls=1)
    silent = threading.Event()
    answers: queue.SimpleQueue[object] = queue.SimpleQueue()
    with grpc.insecure_channel(running.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        streams = [stub.ServerReflectionInfo(_reflect_then_silence(silent)) for _ in range(12)]
        readers = [threading.Thread(target=lambda stream=stream: answers.put(next(stream))) for stream in streams]
        for reader in readers:
            reader.start()
        for _ in range(4):  # as many as have a thread
            answers.get(timeout=10)
        assert _health(running.address) == health_pb2.HealthCheckResponse.SERVING
        with running.client() as client:
            assert client.get_pool("x").version == 1
        silent.set()
        for reader in readers:
            reader.join()


@pytest.mark.parametrize("messages", [[], [b"\xff\xff\xff"]])
def test_a_call_without_its_message_or_with_another_is_a_bad_request_and_no_fault(
    start: Callable[..., Running], messages: list[bytes]
) -> None:
    running = start()
    with grpc.insecure_channel(running.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.stream_unary(GET_POOL)(iter(messages))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details().startswith("request: ")
        with pytest.raises(grpc.RpcError) as caught:
            channel.stream_unary("/sealpool.v1.IndexService/Upsert")(iter([b"\xff\xff"]))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "call failed" not in running.log.getvalue()


def test_one_token_cannot_take_all_permits(start: Callable[..., Running], tmp_path: Path) -> None:
    made = [make_token(name, role=Role.READ, pools=["*"], created=datetime.now(UTC)) for name in ("greedy", "modest")]
    with edited(tmp_path / "t.json") as replace:
        replace([token for _, token in made])
    running = start(tokens_file=tmp_path / "t.json", max_concurrent_calls=3, max_calls_per_client=2)
    with running.client(token=made[0][0]) as greedy, running.client(token=made[1][0]) as modest:
        waiting = [threading.Thread(target=greedy.get_pool, args=("wait",)) for _ in range(2)]
        for thread in waiting:
            thread.start()
            running.saw()
        with pytest.raises(ResourceExhausted, match="max_calls_per_client"):
            greedy.get_pool("x")
        assert modest.get_pool("x").version == 1
        running.servicer.go_on.set()
        for thread in waiting:
            thread.join()
        assert greedy.get_pool("x").version == 1


def test_beyond_loopback_an_address_is_a_client(start: Callable[..., Running]) -> None:
    running = start(listen="0.0.0.0:0", insecure=True, max_concurrent_calls=4)
    with running.client() as client:
        waiting = [threading.Thread(target=client.get_pool, args=("wait",)) for _ in range(3)]
        for thread in waiting:
            thread.start()
            running.saw()
        with pytest.raises(ResourceExhausted, match="limit of 3 "):
            client.get_pool("x")
        running.servicer.go_on.set()
        for thread in waiting:
            thread.join()


def test_permits_come_back_and_clients_are_forgotten() -> None:
    admission = Admission(2, max_calls_per_client=1)
    assert admission.take("a") is None
    refused = admission.take("a")
    assert refused is not None
    assert refused.reason == "client"
    assert admission.take("b") is None
    full = admission.take("c")
    assert full is not None
    assert full.reason == "concurrency"
    admission.give_back("a")
    assert admission.take("a") is None
    admission.give_back("a")
    admission.give_back("b")
    assert not admission._taken_by
    admission.stop()
    stopping = admission.take("a")
    assert stopping is not None
    assert isinstance(stopping.error, Unavailable)


def _silence(until: threading.Event) -> Iterator[bytes]:
    until.wait(20)
    yield from ()


def _then_silence(until: threading.Event) -> Iterator[index_pb2.UpsertRequest]:
    yield index_pb2.UpsertRequest(pool="x")
    until.wait(20)


def _reflect_then_silence(until: threading.Event) -> Iterator[reflection_pb2.ServerReflectionRequest]:
    yield reflection_pb2.ServerReflectionRequest(list_services="")
    until.wait(20)


def _health(address: str) -> int:
    with grpc.insecure_channel(address) as channel:
        return int(health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5).status)
