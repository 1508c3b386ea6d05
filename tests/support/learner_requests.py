"""Requests to a learner, right as they stand; tests change one thing."""

from collections.abc import Sequence

from sealpool.client import LearnerClient
from sealpool.types import ItemId, LabelledItems
from sealpool.v1 import common_pb2, learner_pb2

CLASSES = ["red", "green", "blue"]


def item_ids(numbers: Sequence[int]) -> list[ItemId]:
    return [ItemId(f"item-{number:03}") for number in numbers]


def labelled(numbers: Sequence[int]) -> LabelledItems:
    return LabelledItems(ids=item_ids(numbers), labels=[[number % 3] for number in numbers])


def train_header(**changes: object) -> learner_pb2.TrainHeader:
    fields = {
        "campaign": "c",
        "round": 0,
        "pool": "pool",
        "task": common_pb2.TASK_KIND_MULTICLASS,
        "classes": CLASSES,
        "seed": 1,
    }
    return learner_pb2.TrainHeader(**(fields | changes))


def select_header(**changes: object) -> learner_pb2.SelectHeader:
    fields = {
        "campaign": "c",
        "round": 0,
        "pool": "pool",
        "policy": common_pb2.PolicySpec(name="seals", k=10),
        "batch_size": 10,
        "seed": 5,
    }
    return learner_pb2.SelectHeader(**(fields | changes))


def train(client: LearnerClient, numbers: Sequence[int] = range(9), **changes: object) -> learner_pb2.TrainResult:
    return client.train(train_header(**changes), labelled(numbers))


def select(
    client: LearnerClient,
    numbers: Sequence[int] = range(9),
    *,
    expand: bool = True,
    excluded: Sequence[ItemId] = (),
    classes: Sequence[Sequence[int]] | None = None,
    **changes: object,
) -> learner_pb2.SelectResponse:
    ids = item_ids(numbers)
    told = [[number % 3] for number in numbers] if classes is None else classes
    return client.select(select_header(**changes), ids, [expand] * len(ids), excluded, classes=told)
