"""Any service may be killed at any point: after its restart a campaign goes on to the picks it would have made."""

import contextlib
import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sealpool.client import ClientOptions, IndexClient, SchedulerClient
from sealpool.errors import FailedPrecondition, Unavailable
from sealpool.types import ItemId, Items, Payload
from sealpool.v1 import common_pb2, index_pb2, scheduler_pb2
from tests.support.processes import ServiceProcess, Stack

CLASSES = ["north", "east", "south", "west"]
BUDGET = 80
IMPATIENT = ClientOptions(retry_for_s=0, long_timeout_s=60)

Labels = list[tuple[int, str, tuple[str, ...]]]
"""(round, item, classes) in the order of commitment."""


def make_items(prefix: str, count: int, seed: int) -> Items:
    """Make four clusters that overlap, with the true class in the metadata."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 4, count)
    centres = np.array([[0, 1], [1, 0], [0, -1], [-1, 0]], np.float32)
    vectors = np.concatenate([centres[classes], np.zeros((count, 6))], axis=1) + rng.normal(0, 0.5, (count, 8))
    return Items(
        ids=[ItemId(f"{prefix}-{number}") for number in range(count)],
        vectors=vectors.astype(np.float32),
        payloads=[Payload(metadata={"labels": CLASSES[label]}) for label in classes],
    )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Three services with a pool of 500 items and one of 100 held-out items."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        stack.start()
        with IndexClient(stack.index.address) as index:
            for pool, count, seed in (("pool", 500, 1), ("held-out", 100, 2)):
                index.create_pool(index_pb2.PoolSpec(name=pool, dimension=8))
                index.upsert(pool, make_items(pool, count, seed))
        yield stack
        assert stack.stop() == [0, 0, 0]
    finally:
        stack.kill()


def begin(stack: Stack, name: str) -> None:
    spec = scheduler_pb2.CampaignSpec(
        name=name,
        pool="pool",
        task=common_pb2.TASK_KIND_MULTICLASS,
        classes=CLASSES,
        strategy=common_pb2.StrategySpec(name="entropy"),
        policy=common_pb2.PolicySpec(name="seals", k=5),
        batch_size=20,
        seed_size=20,
        budget=BUDGET,
        exploration=0.1,
        seed=7,
        oracle=scheduler_pb2.OracleSpec(name="dataset"),
        evaluation_pool="held-out",
    )
    with SchedulerClient(stack.scheduler.address) as scheduler:
        scheduler.create_campaign(spec)


def run_to_the_end(stack: Stack, name: str) -> Labels:
    """Run rounds until the campaign is complete, whatever happens to the services meanwhile."""
    with SchedulerClient(stack.scheduler.address, options=IMPATIENT) as scheduler:
        for _ in range(400):
            try:
                if scheduler.get_campaign(name).state == scheduler_pb2.CAMPAIGN_STATE_COMPLETED:
                    break
                scheduler.run_round(name)
            except Unavailable:
                time.sleep(0.05)
            except FailedPrecondition:  # the round that was under way has completed the campaign meanwhile
                continue
        else:
            raise AssertionError(f"{name} does not end: {scheduler.list_rounds(name)}")
        return [(label.round, label.item_id, tuple(label.classes)) for label in scheduler.list_labels(name)]


@contextlib.contextmanager
def killed_once(victim: ServiceProcess, failpoint: str) -> Iterator[None]:
    """Have the victim die at a failpoint within the block, and start it again at once."""
    victim.stop()
    victim.start(failpoint=failpoint)

    def start_again() -> None:
        victim.wait_until_killed()
        victim.start()

    with ThreadPoolExecutor(1) as nurse:
        started_again = nurse.submit(start_again)
        try:
            yield
        except BaseException:
            victim.kill()
            raise
        started_again.result(timeout=60)


@pytest.fixture(scope="module")
def undisturbed(stack: Stack) -> Labels:
    """Labels of a campaign that nothing happened to."""
    begin(stack, "undisturbed")
    return run_to_the_end(stack, "undisturbed")


def test_an_undisturbed_campaign_spends_its_budget_on_distinct_items(undisturbed: Labels) -> None:
    assert len({item for _, item, _ in undisturbed}) == len(undisturbed) == BUDGET
    assert [len(list(group)) for _, group in itertools.groupby(undisturbed, key=lambda label: label[0])] == [20] * 4


FAILPOINTS = [
    *("index.expand.before_record:2", "index.expand.after_record:2"),
    *("learner.train.before_checkpoint:2", "learner.train.after_checkpoint:2", "learner.select.after_expand:2"),
    # Those where the services behind know more than the database does; tests/crash/scheduler has every one.
    *("scheduler.round.after_train:2", "scheduler.round.after_select:2"),
]
MODULES = {"index": "index_server", "learner": "learner", "scheduler": "scheduler"}


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_killed_in_the_middle_of_a_round_it_goes_on_to_the_same_picks(
    stack: Stack, undisturbed: Labels, failpoint: str
) -> None:
    campaign = "killed-" + failpoint.replace(":", ".")
    begin(stack, campaign)
    with killed_once(stack.by_module(MODULES[failpoint.partition(".")[0]]), failpoint):
        labels = run_to_the_end(stack, campaign)
    assert labels == undisturbed


@pytest.mark.parametrize("stage", ["after_data", "after_commit", "after_head"])
def test_the_index_server_killed_in_an_upsert_has_all_of_it_or_nothing(stack: Stack, stage: str) -> None:
    items = make_items("late", 40, seed=3)
    pool = f"upsert-{stage}"
    with IndexClient(stack.index.address, options=IMPATIENT) as index:
        index.create_pool(index_pb2.PoolSpec(name=pool, dimension=8))
        index.upsert(pool, make_items("early", 30, seed=4))
        stack.index.stop()
        stack.index.start(failpoint=f"index.upsert.{stage}")
        with pytest.raises(Unavailable):
            index.upsert(pool, items)
        stack.index.wait_until_killed()
        stack.index.start()
    with IndexClient(stack.index.address) as index:
        after_restart = index.get_pool(pool).size
        assert after_restart in (30, 70)
        index.upsert(pool, items)
        assert index.get_pool(pool).size == 70
        found = index.get_items(pool, items.ids)
        assert items.vectors is not None
        assert found.vectors is not None
        assert np.array_equal(found.vectors, items.vectors)


def test_every_service_killed_at_once_between_rounds_goes_on(stack: Stack, undisturbed: Labels) -> None:
    begin(stack, "all-killed")
    with SchedulerClient(stack.scheduler.address) as scheduler:
        scheduler.run_round("all-killed")
        scheduler.run_round("all-killed")
    stack.kill()
    stack.start()
    assert run_to_the_end(stack, "all-killed") == undisturbed
