"""The label log: rows are added and never changed, and an item's effective label is its latest."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import cast

from sqlalchemy import ColumnElement, Select, Table, bindparam, distinct, exists, func, insert, select
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.dml import ReturningInsert

from scheduler.domain.states import LabelPurpose
from scheduler.storage.batches import in_batches
from scheduler.storage.models import Campaign, Label
from sealpool.types import ItemId


@dataclass(frozen=True, kw_only=True, slots=True)
class NewLabel:
    """A label to be written; `classes` are indices into the campaign's classes, ascending."""

    item_id: ItemId
    classes: tuple[int, ...]
    annotator: str
    round: int  # whose task it answers; 0 if unsolicited
    unsolicited: bool
    corrects: bool
    purpose: LabelPurpose


def append(session: Session, campaign: Campaign, labels: Sequence[NewLabel], *, now: datetime) -> None:
    """Write labels in their order and move the campaign's last sequence. The campaign must be locked."""
    rows = [
        {
            "campaign_id": campaign.id,
            "item_id": label.item_id,
            "classes": list(label.classes),
            "annotator": label.annotator,
            "round": label.round,
            "unsolicited": label.unsolicited,
            "corrects": label.corrects,
            "purpose": label.purpose,
            "committed_at": now,
        }
        for label in labels
    ]
    if not rows:
        return
    campaign.last_sequence = max(campaign.last_sequence, *session.scalars(_insert(), rows))


@cache
def _insert() -> ReturningInsert[int]:
    # Of the table, not the class: the ORM's bulk insert would look at each row anew.
    return insert(cast("Table", Label.__table__)).returning(Label.sequence, sort_by_parameter_order=True)


@cache
def _known_items() -> Select[str]:
    return select(Label.item_id).where(
        Label.campaign_id == bindparam("campaign_id"),
        Label.purpose == bindparam("purpose"),
        Label.item_id.in_(bindparam("items", expanding=True)),
    )


def known_items(
    session: Session, campaign_id: int, item_ids: Sequence[ItemId], *, purpose: LabelPurpose
) -> set[ItemId]:
    """Return those of `item_ids` that have a label."""
    found: set[ItemId] = set()
    for some in in_batches(item_ids):
        asked = {"campaign_id": campaign_id, "purpose": purpose, "items": some}
        found.update(ItemId(item_id) for item_id in session.scalars(_known_items(), asked))
    return found


def effective(
    session: Session, campaign_id: int, *, purpose: LabelPurpose, until: int
) -> dict[ItemId, tuple[int, ...]]:
    """Return the effective label of each item as of sequence `until`, in the order those were committed."""
    latest = (
        select(func.max(Label.sequence).label("sequence"))
        .where(_log(campaign_id, purpose), Label.sequence <= until)
        .group_by(Label.item_id)
        .subquery()
    )
    query = select(Label.item_id, Label.classes).join(latest, Label.sequence == latest.c.sequence)
    return {ItemId(item): tuple(classes) for item, classes in session.execute(query.order_by(Label.sequence))}


def effective_of(
    session: Session, campaign_id: int, item_ids: Sequence[ItemId], *, purpose: LabelPurpose
) -> dict[ItemId, tuple[int, ...]]:
    """Return the effective labels of those of `item_ids` that have one."""
    found: dict[ItemId, tuple[int, ...]] = {}
    for some in in_batches(item_ids):
        query = select(Label.item_id, Label.classes).where(_log(campaign_id, purpose), Label.item_id.in_(some))
        found.update(
            (ItemId(item), tuple(classes)) for item, classes in session.execute(query.order_by(Label.sequence))
        )
    return found


def arrived_since(session: Session, campaign_id: int, sequence: int) -> int:
    """Return how many distinct items were labelled, or labelled anew, after `sequence`."""
    query = select(func.count(distinct(Label.item_id)))
    return session.scalar(query.where(_log(campaign_id, LabelPurpose.TRAINING), Label.sequence > sequence)) or 0


def count_items(session: Session, campaign_id: int, *, purpose: LabelPurpose) -> int:
    """Return how many distinct items have a label."""
    return session.scalar(select(func.count(distinct(Label.item_id))).where(_log(campaign_id, purpose))) or 0


def page(
    session: Session,
    campaign_id: int,
    *,
    purpose: LabelPurpose,
    only_effective: bool,
    after: int,
    until: int,
    limit: int,
) -> Sequence[Label]:
    """Return up to `limit` labels with after < sequence ≤ until; effective ones are those not corrected by `until`."""
    query = select(Label).where(_log(campaign_id, purpose), Label.sequence > after, Label.sequence <= until)
    if only_effective:
        query = _without_corrected(query, until)
    return session.scalars(query.order_by(Label.sequence).limit(limit)).all()


def _without_corrected(query: Select[Label], until: int) -> Select[Label]:
    later = aliased(Label)
    corrected = exists().where(
        later.campaign_id == Label.campaign_id,
        later.purpose == Label.purpose,
        later.item_id == Label.item_id,
        later.sequence > Label.sequence,
        later.sequence <= until,
    )
    return query.where(~corrected)


def _log(campaign_id: int, purpose: LabelPurpose) -> ColumnElement[bool]:
    return (Label.campaign_id == campaign_id) & (Label.purpose == purpose)
