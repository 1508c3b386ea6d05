"""Run in the scheduler's container: one round of a campaign, through all three services."""

import sys

import numpy as np

from sealpool.client import ClientOptions, IndexClient, SchedulerClient
from sealpool.types import ItemId, Items
from sealpool.v1 import common_pb2, index_pb2, scheduler_pb2

CLASSES = ["even", "odd"]


def main() -> int:
    """Make a pool, label twenty items, run a round; print what it picked."""
    options = ClientOptions(insecure=True)
    rng = np.random.default_rng(1)
    items = Items(ids=[ItemId(f"item-{n}") for n in range(60)], vectors=rng.normal(size=(60, 4)).astype(np.float32))
    with IndexClient("index-server:7301", options=options) as index:
        index.create_pool(index_pb2.PoolSpec(name="numbers", dimension=4))
        index.upsert("numbers", items)
    with SchedulerClient("scheduler:7303", options=options) as scheduler:
        scheduler.create_campaign(
            scheduler_pb2.CampaignSpec(
                name="parity",
                pool="numbers",
                task=common_pb2.TASK_KIND_MULTICLASS,
                classes=CLASSES,
                strategy=common_pb2.StrategySpec(name="margin"),
                policy=common_pb2.PolicySpec(name="seals", k=5),
                seed_size=0,
                batch_size=7,
                budget=60,
            )
        )
        given = {f"item-{n}": [CLASSES[n % 2]] for n in range(20)}
        scheduler.submit_labels("parity", given, annotator="ann")
        scheduler.run_round("parity")
        tasks = scheduler.lease_tasks("parity", annotator="ann", max_tasks=10).tasks
    sys.stdout.write(" ".join(sorted(task.item_id for task in tasks)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
