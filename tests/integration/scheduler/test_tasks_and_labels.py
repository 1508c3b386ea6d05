"""Tasks out, labels in."""

from collections.abc import Callable

import pytest

from sealpool.errors import (
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    NotFound,
    SealpoolError,
    Unavailable,
)
from sealpool.v1 import common_pb2
from sealpool.v1 import scheduler_pb2 as pb
from tests.unit.scheduler.world import World, make_spec


@pytest.fixture
def seeded(world: World) -> World:
    world.client.create_campaign(make_spec(evaluation_pool="held-out", lease_seconds=60))
    world.client.run_round("c")
    return world


def test_a_task_carries_what_its_annotator_reads(seeded: World) -> None:
    answer = seeded.client.lease_tasks("c", annotator="x", max_tasks=2)
    assert answer.open_tasks == 4
    task = answer.tasks[0]
    assert task.item_id == seeded.picks()[0][0]
    assert task.text == f"text {int(task.item_id[1:])}"
    assert task.metadata_json == f'{{"labels": "{seeded.truth(task.item_id)}"}}'
    assert (task.round, task.score, task.origin) == (0, 0, common_pb2.PICK_ORIGIN_SEED)
    assert task.lease_expires_at.ToSeconds() == seeded.clock.now().timestamp() + 60


@pytest.mark.parametrize("error", [Unavailable("away"), NotFound("pool", "pool"), InternalError("fault 1")])
def test_tasks_come_without_text_while_the_index_server_cannot_be_asked(seeded: World, error: SealpoolError) -> None:
    seeded.index.troubles.always("get_items", error)
    tasks = seeded.client.lease_tasks("c", annotator="x", max_tasks=2).tasks
    assert len(tasks) == 2
    assert all(task.item_id and not task.text for task in tasks)


def test_a_lease_that_ran_out_opens_its_task_again(seeded: World) -> None:
    mine = seeded.client.lease_tasks("c", annotator="x", max_tasks=6, lease_s=10).tasks
    assert list(seeded.client.lease_tasks("c", annotator="y", max_tasks=6).tasks) == []
    campaign = seeded.client.get_campaign("c")
    assert (campaign.open_tasks, campaign.leased_tasks) == (0, 6)
    seeded.clock.advance(10)
    assert seeded.client.get_campaign("c").open_tasks == 6
    again = seeded.client.lease_tasks("c", annotator="y", max_tasks=6).tasks
    assert [task.item_id for task in again] == [task.item_id for task in mine]


def test_a_label_after_its_lease_ran_out_counts(seeded: World) -> None:
    item = seeded.client.lease_tasks("c", annotator="x", max_tasks=1, lease_s=1).tasks[0].item_id
    seeded.clock.advance(100)
    answer = seeded.client.submit_labels("c", {item: ["a"]}, annotator="x")
    assert (answer.accepted, answer.unsolicited, answer.labels) == (1, 0, 1)


def test_labels_are_marked_for_what_they_are(seeded: World) -> None:
    asked = seeded.picks()[0][0]
    other = next(item for item in seeded.index.pools["pool"] if item not in seeded.picks()[0])
    first = seeded.client.submit_labels("c", {asked: ["a"], other: ["b"]}, annotator="x")
    assert (first.accepted, first.unsolicited, first.corrections, first.labels) == (2, 1, 0, 2)
    second = seeded.client.submit_labels("c", {asked: ["b"]}, annotator="y")
    assert (second.accepted, second.unsolicited, second.corrections, second.labels) == (1, 0, 1, 2)
    marks = [(lb.item_id, list(lb.classes), lb.annotator, lb.unsolicited, lb.corrects) for lb in seeded.labels()]
    assert marks == [
        (asked, ["a"], "x", False, False),
        (other, ["b"], "x", True, False),
        (asked, ["b"], "y", False, True),
    ]
    effective = seeded.labels(only_effective=True)
    assert [(lb.item_id, list(lb.classes)) for lb in effective] == [(other, ["b"]), (asked, ["b"])]
    sequences = [lb.sequence for lb in seeded.labels()]
    assert sequences == sorted(set(sequences))
    assert [lb.item_id for lb in seeded.labels(after_sequence=sequences[1])] == [asked]


def test_held_out_labels_cost_no_budget_and_are_listed_apart(seeded: World) -> None:
    held_out = {item: [seeded.truth(item)] for item in seeded.index.pools["held-out"]}
    answer = seeded.client.submit_labels("c", held_out, annotator="x", purpose=pb.LABEL_PURPOSE_EVALUATION)
    assert (answer.accepted, answer.labels) == (12, 0)
    assert seeded.labels() == []
    assert len(seeded.labels(purpose=pb.LABEL_PURPOSE_EVALUATION)) == 12


def test_only_items_that_nobody_handed_out_are_looked_up(seeded: World) -> None:
    seeded.index.troubles.always("get_items", Unavailable("away"))
    seeded.client.submit_labels("c", {seeded.picks()[0][0]: ["a"]}, annotator="x")


def test_a_correction_is_taken_after_the_budget_is_spent(world: World) -> None:
    world.client.create_campaign(make_spec(budget=2, seed_size=0))
    world.client.submit_labels("c", {"i000": ["a"], "i001": ["b"]}, annotator="x")
    assert world.client.run_round("c").campaign_state == pb.CAMPAIGN_STATE_COMPLETED
    assert world.client.submit_labels("c", {"i000": ["b"]}, annotator="x").labels == 2
    with pytest.raises(FailedPrecondition, match="beyond the budget"):
        world.client.submit_labels("c", {"i002": ["b"]}, annotator="x")


def test_a_paused_campaign_hands_out_nothing_and_takes_labels(seeded: World) -> None:
    assert seeded.client.pause_campaign("c").state == pb.CAMPAIGN_STATE_PAUSED
    assert seeded.client.pause_campaign("c").state == pb.CAMPAIGN_STATE_PAUSED
    with pytest.raises(FailedPrecondition, match="paused"):
        seeded.client.lease_tasks("c", annotator="x", max_tasks=1)
    seeded.client.submit_labels("c", {seeded.picks()[0][0]: ["a"]}, annotator="x")
    assert seeded.client.resume_campaign("c").state == pb.CAMPAIGN_STATE_ACTIVE
    assert len(seeded.client.lease_tasks("c", annotator="x", max_tasks=9).tasks) == 5


def test_archiving_withdraws_tasks_and_drops_the_candidate_pool(seeded: World) -> None:
    seeded.client.lease_tasks("c", annotator="x", max_tasks=2)
    archived = seeded.client.archive_campaign("c")
    assert (archived.state, archived.open_tasks, archived.leased_tasks) == (pb.CAMPAIGN_STATE_ARCHIVED, 0, 0)
    assert seeded.index.dropped == [("pool", "c")]
    seeded.client.archive_campaign("c")
    assert seeded.index.dropped == [("pool", "c")]
    assert seeded.client.list_campaigns() == []
    assert [c.spec.name for c in seeded.client.list_campaigns(include_archived=True)] == ["c"]
    assert len(seeded.client.list_rounds("c")) == 1


def test_a_candidate_pool_is_dropped_once_the_index_server_is_back(seeded: World) -> None:
    seeded.index.troubles.always("drop_candidates", Unavailable("away"))
    seeded.client.archive_campaign("c")
    assert seeded.index.dropped == []
    seeded.index.troubles.always("drop_candidates", None)
    seeded.restart()
    assert seeded.index.dropped == [("pool", "c")]


def test_archiving_ends_a_round_that_waits(seeded: World) -> None:
    seeded.label()
    seeded.learner.troubles.always("select", Unavailable("away"))
    with pytest.raises(Unavailable):
        seeded.client.run_round("c")
    seeded.client.archive_campaign("c")
    seeded.restart()
    last = seeded.client.get_campaign("c").last_round
    assert last.state == pb.ROUND_STATE_FAILED
    assert "archived" in last.error


def test_every_mutating_call_repeated_changes_nothing_and_answers_the_same(world: World) -> None:
    client = world.client

    def twice(call: Callable[[], object]) -> None:
        assert call() == call()

    twice(lambda: client.create_campaign(make_spec(), request_id="create"))
    twice(lambda: client.run_round("c", request_id="run"))
    assert len(client.list_rounds("c")) == 1
    twice(lambda: client.lease_tasks("c", annotator="x", max_tasks=2, request_id="lease"))
    assert client.get_campaign("c").leased_tasks == 2
    items = {item: [world.truth(item)] for item in world.picks()[0]}
    twice(lambda: client.submit_labels("c", items, annotator="x", request_id="submit"))
    assert len(world.labels()) == 6
    twice(lambda: client.pause_campaign("c", request_id="pause"))
    twice(lambda: client.resume_campaign("c", request_id="resume"))
    assert client.pause_campaign("c", request_id="pause").state == pb.CAMPAIGN_STATE_PAUSED
    assert client.get_campaign("c").state == pb.CAMPAIGN_STATE_ACTIVE
    client.run_round("c")
    assert client.run_round("c", request_id="run").round.number == 0
    twice(lambda: client.archive_campaign("c", request_id="archive"))
    world.restart()
    world.index.troubles.always("get_pool", Unavailable("away"))
    assert world.client.create_campaign(make_spec(), request_id="create").state == pb.CAMPAIGN_STATE_ACTIVE
    with pytest.raises(InvalidArgument, match="request_id"):
        world.client.create_campaign(make_spec(seed=1), request_id="create")
    with pytest.raises(InvalidArgument, match="request_id"):
        world.client.archive_campaign("c", request_id="pause")


def test_a_repeated_run_waits_for_the_round_that_it_began(world: World) -> None:
    world.client.create_campaign(make_spec())
    world.index.troubles.once("sample_items", Unavailable("away"))
    with pytest.raises(Unavailable):
        world.client.run_round("c", request_id="r")
    assert world.client.run_round("c", request_id="r").round.number == 0
