"""Bad input to every RPC: the promised status, the field named, and nothing changed."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from sqlalchemy import text

from sealpool.errors import DeadlineExceeded, SealpoolError, Unavailable
from sealpool.v1 import common_pb2
from sealpool.v1 import scheduler_pb2 as pb
from tests.unit.scheduler.world import World, make_spec

INVALID, MISSING, PRECONDITION = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
)
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
LONG_ID = "é" * 65


def spec(**changes: Any) -> pb.CreateCampaignRequest:
    return pb.CreateCampaignRequest(spec=make_spec(**{"name": "new", **changes}))


def truth(field: str) -> pb.OracleSpec:
    return pb.OracleSpec(name="dataset", metadata_field=field)


def lease(**changes: Any) -> pb.LeaseTasksRequest:
    return pb.LeaseTasksRequest(**{"campaign": "c", "annotator": "x", "max_tasks": 1, **changes})


def submit(*labels: tuple[str, list[str]], **changes: Any) -> pb.SubmitLabelsRequest:
    given = [pb.NewLabel(item_id=item, classes=classes) for item, classes in labels or [("i000", ["a"])]]
    return pb.SubmitLabelsRequest(**{"campaign": "c", "annotator": "x", "labels": given, **changes})


CASES: list[tuple[str, Any, grpc.StatusCode, str]] = [
    ("CreateCampaign", pb.CreateCampaignRequest(), INVALID, "spec.name"),
    ("CreateCampaign", spec(batch_size=0), INVALID, "spec.batch_size"),
    ("CreateCampaign", spec(strategy=common_pb2.StrategySpec(name="guess")), INVALID, "spec.strategy.name"),
    ("CreateCampaign", spec(policy=common_pb2.PolicySpec(name="most")), INVALID, "spec.policy.name"),
    ("CreateCampaign", spec(rule=pb.RoundRule(cron="* * *")), INVALID, "spec.rule.cron"),
    ("CreateCampaign", spec(pool="nowhere"), MISSING, "spec.pool"),
    ("CreateCampaign", spec(evaluation_pool="nowhere"), MISSING, "spec.evaluation_pool"),
    ("CreateCampaign", spec(pool="empty"), PRECONDITION, "spec.pool"),
    ("CreateCampaign", spec(evaluation_pool="wide"), INVALID, "spec.evaluation_pool"),
    ("CreateCampaign", spec(oracle=truth("truth")), PRECONDITION, "spec.oracle.metadata_field"),
    ("CreateCampaign", spec(oracle=truth(""), classes=["x", "y"]), PRECONDITION, "spec.oracle.metadata_field"),
    (
        "CreateCampaign",
        spec(oracle=truth(""), evaluation_pool="unlabelled"),
        PRECONDITION,
        "spec.oracle.metadata_field",
    ),
    ("CreateCampaign", spec(name="c"), grpc.StatusCode.ALREADY_EXISTS, "campaign"),
    (
        "CreateCampaign",
        pb.CreateCampaignRequest(spec=make_spec(name="new"), request_id=LONG_ID),
        INVALID,
        "request_id",
    ),
    ("GetCampaign", pb.GetCampaignRequest(name="nobody"), MISSING, "campaign"),
    ("GetCampaign", pb.GetCampaignRequest(), MISSING, "campaign"),
    ("PauseCampaign", pb.PauseCampaignRequest(name="nobody"), MISSING, "campaign"),
    ("PauseCampaign", pb.PauseCampaignRequest(name="archived"), PRECONDITION, "campaign"),
    ("PauseCampaign", pb.PauseCampaignRequest(name="completed"), PRECONDITION, "campaign"),
    ("PauseCampaign", pb.PauseCampaignRequest(name="c", request_id=LONG_ID), INVALID, "request_id"),
    ("ResumeCampaign", pb.ResumeCampaignRequest(name="nobody"), MISSING, "campaign"),
    ("ResumeCampaign", pb.ResumeCampaignRequest(name="archived"), PRECONDITION, "campaign"),
    ("ResumeCampaign", pb.ResumeCampaignRequest(name="completed"), PRECONDITION, "campaign"),
    ("ArchiveCampaign", pb.ArchiveCampaignRequest(name="nobody"), MISSING, "campaign"),
    ("RunRound", pb.RunRoundRequest(campaign="nobody"), MISSING, "campaign"),
    ("RunRound", pb.RunRoundRequest(campaign="c"), PRECONDITION, ""),
    ("RunRound", pb.RunRoundRequest(campaign="paused"), PRECONDITION, "campaign"),
    ("RunRound", pb.RunRoundRequest(campaign="completed"), PRECONDITION, "campaign"),
    ("RunRound", pb.RunRoundRequest(campaign="archived"), PRECONDITION, "campaign"),
    ("LeaseTasks", lease(campaign="nobody"), MISSING, "campaign"),
    ("LeaseTasks", lease(annotator=""), INVALID, "annotator"),
    ("LeaseTasks", lease(annotator=LONG_ID), INVALID, "annotator"),
    ("LeaseTasks", lease(annotator="nul\0"), INVALID, "annotator"),
    ("LeaseTasks", lease(max_tasks=0), INVALID, "max_tasks"),
    ("LeaseTasks", lease(max_tasks=11), INVALID, "max_tasks"),
    ("LeaseTasks", lease(lease_seconds=0.5), INVALID, "lease_seconds"),
    ("LeaseTasks", lease(lease_seconds=float("nan")), INVALID, "lease_seconds"),
    ("LeaseTasks", lease(lease_seconds=-1), INVALID, "lease_seconds"),
    ("LeaseTasks", lease(campaign="paused"), PRECONDITION, "campaign"),
    ("LeaseTasks", lease(campaign="completed"), PRECONDITION, "campaign"),
    ("LeaseTasks", lease(campaign="archived"), PRECONDITION, "campaign"),
    ("SubmitLabels", submit(campaign="nobody"), MISSING, "campaign"),
    ("SubmitLabels", submit(campaign="archived"), PRECONDITION, "campaign"),
    ("SubmitLabels", submit(annotator=""), INVALID, "annotator"),
    ("SubmitLabels", submit(labels=[]), INVALID, "labels"),
    ("SubmitLabels", submit(*((f"i{i:03d}", ["a"]) for i in range(41))), EXHAUSTED, "max_labels"),
    ("SubmitLabels", submit(("i000", ["z"])), INVALID, "labels[0].classes"),
    ("SubmitLabels", submit(("i000", ["a"]), ("i001", [])), INVALID, "labels[1].classes"),
    ("SubmitLabels", submit(("i000", ["a", "b"])), INVALID, "labels[0].classes"),
    ("SubmitLabels", submit(("i000", ["a"]), ("i000", ["b"])), INVALID, "labels.item_id"),
    ("SubmitLabels", submit(("", ["a"])), INVALID, "labels.item_id"),
    ("SubmitLabels", submit(("x" * 257, ["a"])), INVALID, "labels.item_id"),
    ("SubmitLabels", submit(("nul\0", ["a"])), INVALID, "labels.item_id"),
    ("SubmitLabels", submit(("i000", ["a"]), ("stranger", ["a"])), MISSING, "labels.item_id"),
    ("SubmitLabels", submit(purpose=pb.LABEL_PURPOSE_EVALUATION), INVALID, "purpose"),
    ("SubmitLabels", submit(*((f"i{i:03d}", ["a"]) for i in range(21))), PRECONDITION, "labels"),
    ("SubmitLabels", submit(campaign="completed"), PRECONDITION, "labels"),
    ("ListLabels", pb.ListLabelsRequest(campaign="nobody"), MISSING, "campaign"),
    ("ListRounds", pb.ListRoundsRequest(campaign="nobody"), MISSING, "campaign"),
    ("WatchCampaign", pb.WatchCampaignRequest(campaign="nobody"), MISSING, "campaign"),
]


@pytest.fixture
def crowded(make_world: Callable[..., World]) -> World:
    """A world with a campaign in every state."""
    world = make_world(max_lease_tasks=10, max_labels=40)
    world.index.pools["empty"] = {}
    world.index.add_pool("wide", 3)
    world.index.dimensions["wide"] = 5
    world.index.add_pool("unlabelled", 3, field="other")
    for name in ("c", "paused", "archived"):
        world.client.create_campaign(make_spec(name=name))
        world.client.run_round(name)
    world.client.create_campaign(make_spec(name="completed", budget=2, seed_size=0))
    world.client.submit_labels("completed", {"i001": ["a"], "i002": ["b"]}, annotator="x")
    world.client.run_round("completed")
    world.client.pause_campaign("paused")
    world.client.archive_campaign("archived")
    return world


def contents(world: World) -> list[object]:
    tables = ("campaigns", "rounds", "tasks", "labels", "events", "requests", "apscheduler_jobs")
    with world.scheduler.store.engine.connect() as connection:
        return [connection.execute(text(f"SELECT * FROM {table}")).all() for table in tables]


def test_every_bad_request_gets_its_status_and_changes_nothing(crowded: World) -> None:
    before = contents(crowded)
    channel = crowded.client._channel
    wrong = []
    for method, request, status, field in CASES:
        call = _call(channel, method, request)
        found = (call.code(), dict(call.trailing_metadata()).get("sealpool-field", ""))
        if found != (status, field) or (field and field.split("[")[0] not in (call.details() or "")):
            wrong.append((method, request, found, call.details()))
    assert wrong == []
    assert contents(crowded) == before
    assert '"level": "error"' not in crowded.log.getvalue()


def _call(channel: grpc.Channel, method: str, request: Any) -> Any:
    """Call and return the RpcError, which has code, details and trailing metadata."""
    path = f"/sealpool.v1.SchedulerService/{method}"
    serialize = type(request).SerializeToString
    try:
        if method in ("ListLabels", "WatchCampaign"):
            list(channel.unary_stream(path, serialize)(request, timeout=10))
        else:
            channel.unary_unary(path, serialize)(request, timeout=10)
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"{method} {request} was not refused")


@pytest.mark.parametrize("error", [Unavailable("away"), DeadlineExceeded("slow")])
def test_a_service_behind_that_is_away_is_unavailable_and_changes_nothing(crowded: World, error: SealpoolError) -> None:
    before = contents(crowded)
    for method in ("get_pool", "get_items"):
        crowded.index.troubles.always(method, error)
    stranger = next(item for item in crowded.index.pools["pool"] if item not in crowded.picks()[0])
    for method, request in (("CreateCampaign", spec()), ("SubmitLabels", submit((stranger, ["a"])))):
        assert _call(crowded.client._channel, method, request).code() == grpc.StatusCode.UNAVAILABLE
    assert contents(crowded) == before


def test_sequences_beyond_what_a_database_counts_are_harmless(crowded: World) -> None:
    assert crowded.labels(after_sequence=2**64 - 1) == []
    assert list(crowded.client.watch_campaign("archived", after_sequence=2**64 - 1)) == []
