"""What the callers of a rolling restart work on."""

import numpy as np

from sealpool.types import ItemId, Items, Payload
from sealpool.v1 import common_pb2, scheduler_pb2

CLASSES = ["north", "east", "south", "west"]
POOL = "pool"
POOL_ITEMS = 4000

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
        payloads=[Payload(text=f"text {n}", metadata={"labels": CLASSES[label]}) for n, label in enumerate(classes)],
    )


def make_campaign(
    name: str,
    *,
    budget: int,
    oracle: scheduler_pb2.OracleSpec | None = None,
    rule: scheduler_pb2.RoundRule | None = None,
    stream: scheduler_pb2.StreamSpec | None = None,
) -> scheduler_pb2.CampaignSpec:
    """Describe a campaign on the pool; without an oracle, people label."""
    return scheduler_pb2.CampaignSpec(
        name=name,
        pool=POOL,
        task=common_pb2.TASK_KIND_MULTICLASS,
        classes=CLASSES,
        strategy=common_pb2.StrategySpec(name="entropy"),
        policy=common_pb2.PolicySpec(name="seals", k=5),
        batch_size=20,
        seed_size=20,
        budget=budget,
        exploration=0.1,
        seed=7,
        oracle=oracle,
        rule=rule,
        stream=stream,
    )
