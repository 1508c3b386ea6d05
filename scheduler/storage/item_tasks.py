"""The tasks of the items that somebody answers: what they are, and what becomes of them."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, Update, and_, bindparam, case, exists, insert, select, update
from sqlalchemy.orm import Session

from scheduler.domain.states import Audience, LabelPurpose, TaskState
from scheduler.storage.batches import in_batches
from scheduler.storage.models import Label, Task
from sealpool.types import ItemId


class ItemTask(NamedTuple):
    """A task, and whether its item has a label of what the task asks for."""

    id: int
    item_id: ItemId
    purpose: LabelPurpose
    slot: int
    state: TaskState
    annotator: str
    lease_expires_at: datetime | None
    round: int
    rank: int
    score: float
    origin: int
    audience: Audience
    is_labelled: bool


def of_items(session: Session, campaign_id: int, item_ids: Sequence[ItemId]) -> dict[ItemId, list[ItemTask]]:
    """Return the tasks of each item that has some, withdrawn ones too, by slot. One statement for up to 10,000 items.

    The answer to a task of a review is a label for training, so that such an item counts as labelled.
    """
    found: dict[ItemId, list[ItemTask]] = {}
    for some in in_batches(item_ids):
        for key, item, purpose, slot, state, *rest, audience, labelled in session.execute(
            _of_items(), {"campaign_id": campaign_id, "items": some}
        ):
            annotator, lease_expires_at, number, rank, score, origin = rest
            task = ItemTask(
                id=key,
                item_id=ItemId(item),
                purpose=LabelPurpose(purpose),
                slot=slot,
                state=TaskState(state),
                annotator=annotator,
                lease_expires_at=lease_expires_at,
                round=number,
                rank=rank,
                score=score,
                origin=origin,
                audience=Audience(audience),
                is_labelled=labelled,
            )
            found.setdefault(task.item_id, []).append(task)
    return found


def with_a_task(session: Session, campaign_id: int, item_ids: Sequence[ItemId]) -> set[ItemId]:
    """Return those of `item_ids` that were handed out for anything."""
    found: set[ItemId] = set()
    for some in in_batches(item_ids):
        rows = session.scalars(_with_a_task(), {"campaign_id": campaign_id, "items": some})
        found.update(ItemId(item_id) for item_id in rows)
    return found


def end(session: Session, task_ids: Sequence[int], state: TaskState) -> None:
    """Move tasks to a state in which nobody can lease them."""
    for some in in_batches(task_ids):
        session.execute(_end(), {"keys": some, "state": state}, execution_options={"synchronize_session": False})


def reopen(session: Session, task_ids: Sequence[int]) -> None:
    """Let tasks wait again, for anybody of their audience."""
    for some in in_batches(task_ids):
        session.execute(
            update(Task).where(Task.id.in_(some)).values(state=TaskState.OPEN, annotator="", lease_expires_at=None),
            execution_options={"synchronize_session": False},
        )


def add_slots(session: Session, campaign_id: int, like: Sequence[tuple[ItemTask, int]]) -> None:
    """Ask for more annotations: tasks like given ones, in slots after theirs, as many as the number says."""
    rows = [
        {
            "campaign_id": campaign_id,
            "item_id": task.item_id,
            "round": task.round,
            "rank": task.rank,
            "score": task.score,
            "origin": task.origin,
            "purpose": task.purpose,
            "slot": task.slot + 1 + more,
            "audience": Audience.PEOPLE,
            "state": TaskState.OPEN,
            "annotator": "",
        }
        for task, number in like
        for more in range(number)
    ]
    if rows:
        session.execute(insert(Task), rows)


# Building a statement costs more than running it: those of every answer are built once.


@cache
def _of_items() -> Select[*tuple[Any, ...]]:
    asked_for = case((Task.purpose == LabelPurpose.REVIEW, LabelPurpose.TRAINING), else_=Task.purpose)
    is_labelled = exists().where(
        Label.campaign_id == Task.campaign_id, Label.purpose == asked_for, Label.item_id == Task.item_id
    )
    return (
        select(
            Task.id,
            Task.item_id,
            Task.purpose,
            Task.slot,
            Task.state,
            Task.annotator,
            Task.lease_expires_at,
            Task.round,
            Task.rank,
            Task.score,
            Task.origin,
            Task.audience,
            is_labelled,
        )
        .where(_of_campaign())
        .order_by(Task.slot)
    )


@cache
def _with_a_task() -> Select[str]:
    return select(Task.item_id).where(_of_campaign())


@cache
def _end() -> Update:
    wanted = Task.id.in_(bindparam("keys", expanding=True))
    return update(Task).where(wanted).values(state=bindparam("state"), lease_expires_at=None)


def _of_campaign() -> ColumnElement[bool]:
    return and_(Task.campaign_id == bindparam("campaign_id"), Task.item_id.in_(bindparam("items", expanding=True)))
