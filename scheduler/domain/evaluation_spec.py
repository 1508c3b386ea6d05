"""Held-out items in the pool itself: every field checked."""

from sealpool.errors import FailedPrecondition, InvalidArgument
from sealpool.v1 import scheduler_pb2 as s

MAX_ITEMS = 100_000


def check_evaluation(spec: s.CampaignSpec) -> None:
    """Check the numbers of held-out items and test points against each other and the budget.

    Raises
    ------
    InvalidArgument
        With the field at fault.
    """
    evaluation = spec.evaluation
    for field in ("items", "test_pool", "test_points"):
        value: int = getattr(evaluation, field)
        if value > MAX_ITEMS:
            raise InvalidArgument(f"spec.evaluation.{field}", f"{value:,} is over {MAX_ITEMS:,}")
        if value and spec.evaluation_pool:
            raise InvalidArgument(
                f"spec.evaluation.{field}", f"is given beside evaluation_pool = {spec.evaluation_pool!r}: take one"
            )
    if bool(evaluation.test_points) != bool(evaluation.test_pool):
        raise InvalidArgument("spec.evaluation.test_points", "and test_pool go together: give both or neither")
    if evaluation.test_points > evaluation.test_pool:
        raise InvalidArgument(
            "spec.evaluation.test_points", f"{evaluation.test_points:,} is over test_pool = {evaluation.test_pool:,}"
        )
    left = spec.budget - max(1, spec.seed_size)
    if evaluation.items + evaluation.test_points > left:
        raise InvalidArgument(
            "spec.evaluation.items",
            f"{evaluation.items:,}, with test_points = {evaluation.test_points:,}, leaves of the budget of "
            f"{spec.budget:,} less than max(1, seed_size = {spec.seed_size:,})",
        )


def holds_out(spec: s.CampaignSpec) -> bool:
    """Whether items of the pool itself are held out."""
    return bool(spec.evaluation.items or spec.evaluation.test_pool)


def check_pool_has_room(spec: s.CampaignSpec, pool_size: int) -> None:
    """Raise FailedPrecondition if the held-out items would take the whole pool."""
    held_out = spec.evaluation.items + spec.evaluation.test_pool
    if held_out and held_out + max(1, spec.seed_size) > pool_size:
        raise FailedPrecondition(
            f"spec.evaluation: items and test_pool hold out {held_out:,} of the {pool_size:,} items of pool "
            f"{spec.pool!r}, which leaves too few for seed_size = {spec.seed_size:,}",
            field="spec.evaluation",
        )
