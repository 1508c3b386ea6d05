"""What somebody says of an item: a person, a language model, a data set."""

from dataclasses import dataclass

from scheduler.domain.states import Outcome
from sealpool.types import ItemId


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What one annotator says of one item.

    `classes` are indices into the campaign's classes, ascending; empty unless the outcome is LABEL.
    """

    item_id: ItemId
    outcome: Outcome = Outcome.LABEL
    classes: tuple[int, ...] = ()
    confidence: float | None = None
    comment: str = ""
