"""Doubted labels, audits, and who agrees with whom."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from sealpool.client import Predictions
from sealpool.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from sealpool.types import LabelledItems
from sealpool.v1 import common_pb2, learner_pb2
from sealpool.v1 import scheduler_pb2 as pb
from tests.unit.scheduler.world import World, make_spec


@pytest.fixture
def labelled(world: World) -> World:
    """A campaign with 20 labelled items, of which i004 and i007 are labelled wrongly."""
    world.client.create_campaign(make_spec(seed_size=0, budget=40))
    items = [f"i{at:03d}" for at in range(20)]
    swap = {"a": "b", "b": "a"}
    wrong = ("i004", "i007")
    given = {item: [swap[world.truth(item)] if item in wrong else world.truth(item)] for item in items}
    world.client.submit_labels("c", given, annotator="x")
    knows(world, {"i004": 0.99})
    return world


def knows(world: World, sure: dict[str, float]) -> None:
    """Let models that have not seen a label be right, with probability 0.9 or as told."""

    def cross_predict(header: learner_pb2.TrainHeader, examples: LabelledItems, *, folds: int) -> Iterator[Predictions]:
        world.learner.troubles.meet("cross_predict")
        world.learner.trained.append((header, examples))
        for start in range(0, len(examples), 7):
            ids = list(examples.ids)[start : start + 7]
            yield Predictions(ids=ids, probabilities=rows(ids), classes=list(header.classes), round=0)

    def rows(ids: Sequence[str]) -> NDArray[np.float32]:
        right = [sure.get(item, 0.9) for item in ids]
        return np.array(
            [[p, 1 - p] if world.truth(item) == "a" else [1 - p, p] for item, p in zip(ids, right, strict=True)],
            np.float32,
        )

    world.learner.cross_predict = cross_predict  # type: ignore[method-assign]


def suspects(answer: pb.ReviewLabelsResponse) -> list[str]:
    return [suspect.item_id for suspect in answer.suspects]


def test_the_worst_labels_are_shown_first_and_handed_out_once(labelled: World) -> None:
    shown = labelled.client.review_labels("c", max_items=5, show_only=True)
    assert (suspects(shown), shown.tasks) == (["i004", "i007"], 0)
    assert [suspect.quality for suspect in shown.suspects] == pytest.approx([0.01, 0.1])
    assert list(shown.suspects[0].classes) == ["b"]
    assert [one.name for one in shown.suspects[0].predictions] == ["a", "b"]
    first = labelled.client.review_labels("c", max_items=1)
    assert (suspects(first), first.tasks) == (["i004"], 1)
    campaign = labelled.client.get_campaign("c")
    assert (campaign.open_tasks, campaign.review_tasks) == (1, 1)
    second = labelled.client.review_labels("c", max_items=5)
    assert (suspects(second), second.tasks) == (["i007"], 1)
    assert suspects(labelled.client.review_labels("c", max_items=5)) == []
    header, examples = labelled.learner.trained[-1]
    assert (header.campaign, header.pool, len(examples)) == ("c", "pool", 20)


def test_a_review_is_answered_with_a_label_that_corrects(labelled: World) -> None:
    labelled.client.review_labels("c", max_items=5)
    leased = labelled.client.lease_tasks("c", annotator="x", max_tasks=5).tasks
    assert [(task.item_id, task.origin) for task in leased] == [
        ("i004", common_pb2.PICK_ORIGIN_REVIEW),
        ("i007", common_pb2.PICK_ORIGIN_REVIEW),
    ]
    assert {task.purpose for task in leased} == {pb.LABEL_PURPOSE_TRAINING}
    done = labelled.client.submit_labels("c", {"i004": ["a"], "i007": ["a"]}, annotator="x")
    assert (done.corrections, done.labels, done.unsolicited) == (2, 20, 0)
    assert labelled.client.get_campaign("c").review_tasks == 0
    said = list(labelled.client.list_annotations("c", item_id="i004"))
    assert [one.purpose for one in said] == [pb.LABEL_PURPOSE_TRAINING] * 2


def test_a_review_needs_labels_enough_of_every_class(world: World) -> None:
    world.client.create_campaign(make_spec(seed_size=0, name="few"))
    world.client.submit_labels("few", {f"i{at:03d}": ["a"] for at in range(9)}, annotator="x")
    with pytest.raises(FailedPrecondition, match="5 folds of 2 classes need 10"):
        world.client.review_labels("few", max_items=1)
    with pytest.raises(FailedPrecondition, match="of class 'a'"):
        world.client.review_labels("few", max_items=1, folds=4)
    several = make_spec(seed_size=0, name="several", task=common_pb2.TASK_KIND_MULTILABEL)
    world.client.create_campaign(several)
    world.client.submit_labels("several", {f"i{at:03d}": ["a"] if at % 2 else [] for at in range(12)}, annotator="x")
    with pytest.raises(FailedPrecondition, match="no item is labelled with class 'b'"):
        world.client.review_labels("several", max_items=1)


def test_a_wrong_review_is_refused(labelled: World) -> None:
    for items, folds, field in ((0, 5, "max_items"), (10**6, 5, "max_items"), (1, 1, "folds"), (1, 21, "folds")):
        with pytest.raises(InvalidArgument, match=field):
            labelled.client.review_labels("c", max_items=items, folds=folds)
    with pytest.raises(NotFound):
        labelled.client.review_labels("nobody", max_items=1)
    labelled.learner.troubles.always("cross_predict", Unavailable("away"))
    with pytest.raises(Unavailable):
        labelled.client.review_labels("c", max_items=1)
    assert labelled.client.get_campaign("c").review_tasks == 0


def test_reviews_go_on_while_a_campaign_is_completed(world: World) -> None:
    world.client.create_campaign(make_spec(seed_size=0, budget=10))
    world.client.submit_labels("c", {f"i{at:03d}": [world.truth(f"i{at + 1:03d}")] for at in range(10)}, annotator="x")
    world.client.create_campaign(make_spec(name="unaudited", seed_size=0, budget=2))
    world.client.submit_labels("unaudited", {"i000": ["a"], "i001": ["b"]}, annotator="x")
    assert world.client.run_round("unaudited").campaign_state == pb.CAMPAIGN_STATE_COMPLETED
    with pytest.raises(FailedPrecondition, match="completed"):
        world.client.lease_tasks("unaudited", annotator="y", max_tasks=5)
    assert world.client.draw_audit("c", items=2).drawn == 2
    assert world.client.run_round("c").campaign_state == pb.CAMPAIGN_STATE_COMPLETED
    drawn = world.client.draw_audit("c", items=3)
    assert (drawn.drawn, drawn.labelled) == (3, 0)
    leased = world.client.lease_tasks("c", annotator="y", max_tasks=5)
    assert (len(leased.tasks), leased.open_tasks) == (3, 0)
    item = leased.tasks[0].item_id
    assert world.client.submit_labels("c", {item: ["a"]}, annotator="y").labels == 10
    assert world.client.draw_audit("c", items=3).labelled == 1


def test_an_audit_is_drawn_once_among_items_that_nobody_has_seen(world: World) -> None:
    world.client.create_campaign(make_spec())
    world.client.run_round("c")
    world.client.submit_labels("c", {"i000": ["a"], "i001": ["b"]}, annotator="x")
    seen = {*world.picks()[0], "i000", "i001"}
    assert world.client.draw_audit("c", items=10).drawn == 10
    assert world.client.draw_audit("c", items=4).drawn == 10
    assert world.client.draw_audit("c", items=25).drawn == 25
    tasks = world.client.lease_tasks("c", annotator="y", max_tasks=100).tasks
    audited = [task.item_id for task in tasks if task.purpose == pb.LABEL_PURPOSE_AUDIT]
    assert len(set(audited)) == 25
    assert not seen.intersection(audited)
    world.client.submit_labels("c", {item: [world.truth(item)] for item in audited}, annotator="y")
    campaign = world.client.get_campaign("c")
    assert (campaign.labels, campaign.review_tasks) == (2, 0)
    assert [one.item_id for one in world.labels(purpose=pb.LABEL_PURPOSE_AUDIT)] == audited
    world.label()
    world.client.run_round("c")
    assert not set(audited).intersection(world.learner.trained[-1][1].ids)
    assert not set(audited).intersection(world.picks()[1])


def test_an_audit_takes_what_the_pool_has(world: World) -> None:
    world.client.create_campaign(make_spec())
    assert world.client.draw_audit("c", items=100).drawn == 60
    with pytest.raises(InvalidArgument, match="items"):
        world.client.draw_audit("c", items=100_001)
    world.index.troubles.always("sample_items", Unavailable("away"))
    assert world.client.draw_audit("c", items=60).drawn == 60
    with pytest.raises(Unavailable):
        world.client.draw_audit("c", items=61)


def test_the_report_tells_who_labelled_and_who_agrees(world: World) -> None:
    world.client.create_campaign(make_spec(seed_size=0, annotation=pb.AnnotationSpec(annotations=2)))
    empty = world.client.get_oracle_report("c")
    assert (list(empty.annotators), empty.several) == ([], 0)
    assert math.isnan(empty.agreement)
    assert not empty.HasField("llm")
    world.client.submit_labels("c", {"i000": ["a"], "i001": ["a"], "i002": ["b"]}, annotator="x")
    world.client.submit_labels("c", {"i000": ["a"], "i001": ["b"]}, annotator="y")
    skipped = [
        pb.NewLabel(item_id="i005", outcome=pb.ANNOTATION_OUTCOME_SKIP),
        pb.NewLabel(item_id="i006", outcome=pb.ANNOTATION_OUTCOME_CANNOT_TELL),
        pb.NewLabel(item_id="i001", classes=["b"]),
    ]
    world.client.submit_annotations("c", skipped, annotator="z")
    report = world.client.get_oracle_report("c")
    assert [
        (one.annotator, one.labels, one.skipped, one.cannot_tell, one.compared, one.agreed) for one in report.annotators
    ] == [("x", 3, 0, 0, 2, 1), ("y", 2, 0, 0, 2, 2), ("z", 1, 1, 1, 1, 1)]
    assert report.several == 2
    # Units aa and abb: n = 5, D_o = (0 + 4/2)/5, D_e = 2·3·2/(5·4).
    assert report.agreement == pytest.approx(1 - (2 / 5) / (12 / 20))
    with pytest.raises(NotFound):
        world.client.get_oracle_report("nobody")
