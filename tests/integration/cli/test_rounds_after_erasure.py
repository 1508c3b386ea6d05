"""What a campaign does once items of it are erased: a real index server and learner, and rounds that go on."""

from collections.abc import Iterator

import numpy as np
import pytest

from sealpool.cli.app import run
from sealpool.client import IndexClient, SchedulerClient
from sealpool.types import ItemId, Items, Payload
from sealpool.v1 import common_pb2, index_pb2, scheduler_pb2
from tests.support.processes import Stack

IDS = [ItemId(f"report-{number:03}") for number in range(240)]
CLASSES = ["north", "south"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("erased"))
    stack.start()
    try:
        yield stack
    finally:
        stack.kill()


@pytest.fixture
def scheduler(stack: Stack) -> Iterator[SchedulerClient]:
    with SchedulerClient(stack.scheduler.address) as client:
        yield client


def fill(stack: Stack, pool: str) -> None:
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 2, len(IDS))
    vectors = rng.normal(0, 0.4, (len(IDS), 8)).astype(np.float32)
    vectors[:, 0] += 2 * classes - 1
    payloads = [Payload(text="a text", metadata={"labels": CLASSES[label]}) for label in classes]
    with IndexClient(stack.index.address) as index:
        index.create_pool(index_pb2.PoolSpec(name=pool, dimension=8))
        index.upsert(pool, Items(ids=IDS, vectors=vectors, payloads=payloads))


def spec(name: str, **more: object) -> scheduler_pb2.CampaignSpec:
    made = scheduler_pb2.CampaignSpec(
        name=name,
        pool=name,
        task=common_pb2.TASK_KIND_MULTICLASS,
        classes=CLASSES,
        strategy=common_pb2.StrategySpec(name="entropy"),
        policy=common_pb2.PolicySpec(name="seals", k=5),
        batch_size=10,
        seed_size=10,
        budget=150,
        seed=7,
        oracle=scheduler_pb2.OracleSpec(name="dataset"),
    )
    made.MergeFrom(scheduler_pb2.CampaignSpec(**more))  # type: ignore[arg-type]
    return made


def erase(stack: Stack, pool: str, *items: str) -> None:
    where = ["--index", stack.index.address, "--scheduler", stack.scheduler.address]
    assert run(["erase", "items", pool, *items, "--yes", *where]) == 0


def labelled(scheduler: SchedulerClient, campaign: str, purpose: int) -> list[str]:
    labels = scheduler.list_labels(campaign, purpose=purpose)  # type: ignore[arg-type]
    return [label.item_id for label in labels]


def test_rounds_go_on_without_erased_items_of_every_kind(stack: Stack, scheduler: SchedulerClient) -> None:
    fill(stack, "first")
    scheduler.create_campaign(
        spec(
            "first",
            evaluation=scheduler_pb2.EvaluationSpec(items=20, test_pool=30, test_points=5),
            stopping=scheduler_pb2.StoppingSpec(kappa=0.99, stop_set=40),
        )
    )
    scheduler.run_round("first")
    scheduler.run_round("first")
    training = labelled(scheduler, "first", scheduler_pb2.LABEL_PURPOSE_TRAINING)
    held_out = labelled(scheduler, "first", scheduler_pb2.LABEL_PURPOSE_EVALUATION)
    # Of all that was drawn: whatever is neither labelled nor held out is a candidate, or of the stop set or test pool.
    others = [item for item in IDS if item not in {*training, *held_out}][:40]
    erase(stack, "first", *training[:4], *held_out[:6], *others)
    for _ in "abc":
        ran = scheduler.run_round("first").round
        assert ran.state == scheduler_pb2.ROUND_STATE_FINISHED, ran.error
        assert ran.picks > 0
    assert ran.labels == len(training) + 20 - 4  # which have no vectors any more
    left = {*labelled(scheduler, "first", scheduler_pb2.LABEL_PURPOSE_TRAINING)}
    assert not left & {*training[:4], *others}
    assert sum(item.startswith("erased:") for item in left) == 4


def test_a_campaign_whose_examples_are_erased_before_it_begins_is_seeded_by_the_others(
    stack: Stack, scheduler: SchedulerClient
) -> None:
    fill(stack, "second")
    seeding = scheduler_pb2.SeedingSpec(kind=scheduler_pb2.SEEDING_KIND_EXAMPLES, item_ids=IDS[:3])
    scheduler.create_campaign(spec("second", seeding=seeding))
    erase(stack, "second", IDS[0])
    assert scheduler.run_round("second").round.state == scheduler_pb2.ROUND_STATE_FINISHED
    assert scheduler.get_campaign("second").spec.seeding.item_ids[1:] == IDS[1:3]
    assert {*IDS[1:3]} <= {*labelled(scheduler, "second", scheduler_pb2.LABEL_PURPOSE_TRAINING)}
