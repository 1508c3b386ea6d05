"""Items that a campaign drew once and remembers: held-out items, the test pool, the stop set."""

from collections.abc import Sequence

from sqlalchemy import exists, insert, select
from sqlalchemy.orm import Session

from scheduler.domain.states import Audience, DrawKind, LabelPurpose, TaskState
from scheduler.storage.batches import in_batches
from scheduler.storage.models import DrawnItem, Task
from sealpool.types import ItemId

HELD_OUT = (DrawKind.EVALUATION, DrawKind.TEST_POOL)


def add(session: Session, campaign_id: int, kind: DrawKind, items: Sequence[ItemId]) -> None:
    """Write what was drawn, in its order. Nothing of the kind may have been drawn before."""
    rows = [
        {"campaign_id": campaign_id, "kind": kind, "position": position, "item_id": item}
        for position, item in enumerate(items)
    ]
    if rows:
        session.execute(insert(DrawnItem), rows)


def of_kind(session: Session, campaign_id: int, kind: DrawKind) -> list[ItemId]:
    """Return what was drawn, in the order drawn."""
    query = select(DrawnItem.item_id).where(DrawnItem.campaign_id == campaign_id, DrawnItem.kind == kind)
    return [ItemId(item) for item in session.scalars(query.order_by(DrawnItem.position))]


def is_drawn(session: Session, campaign_id: int, kind: DrawKind) -> bool:
    """Whether anything of the kind was drawn."""
    found = exists().where(DrawnItem.campaign_id == campaign_id, DrawnItem.kind == kind)
    return bool(session.scalar(select(found)))


def held_out(session: Session, campaign_id: int) -> list[ItemId]:
    """Return the items of the pool that are never picked, trained on or audited: held-out items and the test pool."""
    return [item for kind in HELD_OUT for item in of_kind(session, campaign_id, kind)]


def in_test_pool(session: Session, campaign_id: int, items: Sequence[ItemId]) -> set[ItemId]:
    """Return those of `items` from which test points are chosen."""
    found: set[ItemId] = set()
    for some in in_batches(items):
        query = select(DrawnItem.item_id).where(
            DrawnItem.campaign_id == campaign_id, DrawnItem.kind == DrawKind.TEST_POOL, DrawnItem.item_id.in_(some)
        )
        found.update(ItemId(item) for item in session.scalars(query))
    return found


def evaluation_outstanding(session: Session, campaign_id: int, *, audience: Audience | None = None) -> Sequence[ItemId]:
    """Return the items whose open tasks will make labels for evaluation, leased or not, in the order handed out.

    Parameters
    ----------
    audience
        Only those that wait for it; None for all.
    """
    query = select(Task.item_id).where(
        Task.campaign_id == campaign_id, Task.state == TaskState.OPEN, Task.purpose == LabelPurpose.EVALUATION
    )
    if audience is not None:
        query = query.where(Task.audience == audience)
    found = session.scalars(query.order_by(Task.round, Task.rank, Task.slot))
    return list(dict.fromkeys(ItemId(item) for item in found))


def unlabelable(session: Session, campaign_id: int) -> set[ItemId]:
    """Return the items for evaluation that nobody will label: given up, or gone from the pool."""
    ended = (TaskState.GIVEN_UP, TaskState.WITHDRAWN)
    query = select(Task.item_id).where(
        Task.campaign_id == campaign_id, Task.purpose == LabelPurpose.EVALUATION, Task.state.in_(ended)
    )
    return {ItemId(item) for item in session.scalars(query)}
