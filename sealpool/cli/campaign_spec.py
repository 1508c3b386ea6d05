"""What `campaign create` was told, as a CampaignSpec."""

from collections.abc import Iterable, Sequence
from enum import StrEnum

from sealpool.client import IndexClient
from sealpool.errors import InvalidArgument
from sealpool.v1 import common_pb2


class Task(StrEnum):
    """How many classes an item may have."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    MULTILABEL = "multilabel"


class Oracle(StrEnum):
    """Who labels."""

    EXTERNAL = "external"
    DATASET = "dataset"
    LLM = "llm"


class Fill(StrEnum):
    """What fills a batch when the candidate pool runs short."""

    RANDOM = "random"
    NONE = "none"


class Growth(StrEnum):
    """When a candidate pool grows."""

    ROUND = "round"
    PICK = "pick"


DRAWING_POLICIES = frozenset({"anchoral", "random_subset"})
"""Those that draw at random, and take the campaign's seed for it."""


def task_kind(task: Task) -> common_pb2.TaskKind.ValueType:
    """Return the value on the wire."""
    return common_pb2.TaskKind.Value(f"TASK_KIND_{task.name}")


def resolve_task(task: Task | None, classes: Sequence[str], *, most_labels: int = 1) -> Task:
    """Return `task`, or, if it is None, the one that fits: several labels an item, two classes, or more."""
    if task is not None:
        return task
    if most_labels > 1:
        return Task.MULTILABEL
    return Task.BINARY if len(classes) == 2 else Task.MULTICLASS


def classes_in_metadata(index: IndexClient, pool: str, field: str) -> tuple[list[str], int]:
    """Read every item's metadata and return the classes in `field`, sorted, and the most that one item has.

    Raises
    ------
    InvalidArgument
        No item has the field, or one has neither a text nor a list of texts there.
    """
    found: set[str] = set()
    most = 0
    for items in index.scan_items(pool, vectors=False, payloads=True):
        for item_id, payload in zip(items.ids, items.payloads or (), strict=True):
            labels = _labels(payload.metadata.get(field, ()), item_id, field)
            most = max(most, len(labels))
            found.update(labels)
    if not found:
        raise InvalidArgument("--classes-from-metadata", f"no item of {pool} has metadata {field!r}")
    return sorted(found), most


_OPTIONS = {
    "name": "CAMPAIGN",
    "classes": "--class",
    "batch_size": "--batch",
    "expand_from_classes": "--expand-from",
    "lease_seconds": "--lease",
    "model.name": "--model",
    "strategy.name": "--strategy",
    "policy.name": "--policy",
    "oracle.name": "--oracle",
    "rule.interval_seconds": "--interval",
    **dict.fromkeys(("pool", "task", "budget", "seed", "seed_size", "exploration", "fill", "evaluation_pool"), ""),
    **dict.fromkeys(("batch_share", "model.retrain", "model.validation_share"), ""),
    **dict.fromkeys((f"strategy.{name}" for name in ("aggregate", "neighbors", "radius", "clusters")), ""),
    **dict.fromkeys(("model.l2", "model.max_iterations", "model.class_weight", "policy.k", "rule.cron"), ""),
    **dict.fromkeys(("strategy.base", "strategy.beta", "strategy.density_over", "strategy.positive_class"), ""),
    **dict.fromkeys(("rule.after_labels", "rule.open_rounds", "oracle.metadata_field", "oracle.other_class"), ""),
    **dict.fromkeys((f"policy.{name}" for name in ("max_candidates", "subpool_size", "anchors", "growth", "seed")), ""),
}
"""Fields of the spec whose option has another name, and ("") those whose option has theirs."""

_PARTS = (
    *("model.uncertainty", "model.neural", "model.text", "seeding", "annotation", "evaluation", "stopping", "stream"),
    "oracle.llm",
)
"""Fields whose own fields are keys of one option: "--neural epochs"."""


def in_options(error: InvalidArgument) -> InvalidArgument:
    """Return the error with the option's name in place of the spec's field, where there is one."""
    where, colon, problem = error.message.partition(": ")
    name = where.removeprefix("spec.")
    part, _, last = name.rpartition(".")
    if not colon or name == where or (name not in _OPTIONS and part not in _PARTS):
        return error
    if part in _PARTS:
        return InvalidArgument(f"--{part.rpartition('.')[2]} {last}", problem)
    option = _OPTIONS[name] or "--" + last.replace("_", "-")
    return InvalidArgument(option, problem.replace("seed_size", "--seed-size"))


def _labels(value: object, item_id: str, field: str) -> list[str]:
    labels = [value] if isinstance(value, str) else value
    if not isinstance(labels, Iterable) or not all(isinstance(label, str) for label in labels):
        raise InvalidArgument(
            "--classes-from-metadata", f"metadata {field!r} of {item_id!r} is not a text or a list of texts"
        )
    return list(labels)
