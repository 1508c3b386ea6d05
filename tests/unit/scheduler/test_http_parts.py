"""The HTTP front's tables, settings and reading of JSON, without a server."""

import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToJson
from pydantic import ValidationError

from scheduler.http.problems import HTTP_STATUS_OF, problem_of, problem_response
from scheduler.http.reading import fill, parse_json
from scheduler.http.schemas import Schemas
from scheduler.settings import SchedulerSettings
from sealpool import errors
from sealpool.v1 import common_pb2, scheduler_pb2, stream_pb2


def test_every_error_has_a_status_and_only_faults_and_absence_are_above_499() -> None:
    assert set(HTTP_STATUS_OF) == set(errors.SealpoolError.__subclasses__())
    above = {cls for cls, status in HTTP_STATUS_OF.items() if status >= 500}
    assert above == {errors.InternalError, errors.Unavailable, errors.DeadlineExceeded}


def test_a_wait_of_part_of_a_second_is_told_whole_to_those_who_read_headers() -> None:
    error = errors.ResourceExhausted("one more", limit=1, setting="max_x", retry_after_s=1.25)
    answer = problem_response(error)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
    assert problem_of(error)["retry_after_seconds"] == 1.25


@pytest.mark.parametrize("address", ["0.0.0.0:7323", "[::]:7323"])
def test_the_front_is_closed_beyond_loopback_unless_something_guards_it(address: str) -> None:
    with pytest.raises(ValidationError, match=r"http_listen=.* is beyond loopback"):
        SchedulerSettings(http_listen=address)
    SchedulerSettings(http_listen=address, insecure=True)


@pytest.mark.parametrize("address", ["7323", "localhost", "127.0.0.1:http", "127.0.0.1:70000"])
def test_an_address_of_the_front_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="is not host:port"):
        SchedulerSettings(http_listen=address)


MESSAGES: list[Any] = [
    scheduler_pb2.CreateCampaignRequest(
        spec=scheduler_pb2.CampaignSpec(
            name="c",
            classes=["a", "ü"],
            task=common_pb2.TASK_KIND_MULTICLASS,
            seed=2**64 - 1,
            exploration=0.25,
            batch_share=float("nan"),
            strategy=common_pb2.StrategySpec(beta=0.0),
            oracle=scheduler_pb2.OracleSpec(llm=scheduler_pb2.LlmSpec(temperature=0.0, max_tokens=2**63)),
            stopping=scheduler_pb2.StoppingSpec(),
        ),
        validate_only=True,
    ),
    stream_pb2.ConsiderBatchRequest(
        items=[
            stream_pb2.StreamItem(
                id="x", vector=common_pb2.Matrix(data=b"\0\xff\x80?", dtype=common_pb2.DTYPE_FLOAT32, rows=1, columns=1)
            )
        ]
    ),
    scheduler_pb2.WatchCampaignResponse(sequence=3, round_changed=scheduler_pb2.RoundChanged()),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_what_protobuf_writes_is_read_as_the_same_message(message: Any) -> None:
    if "at" in message.DESCRIPTOR.fields_by_name:
        message.at.FromJsonString("2026-01-02T03:04:05.5Z")
    read = type(message)()
    fill(read, parse_json(MessageToJson(message, preserving_proto_field_name=True).encode()))
    assert MessageToJson(read) == MessageToJson(message)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"sequence": "18446744073709551616"}, "sequence"),
        ({"sequence": 1.5}, "sequence"),
        ({"sequence": True}, "sequence"),
        ({"sequence": "٣"}, "sequence"),
        ({"at": "yesterday"}, "at"),
        ({"at": 7}, "at"),
        ({"round_changed": {}, "labels_arrived": {}}, "labels_arrived"),
        ({"round_changed": {"round": {"quality": {"accuracy": 10**400}}}}, "round_changed.round.quality.accuracy"),
        ({"labels_arrived": None}, "labels_arrived"),
    ],
)
def test_a_value_that_a_field_cannot_hold_is_refused_by_its_path(value: Any, field: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        fill(scheduler_pb2.WatchCampaignResponse(), json.loads(json.dumps(value)))
    assert caught.value.field == field


def test_a_schema_tells_names_of_enums_long_numbers_and_fields_that_exclude_each_other() -> None:
    schemas = Schemas()
    schemas.of(scheduler_pb2.WatchCampaignResponse.DESCRIPTOR)
    schemas.of(scheduler_pb2.CampaignSpec.DESCRIPTOR, without=["name"])
    event = schemas.components["WatchCampaignResponse"]
    assert {"not": {"required": ["round_changed", "labels_arrived"]}} in event["allOf"]
    assert event["properties"]["at"] == {"type": "string", "format": "date-time"}
    spec = schemas.components["CampaignSpec"]
    assert "name" not in spec["properties"]
    assert "allOf" not in schemas.components["StrategySpec"]  # `optional` excludes nothing
    assert [one["type"] for one in spec["properties"]["seed"]["anyOf"]] == ["string", "integer"]
    assert schemas.components["Fill"]["enum"] == ["FILL_UNSPECIFIED", "FILL_RANDOM", "FILL_NONE"]
