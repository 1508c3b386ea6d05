"""What of a campaign's spec may change while it runs, and what did."""

from collections.abc import Iterator

from google.protobuf.message import Message

from sealpool.errors import InvalidArgument
from sealpool.v1 import scheduler_pb2

MUTABLE = frozenset(
    {
        "annotation.give_up_after",
        "batch_share",
        "batch_size",
        "budget",
        "evaluation.test_points",
        "exclude_synthetic",
        "exploration",
        "fill",
        "lease_seconds",
        "oracle.llm",
        "rule",
        "stopping",
        "stream.budget_share",
        "stream.horizon",
        "stream.random_share",
        "stream.step",
        "stream.uncertainty",
    }
)
"""Fields by their path; with a message go all its fields. Everything else decides what a label or a pick means."""


def changes(before: scheduler_pb2.CampaignSpec, after: scheduler_pb2.CampaignSpec) -> list[str]:
    """Return the paths of the fields that differ, in the order of the contract.

    Raises
    ------
    InvalidArgument
        Naming a field that differs and must not.
    """
    changed = list(_differences(before, after, ""))
    for path in changed:
        if not any(path == allowed or path.startswith(f"{allowed}.") for allowed in MUTABLE):
            raise InvalidArgument(f"spec.{path}", "cannot change while a campaign runs: begin another one")
    return changed


def check_budget(spec: scheduler_pb2.CampaignSpec, *, spent: int) -> None:
    """Raise InvalidArgument if the budget is less than the labels that there are."""
    if spec.budget < spent:
        raise InvalidArgument("spec.budget", f"{spec.budget:,} is less than the {spent:,} labels that there are")


def _differences(before: Message, after: Message, prefix: str) -> Iterator[str]:
    for field in before.DESCRIPTOR.fields:
        path = f"{prefix}{field.name}"
        old, new = getattr(before, field.name), getattr(after, field.name)
        # A message that is left out is one without fields, unless the contract tells the two apart.
        is_told_apart = field.has_presence and (field.message_type is None or field.containing_oneof is not None)
        if is_told_apart and before.HasField(field.name) != after.HasField(field.name):
            yield path
        elif field.message_type is not None and not field.is_repeated:
            yield from _differences(old, new, f"{path}.")
        elif old != new:
            yield path
