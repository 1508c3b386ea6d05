"""What labels may say, and whether some of them can train a model."""

from collections.abc import Collection, Mapping, Sequence

from sealpool.errors import InvalidArgument
from sealpool.v1 import common_pb2, scheduler_pb2


class ClassIndex:
    """Turns class names into indices into the campaign's classes, as the task allows."""

    def __init__(self, spec: scheduler_pb2.CampaignSpec) -> None:
        self._indices: Mapping[str, int] = {name: index for index, name in enumerate(spec.classes)}
        self._exactly_one = spec.task != common_pb2.TASK_KIND_MULTILABEL

    def indices(self, field: str, names: Sequence[str]) -> tuple[int, ...]:
        """Return the indices of `names`, ascending.

        Raises
        ------
        InvalidArgument
            A name that is not one of the campaign's classes, one twice, or a number of them that the task forbids.
        """
        unknown = next((name for name in names if name not in self._indices), None)
        if unknown is not None:
            raise InvalidArgument(field, f"{unknown[:140]!r} is not one of the campaign's classes")
        if self._exactly_one and len(names) != 1:
            raise InvalidArgument(field, f"has {len(names)} classes; this task takes exactly one an item")
        if len(set(names)) != len(names):
            raise InvalidArgument(field, "names a class twice")
        return tuple(sorted(self._indices[name] for name in names))


def why_untrainable(spec: scheduler_pb2.CampaignSpec, labels: Collection[Collection[int]]) -> str:
    """Return why a model cannot be trained on `labels` (class indices an item), or "" if it can.

    A model needs two classes; with several labels an item, one class that some items have and others do not.
    """
    if not labels:
        return "no item is labelled yet"
    alike = why_alike(spec, labels)
    return f"{alike}: label one that differs" if alike else ""


def why_alike(spec: scheduler_pb2.CampaignSpec, labels: Collection[Collection[int]]) -> str:
    """Return in which way `labels`, of one item or more, say the same; "" if they differ."""
    if spec.task == common_pb2.TASK_KIND_MULTILABEL:
        everywhere = set.intersection(*map(set, labels))
        somewhere = set.union(*map(set, labels))
        if somewhere != everywhere:
            return ""
        return f"all {len(labels):,} labelled items have the same classes"
    present = {index for item in labels for index in item}
    if len(present) >= 2:
        return ""
    return f"all {len(labels):,} labelled items are of class {spec.classes[present.pop()]!r}"
