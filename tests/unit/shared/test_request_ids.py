"""One id by which a call is found in the log of the service that answered it."""

import random
from collections.abc import Iterator

import grpc
import pytest

from sealpool.errors import InternalError, NotFound
from sealpool.runtime.request_ids import REQUEST_ID, make_request_id, request_id_in
from sealpool.v1 import index_pb2, index_pb2_grpc
from tests.unit.shared.small_service import SmallService

KEY = "x-request-id"


@pytest.fixture
def service() -> Iterator[SmallService]:
    service = SmallService()
    yield service
    service.server.stop()


def test_every_line_that_a_call_writes_has_the_id_that_its_caller_sent(service: SmallService) -> None:
    with service.client(request_id=lambda: "report-17") as client:
        client.get_pool("any")
    assert [line["request_id"] for line in service.lines("asked")] == ["report-17"]
    assert [line["request_id"] for line in service.lines("call ended")] == ["report-17"]


def test_lines_outside_any_call_have_none(service: SmallService) -> None:
    assert "request_id" not in service.lines("serving")[0]


def test_a_caller_that_sends_no_id_is_told_the_one_that_was_made_and_each_call_has_its_own(
    service: SmallService,
) -> None:
    with grpc.insecure_channel(service.server.address) as channel:
        stub = index_pb2_grpc.IndexServiceStub(channel)
        told = [dict(stub.GetPool.with_call(index_pb2.GetPoolRequest(name="any"))[1].trailing_metadata()) for _ in "ab"]
        scan = stub.ScanItems(index_pb2.ScanItemsRequest(pool="any"))
        assert len(list(scan)) == 3
        told.append(dict(scan.trailing_metadata()))
    ids = [metadata[KEY] for metadata in told]
    assert len({*ids}) == 3
    assert [line["request_id"] for line in service.lines("call ended")] == ids


@pytest.mark.parametrize("sent", ["two words", "x" * 65, "", "-dash", 'quote"', "curly{}"])
def test_an_id_not_fit_for_a_log_is_replaced(service: SmallService, sent: str) -> None:
    with grpc.insecure_channel(service.server.address) as channel:
        call = index_pb2_grpc.IndexServiceStub(channel).GetPool.with_call(
            index_pb2.GetPoolRequest(name="any"), metadata=((KEY, sent),)
        )[1]
    told = dict(call.trailing_metadata())[KEY]
    assert told != sent
    assert request_id_in([(KEY, told)]) == told
    assert service.lines("asked")[0]["request_id"] == told


def test_hostile_metadata_neither_breaks_a_call_nor_reaches_a_log(service: SmallService) -> None:
    many = tuple((KEY, f"wrong {number}") for number in range(50))
    sent = ((KEY, "x" * 3000), *many, (f"{KEY}-bin", b"\xff\x00"))
    with grpc.insecure_channel(service.server.address) as channel:
        stub = index_pb2_grpc.IndexServiceStub(channel)
        call = stub.GetPool.with_call(index_pb2.GetPoolRequest(name="any"), metadata=sent)[1]
        (answered,) = [value for key, value in call.trailing_metadata() if key == KEY]
    assert len(answered) == 32
    for event in ("asked", "call ended"):
        assert [line["request_id"] for line in service.lines(event)] == [answered]
    for value in ("\xff\udcff", b"\xff", 7, None, "ä", "a\n", "a\0b"):
        assert len(request_id_in([(KEY, value)])) == 32


def test_ids_that_are_made_differ_also_where_a_model_seeds_everything() -> None:
    random.seed(1)
    before = {make_request_id() for _ in range(100)}
    random.seed(1)
    assert len(before | {make_request_id() for _ in range(100)}) == 200


@pytest.mark.parametrize("sent", ["a", "x" * 64, "0b9f2c1e-9a3f-4d3c-8a43-5b1f2f6f7a10", "team/job:3.1_x=@+"])
def test_a_sane_id_is_kept(sent: str) -> None:
    assert request_id_in([("other", "b"), (KEY, sent)]) == sent


def test_an_error_carries_the_id_under_which_the_service_logged_it(service: SmallService) -> None:
    with service.client(request_id=lambda: "mine") as client, pytest.raises(NotFound) as caught:
        client.get_pool("missing")
    assert caught.value.request_id == "mine"
    with service.client() as client, pytest.raises(InternalError, match="internal fault") as fault:
        client.get_pool("bug")
    assert fault.value.request_id == service.lines("call failed")[0]["request_id"]
    assert len(fault.value.request_id) == 32


def test_tries_of_one_call_have_one_id_where_the_caller_has_one(service: SmallService) -> None:
    REQUEST_ID.set("of-the-round")
    try:
        with service.client(request_id=REQUEST_ID.get) as client:
            client.get_pool("twice-away")
    finally:
        REQUEST_ID.set("")
    assert [line["request_id"] for line in service.lines("asked")] == ["of-the-round"] * 3
