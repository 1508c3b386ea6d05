"""Checks of single fields of a spec."""

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from sealpool.errors import InvalidArgument


def check_choice(field: str, value: str, choices: AbstractSet[str]) -> None:
    """Raise InvalidArgument unless `value` is one of `choices`, of which the message shows some."""
    if value in choices:
        return
    known = sorted(choices - {""})
    shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    raise InvalidArgument(field, f"{value[:140]!r} is not one of {shown}")


def check_enum(field: str, value: int, *, values: Sequence[int]) -> None:
    """Raise InvalidArgument unless the contract names `value`."""
    if value not in values:
        raise InvalidArgument(field, f"{value} is not a value that the contract names")


def check_range(field: str, value: float, low: float, high: float) -> None:
    """Raise InvalidArgument unless low ≤ value ≤ high; NaN is not."""
    if not low <= value <= high:
        raise InvalidArgument(field, f"{value} is not {low:,} to {high:,}")


def check_not_negative(field: str, value: float) -> None:
    """Raise InvalidArgument unless `value` is a finite number ≥ 0."""
    if not (math.isfinite(value) and value >= 0):
        raise InvalidArgument(field, f"{value} is not a finite number ≥ 0")


def check_share(field: str, value: float) -> None:
    """Raise InvalidArgument unless 0 ≤ value < 1."""
    if not 0 <= value < 1:
        raise InvalidArgument(field, f"{value} is not 0 to below 1")


def words(options: AbstractSet[str]) -> str:
    """Return the names of options as a message lists them."""
    return ", ".join(sorted(options)) or "none"


def check_options(part: str, owner: str, told: AbstractSet[str], has: AbstractSet[str]) -> None:
    """Raise InvalidArgument where an option of `told` is none that `owner` has.

    Parameters
    ----------
    part
        The field of the spec that the options are in, for example "spec.policy".
    told
        The options that were given something else than their default.
    """
    for option in sorted(told - has):
        raise InvalidArgument(f"{part}.{option}", f"{owner} has no such option; it has {words(has)}")
