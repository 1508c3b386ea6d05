"""Which items a round must leave alone because somebody is asked about them, or was."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from scheduler.domain.states import LabelPurpose, TaskState
from scheduler.storage import item_tasks
from sealpool.types import ItemId


def handed_out_of(session: Session, campaign_id: int, item_ids: Sequence[ItemId]) -> set[ItemId]:
    """Return those of `item_ids` that were handed out: as `tasks.items_before` says, of all rounds so far.

    For what was asked about while a round was choosing: by a stream, synthesis, an audit.
    """
    return {
        item
        for item, found in item_tasks.of_items(session, campaign_id, item_ids).items()
        if any(task.purpose is not LabelPurpose.TRAINING for task in found)
        or all(task.state is not TaskState.WITHDRAWN for task in found)
    }
