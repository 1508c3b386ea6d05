"""To which trace a round belongs, whoever began it, and calls over HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode, format_trace_id

from sealpool.v1 import scheduler_pb2 as pb
from tests.support.recorded_spans import RecordedSpans, is_child, trace_of
from tests.unit.scheduler.world import DATASET, World, make_spec

ENOUGH_S = 20


@pytest.fixture
def spans() -> RecordedSpans:
    return RecordedSpans()


@pytest.fixture
def world(tmp_path: Path, spans: RecordedSpans) -> Iterator[World]:
    world = World(tmp_path, tracer=spans.tracer, http_listen="127.0.0.1:0", trace_endpoint="127.0.0.1:4317")
    yield world
    world.close()


def lines(world: World, event: str) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in world.log.getvalue().splitlines()]
    return [line for line in told if line["event"] == event]


def attribute(span: ReadableSpan, name: str) -> object:
    return (span.attributes or {})[name]


def wait_until_completed(world: World) -> None:
    for event in world.client.watch_campaign("c"):
        if event.campaign_state_changed.state == pb.CAMPAIGN_STATE_COMPLETED:
            return


def test_a_round_that_a_call_waits_for_is_in_the_calls_trace(world: World, spans: RecordedSpans) -> None:
    world.client.create_campaign(make_spec())
    world.client.run_round("c")
    world.server.stop()
    (call,), (run,) = spans.ended("/RunRound"), spans.ended("round")
    (selecting,) = spans.ended("round.selecting")
    assert is_child(run, call)
    assert is_child(selecting, run)
    assert (attribute(run, "sealpool.campaign"), attribute(run, "sealpool.round")) == ("c", 0)
    assert any(is_child(written, selecting) for written in spans.ended("store.transaction"))
    assert {line["request_id"] for line in lines(world, "phase ended")} == {lines_of_call(world, "RunRound")}


def lines_of_call(world: World, method: str) -> str:
    return str(next(line for line in lines(world, "call ended") if line["method"] == method)["request_id"])


def test_a_round_that_a_timer_began_is_the_root_of_its_trace_and_has_an_id_of_its_own(
    world: World, spans: RecordedSpans
) -> None:
    world.client.create_campaign(make_spec())
    world.scheduler.pool.fire("c")
    waiting = world.scheduler.pool.run("c")
    assert waiting is not None
    waiting.result(timeout=ENOUGH_S)
    world.server.stop()
    (run,) = spans.ended("round")
    assert run.parent is None
    ended = lines(world, "phase ended")
    assert {line["trace_id"] for line in ended} == {format_trace_id(trace_of(run))}
    (request_id,) = {line["request_id"] for line in ended}
    assert len(request_id) == 32


def test_a_round_that_follows_by_a_rule_is_not_in_the_trace_of_the_one_before(
    world: World, spans: RecordedSpans
) -> None:
    world.client.create_campaign(make_spec(oracle=DATASET, rule=pb.RoundRule(after_labels=5)))
    world.client.run_round("c")
    wait_until_completed(world)
    world.server.stop()
    runs = spans.ended("round")
    assert len(runs) == 5
    assert runs[0].parent is not None
    assert [run.parent for run in runs[1:]] == [None] * 4
    assert len({trace_of(run) for run in runs}) == 5
    assert len({line["request_id"] for line in lines(world, "phase ended")}) == 5


def test_a_call_over_http_goes_on_with_its_callers_trace_and_id(world: World, spans: RecordedSpans) -> None:
    headers = {"traceparent": f"00-{'a1' * 16}-{'b2' * 8}-01", "x-request-id": "page-7"}
    with httpx.Client(base_url=f"http://{world.scheduler.http_address}", headers=headers) as http:
        found = http.get("/v1/campaigns")
        missing = http.get("/v1/campaigns/none")
        bad = http.get("/v1/campaigns", headers={"x-request-id": "two words"})
    assert (found.status_code, missing.status_code) == (200, 404)
    assert [answer.headers["x-request-id"] for answer in (found, missing)] == ["page-7"] * 2
    assert bad.headers["x-request-id"] != "two words"
    listing, getting, _ = [span for span in spans.ended() if span.name.startswith("GET ")]
    assert listing.name == "GET /v1/campaigns"
    assert listing.kind is SpanKind.SERVER
    assert listing.parent is not None
    assert (trace_of(listing), listing.parent.span_id) == (int("a1" * 16, 16), int("b2" * 8, 16))
    assert attribute(getting, "http.response.status_code") == 404
    assert getting.status.status_code is StatusCode.UNSET
    assert {line["request_id"] for line in lines(world, "call ended")} >= {"page-7"}
    assert {line["trace_id"] for line in lines(world, "call ended")} == {"a1" * 16}
