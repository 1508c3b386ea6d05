"""Three real services and a collector: one trace and one request id from RunRound to FAISS."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from sealpool.client import ClientOptions, IndexClient, SchedulerClient
from sealpool.client.tracing import client_tracer
from sealpool.errors import NotFound
from sealpool.types import ItemId, Items, Payload
from sealpool.v1 import common_pb2, index_pb2, scheduler_pb2
from tests.support.processes import Stack
from tests.support.trace_collector import Received, TraceCollector, lineage

CLASSES = ["north", "south"]
SECRET = "item-of-a-person"
TABLE = Path(__file__).parents[3] / "docs" / "tracing.md"
NOT_HERE = {"milvus.search"}
"""In the table, and made by nothing that runs in these tests."""
INTERNAL = trace_pb2.Span.SPAN_KIND_INTERNAL


@dataclass(frozen=True, kw_only=True)
class Run:
    spans: list[Received]
    logs: dict[str, list[dict[str, Any]]]
    trace: str
    """Of the call of RunRound that trained, selected and labelled."""


def items() -> Items:
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 2, 300)
    vectors = rng.normal(0, 0.4, (300, 8))
    vectors[:, 0] += 2 * classes - 1
    return Items(
        ids=[ItemId(f"{SECRET}-{number}") for number in range(300)],
        vectors=vectors.astype(np.float32),
        payloads=[Payload(text="a text of a person", metadata={"labels": CLASSES[label]}) for label in classes],
    )


def options(collector: TraceCollector) -> tuple[ClientOptions, TracerProvider]:
    provider = TracerProvider(resource=Resource.create({"service.name": "person"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=collector.address, insecure=True)))
    return ClientOptions(tracer=client_tracer(provider), request_id=lambda: "report-42"), provider


def work(stack: Stack, told: ClientOptions) -> None:
    with IndexClient(stack.index.address) as index:
        index.create_pool(index_pb2.PoolSpec(name="pool", dimension=8))
        index.upsert("pool", items())
        with pytest.raises(NotFound, match=SECRET):
            index.get_items("pool", [f"{SECRET}-unknown"])
    spec = scheduler_pb2.CampaignSpec(
        name="first",
        pool="pool",
        task=common_pb2.TASK_KIND_MULTICLASS,
        classes=CLASSES,
        strategy=common_pb2.StrategySpec(name="entropy"),
        policy=common_pb2.PolicySpec(name="seals", k=5),
        batch_size=10,
        seed_size=10,
        budget=100,
        seed=7,
        oracle=scheduler_pb2.OracleSpec(name="dataset"),
    )
    with SchedulerClient(stack.scheduler.address) as scheduler:
        scheduler.create_campaign(spec)
        scheduler.run_round("first")
    with SchedulerClient(stack.scheduler.address, options=told) as scheduler:
        scheduler.run_round("first")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with TraceCollector() as collector:
        flags = ("--trace-endpoint", collector.address, "--log-level", "debug")
        stack = Stack(tmp_path_factory.mktemp("traced"), *flags)
        told, provider = options(collector)
        try:
            stack.start()
            work(stack, told)
            provider.shutdown()
            assert stack.stop() == [0, 0, 0]  # which sends what was not sent yet
        finally:
            stack.kill()
        spans = collector.spans()
    logs = {one.module: [json.loads(line) for line in one.log.read_text().splitlines()] for one in stack}
    (asking,) = [one for one in spans if one.service == "person" and one.name.endswith("/RunRound")]
    return Run(spans=spans, logs=logs, trace=asking.trace)


def test_a_search_in_faiss_is_in_the_trace_of_the_clients_call(run: Run) -> None:
    (search,) = [one for one in run.spans if one.name == "faiss.search" and one.trace == run.trace]
    assert lineage(search, run.spans) == [
        ("sealpool-index-server", "faiss.search"),
        ("sealpool-index-server", "search"),
        ("sealpool-index-server", "/sealpool.v1.IndexService/ExpandCandidates"),
        ("sealpool-learner", "/sealpool.v1.IndexService/ExpandCandidates"),
        ("sealpool-learner", "expand"),
        ("sealpool-learner", "/sealpool.v1.LearnerService/Select"),
        ("sealpool-scheduler", "/sealpool.v1.LearnerService/Select"),
        ("sealpool-scheduler", "round.selecting"),
        ("sealpool-scheduler", "round"),
        ("sealpool-scheduler", "/sealpool.v1.SchedulerService/RunRound"),
        ("person", "/sealpool.v1.SchedulerService/RunRound"),
    ]
    assert search.attributes == {
        "sealpool.pool": "pool",
        "sealpool.engine": "flat",
        "sealpool.queries": 10,
        "sealpool.k": 6,
    }


def test_training_in_a_thread_of_its_own_is_in_the_same_trace(run: Run) -> None:
    (training,) = [one for one in run.spans if one.name == "train" and one.trace == run.trace]
    assert lineage(training, run.spans)[1:4] == [
        ("sealpool-learner", "/sealpool.v1.LearnerService/Train"),
        ("sealpool-scheduler", "/sealpool.v1.LearnerService/Train"),
        ("sealpool-scheduler", "round.training"),
    ]
    assert training.attributes["sealpool.examples"] == 10


def test_the_logs_of_all_three_have_the_trace_and_the_clients_request_id(run: Run) -> None:
    for service, lines in run.logs.items():
        ours = [line for line in lines if line.get("trace_id") == run.trace]
        assert ours, service
        assert {line["request_id"] for line in ours} == {"report-42"}
        known = {one.span.span_id.hex() for one in run.spans}
        assert {line["span_id"] for line in ours} <= known


def test_spans_say_which_service_made_them(run: Run) -> None:
    ours = [one.resource for one in run.spans if one.service != "person"]
    assert {resource["service.name"] for resource in ours} == {
        "sealpool-index-server",
        "sealpool-learner",
        "sealpool-scheduler",
    }
    assert len({resource["service.instance.id"] for resource in ours}) == 3
    assert all(resource["service.version"] for resource in ours)


def test_no_item_no_text_and_no_message_of_an_error_is_in_any_span(run: Run) -> None:
    assert any(one.span.status.code == trace_pb2.Status.STATUS_CODE_UNSET for one in run.spans)
    for one in run.spans:
        if one.service != "person":  # whose own provider it is
            assert SECRET.encode() not in one.span.SerializeToString(), one.name
            assert not one.span.events
            assert not one.span.status.message


def test_the_documentation_names_every_span(run: Run) -> None:
    section = TABLE.read_text().partition("## Spans")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `([a-z._]+)` \|", section, re.MULTILINE))
    made = {one.name for one in run.spans if one.span.kind == INTERNAL}
    assert documented - NOT_HERE == made
