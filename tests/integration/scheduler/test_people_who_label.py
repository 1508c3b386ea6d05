"""Several people and one campaign: leases, skips, votes, predictions, clocks."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from sealpool.errors import FailedPrecondition, InvalidArgument, NotFound, SealpoolError, Unavailable
from sealpool.v1 import scheduler_pb2 as pb
from tests.unit.scheduler.world import World, make_spec

SKIP = pb.ANNOTATION_OUTCOME_SKIP
CANNOT_TELL = pb.ANNOTATION_OUTCOME_CANNOT_TELL


@pytest.fixture
def seeded(world: World) -> World:
    world.client.create_campaign(make_spec(lease_seconds=60))
    world.client.run_round("c")
    return world


@pytest.fixture
def shared(world: World) -> World:
    world.client.create_campaign(make_spec(lease_seconds=60, annotation=pb.AnnotationSpec(annotations=2)))
    world.client.run_round("c")
    return world


def lease(world: World, annotator: str, count: int = 9) -> list[str]:
    return [task.item_id for task in world.client.lease_tasks("c", annotator=annotator, max_tasks=count).tasks]


def answer(world: World, annotator: str, *answers: pb.NewLabel) -> pb.SubmitLabelsResponse:
    return world.client.submit_annotations("c", answers, annotator=annotator)


def test_annotations_are_listed_as_they_were_given(seeded: World) -> None:
    first, second, *_ = lease(seeded, "x")
    answer(
        seeded,
        "x",
        pb.NewLabel(item_id=first, classes=["b"], confidence=0.0, comment="sure?"),
        pb.NewLabel(item_id=second, outcome=SKIP),
    )
    answer(seeded, "y", pb.NewLabel(item_id=second, outcome=CANNOT_TELL))
    said = list(seeded.client.list_annotations("c"))
    assert [(one.item_id, one.annotator, one.outcome, list(one.classes)) for one in said] == [
        (first, "x", pb.ANNOTATION_OUTCOME_LABEL, ["b"]),
        (second, "x", SKIP, []),
        (second, "y", CANNOT_TELL, []),
    ]
    assert (said[0].HasField("confidence"), said[0].confidence, said[0].comment) == (True, 0.0, "sure?")
    assert not said[1].HasField("confidence")
    assert [one.purpose for one in said] == [pb.LABEL_PURPOSE_TRAINING] * 3
    assert [one.annotator for one in seeded.client.list_annotations("c", item_id=second)] == ["x", "y"]
    assert [one.item_id for one in seeded.client.list_annotations("c", annotator="x")] == [first, second]
    assert list(seeded.client.list_annotations("c", after_sequence=said[1].sequence)) == said[2:]
    with pytest.raises(NotFound):
        list(seeded.client.list_annotations("nobody"))


def test_long_comments_are_listed_in_messages_of_bounded_size(world: World) -> None:
    world.client.create_campaign(make_spec(seed_size=0))
    for start in range(0, 60, 20):
        given = [pb.NewLabel(item_id=f"i{start + at:03d}", outcome=SKIP, comment="x" * 16_384) for at in range(20)]
        for _ in range(6):
            answer(world, "x", *given)
    assert len(list(world.client.list_annotations("c"))) == 360  # 6 MB; a message takes 4


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (pb.NewLabel(classes=["a"], confidence=math.nan), "confidence"),
        (pb.NewLabel(classes=["a"], confidence=1.01), "confidence"),
        (pb.NewLabel(classes=["a"], confidence=-math.inf), "confidence"),
        (pb.NewLabel(classes=["a"], comment="x" * 16_385), "comment"),
        (pb.NewLabel(classes=["a"], comment="\0"), "comment"),
        (pb.NewLabel(classes=["a"], outcome=SKIP), "classes"),
        (pb.NewLabel(outcome=pb.ANNOTATION_OUTCOME_LABEL), "classes"),
        (pb.NewLabel(outcome=9), "outcome"),  # type: ignore[arg-type]
    ],
)
def test_what_is_wrong_with_an_annotation_is_named_and_nothing_is_kept(
    seeded: World, wrong: pb.NewLabel, field: str
) -> None:
    wrong.item_id = "i001"
    with pytest.raises(InvalidArgument, match=rf"labels\[1\].{field}"):
        answer(seeded, "x", pb.NewLabel(item_id="i000", classes=["a"]), wrong)
    assert list(seeded.client.list_annotations("c")) == []


def test_a_skipped_item_goes_to_others_and_one_that_nobody_can_tell_is_given_up(seeded: World) -> None:
    first, second, *_ = lease(seeded, "x")
    done = answer(
        seeded, "x", pb.NewLabel(item_id=first, outcome=SKIP), pb.NewLabel(item_id=second, outcome=CANNOT_TELL)
    )
    assert (done.accepted, done.waiting, done.given_up, done.labels) == (2, 2, 0, 0)
    assert lease(seeded, "x") == []
    assert set(lease(seeded, "y")) == {first, second}
    done = answer(seeded, "y", pb.NewLabel(item_id=second, outcome=CANNOT_TELL))
    assert (done.waiting, done.given_up) == (0, 1)
    campaign = seeded.client.get_campaign("c")
    assert (campaign.given_up, campaign.open_tasks, campaign.leased_tasks, campaign.labels) == (1, 0, 5, 0)


def test_two_who_agree_label_an_item_and_two_who_do_not_call_a_third(shared: World) -> None:
    items = lease(shared, "x")
    assert lease(shared, "y") == items
    assert lease(shared, "z") == []
    assert shared.client.submit_labels("c", {item: ["a"] for item in items}, annotator="x").waiting == 6
    done = shared.client.submit_labels("c", {items[0]: ["a"], items[1]: ["b"]}, annotator="y")
    assert (done.waiting, done.labels, done.corrections) == (1, 1, 0)
    assert lease(shared, "x") == []
    assert lease(shared, "z") == [items[1]]
    shared.client.submit_labels("c", {items[1]: ["b"]}, annotator="z")
    assert {one.item_id: one.classes[0] for one in shared.labels()} == {items[0]: "a", items[1]: "b"}


def test_tasks_carry_what_the_last_model_says_where_that_is_asked(seeded: World) -> None:
    seeded.label()
    seeded.client.run_round("c")
    task = seeded.client.lease_tasks("c", annotator="x", max_tasks=1, include_predictions=True).tasks[0]
    assert sorted(one.name for one in task.predictions) == ["a", "b"]
    probabilities = [one.probability for one in task.predictions]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1)
    assert not seeded.client.lease_tasks("c", annotator="x", max_tasks=1).tasks[0].predictions


@pytest.mark.parametrize("error", [Unavailable("away"), None])
def test_tasks_come_without_predictions_while_there_is_no_model_to_ask(
    seeded: World, error: SealpoolError | None
) -> None:
    seeded.learner.troubles.always("predict", error)  # None: the learner has no model yet
    tasks = seeded.client.lease_tasks("c", annotator="x", max_tasks=2, include_predictions=True).tasks
    assert len(tasks) == 2
    assert not any(task.predictions for task in tasks)
    assert "tasks without predictions" in seeded.log.getvalue()


def test_leases_are_renewed_until_another_has_the_task(seeded: World) -> None:
    a, b, *_ = [task.id for task in seeded.client.lease_tasks("c", annotator="x", max_tasks=6).tasks]
    seeded.clock.advance(50)
    assert seeded.client.renew_leases("c", annotator="x", task_ids=[a]).renewed == 1
    seeded.clock.advance(50)
    assert seeded.client.get_campaign("c").leased_tasks == 1
    assert len(lease(seeded, "y", 1)) == 1  # b
    answer_ = seeded.client.renew_leases(
        "c", annotator="x", task_ids=[a, b, "nonsense", "9" * 5_000, "-1"], lease_s=500
    )
    assert (answer_.renewed, list(answer_.lost)) == (1, [b, "nonsense", "9" * 5_000, "-1"])
    assert seeded.client.renew_leases("c", annotator="x").renewed == 5  # those that ran out and nobody took
    assert seeded.client.renew_leases("c", annotator="nobody").renewed == 0
    with pytest.raises(InvalidArgument, match="lease_seconds"):
        seeded.client.renew_leases("c", annotator="x", lease_s=math.nan)
    with pytest.raises(NotFound):
        seeded.client.renew_leases("nobody", annotator="x")


def test_tasks_given_back_are_open_at_once(seeded: World) -> None:
    tasks = seeded.client.lease_tasks("c", annotator="x", max_tasks=6).tasks
    assert seeded.client.release_tasks("c", annotator="y", task_ids=[tasks[0].id]) == 0
    assert seeded.client.release_tasks("c", annotator="x", task_ids=[tasks[0].id, "nonsense"]) == 1
    assert seeded.client.release_tasks("c", annotator="x", task_ids=["nonsense"]) == 0
    assert lease(seeded, "y") == [tasks[0].item_id]
    assert seeded.client.release_tasks("c", annotator="x") == 5
    assert seeded.client.get_campaign("c").open_tasks == 5


def test_an_expired_lease_answered_late_counts_and_so_does_the_answer_of_who_holds_it_now(seeded: World) -> None:
    item = lease(seeded, "late", 1)[0]
    seeded.clock.advance(61)
    assert lease(seeded, "holder", 1) == [item]
    assert seeded.client.submit_labels("c", {item: ["a"]}, annotator="late").corrections == 0
    assert seeded.client.renew_leases("c", annotator="holder").renewed == 0
    done = seeded.client.submit_labels("c", {item: ["b"]}, annotator="holder")
    assert (done.corrections, done.labels, done.unsolicited) == (1, 1, 0)


def test_a_clock_set_forward_ends_leases_and_one_set_back_makes_them_longer(seeded: World) -> None:
    items = lease(seeded, "x")
    seeded.clock.advance(-3_600)
    assert lease(seeded, "y") == []
    seeded.client.submit_labels("c", {items[0]: ["a"]}, annotator="x")
    assert seeded.client.release_tasks("c", annotator="x") == 5
    assert len(lease(seeded, "y")) == 5
    seeded.clock.advance(2 * 3_600)
    assert lease(seeded, "z") == items[1:]
    seeded.client.submit_labels("c", {items[1]: ["a"]}, annotator="y")
    assert seeded.client.get_campaign("c").labels == 2


def test_an_archived_campaign_takes_nothing_and_still_tells(seeded: World) -> None:
    items = lease(seeded, "x")
    seeded.client.submit_labels("c", {items[0]: ["a"]}, annotator="x")
    seeded.client.archive_campaign("c")
    with pytest.raises(FailedPrecondition, match="archived"):
        seeded.client.submit_labels("c", {items[1]: ["a"]}, annotator="x")
    with pytest.raises(FailedPrecondition, match="archived"):
        lease(seeded, "x")
    for refused in (
        lambda: seeded.client.review_labels("c", max_items=3),
        lambda: seeded.client.draw_audit("c", items=3),
    ):
        with pytest.raises(FailedPrecondition, match="archived"):
            refused()
    assert seeded.client.renew_leases("c", annotator="x").renewed == 0
    assert len(list(seeded.client.list_annotations("c"))) == 1
    assert seeded.client.get_oracle_report("c").annotators[0].labels == 1


def test_every_call_of_annotators_repeated_changes_nothing_and_answers_the_same(seeded: World) -> None:
    client = seeded.client
    seeded.label()
    calls: list[Callable[[str], object]] = [
        lambda r: client.draw_audit("c", items=4, request_id=r),
        lambda r: client.lease_tasks("c", annotator="x", max_tasks=2, request_id=r),
        lambda r: client.renew_leases("c", annotator="x", lease_s=99, request_id=r),
        lambda r: client.release_tasks("c", annotator="x", request_id=r),
        lambda r: client.submit_labels("c", {"i000": ["a"], "i001": ["b"]}, annotator="x", request_id=r),
        lambda r: client.review_labels("c", max_items=2, folds=2, request_id=r),
    ]
    first = []
    for number, call in enumerate(calls):
        first.append(call(f"r{number}"))
        assert call(f"r{number}") == first[-1]
    said = len(list(client.list_annotations("c")))
    client.archive_campaign("c")
    seeded.restart()
    client = seeded.client
    assert [call(f"r{number}") for number, call in enumerate(calls)] == first
    assert len(list(client.list_annotations("c"))) == said
    with pytest.raises(InvalidArgument, match="other content"):
        client.draw_audit("c", items=5, request_id="r0")


def test_a_thousand_annotators_at_once_get_each_task_once(world: World) -> None:
    world.index.add_pool("pool", 1_600)
    world.client.create_campaign(make_spec(seed_size=1_500, batch_size=5, budget=2_000))
    world.client.run_round("c")

    def ask(number: int) -> list[str]:
        request = pb.LeaseTasksRequest(campaign="c", annotator=f"x{number}", max_tasks=6)
        return [task.item_id for task in world.scheduler.servicer._tasks.lease(request).tasks]

    with ThreadPoolExecutor(50) as pool:
        taken = [item for mine in pool.map(ask, range(1_000)) for item in mine]
    assert len(taken) == len(set(taken)) == 1_500
