"""The annotations log: everything that annotators said. Rows are added and never changed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, cast

from sqlalchemy import Insert, Select, Table, bindparam, distinct, func, insert, select
from sqlalchemy.orm import Session

from scheduler.domain.answers import Answer
from scheduler.domain.states import LabelPurpose, Outcome
from scheduler.storage.batches import in_batches
from scheduler.storage.models import Annotation
from sealpool.types import ItemId

LARGEST = 2**63 - 1
"""The contract counts to 2⁶⁴, databases to 2⁶³."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewAnnotation:
    """An answer, whose it is, and which task it answers: `purpose` may be REVIEW; `round` is 0 if unsolicited."""

    answer: Answer
    annotator: str
    purpose: LabelPurpose
    round: int


@dataclass(frozen=True, slots=True)
class Opinion:
    """What an annotator says of an item in the end; `classes` are empty where he cannot tell."""

    annotator: str
    outcome: Outcome
    classes: tuple[int, ...]
    purpose: LabelPurpose


def append(session: Session, campaign_id: int, new: Sequence[NewAnnotation], *, now: datetime) -> None:
    """Write annotations in their order. The campaign must be locked."""
    rows = [
        {
            "campaign_id": campaign_id,
            "item_id": one.answer.item_id,
            "annotator": one.annotator,
            "outcome": one.answer.outcome,
            "classes": list(one.answer.classes),
            "confidence": one.answer.confidence,
            "comment": one.answer.comment,
            "purpose": one.purpose,
            "round": one.round,
            "committed_at": now,
        }
        for one in new
    ]
    if rows:
        session.execute(_insert(), rows)


@cache
def _opinions() -> Select[*tuple[Any, ...]]:
    return (
        select(Annotation.item_id, Annotation.annotator, Annotation.outcome, Annotation.classes, Annotation.purpose)
        .where(
            Annotation.campaign_id == bindparam("campaign_id"),
            Annotation.item_id.in_(bindparam("items", expanding=True)),
            Annotation.purpose.in_(bindparam("purposes", expanding=True)),
            Annotation.outcome != Outcome.SKIP,
        )
        .order_by(Annotation.sequence)
    )


@cache
def _insert() -> Insert:
    # Of the table, not the class: the ORM's bulk insert would look at each row anew.
    return insert(cast("Table", Annotation.__table__))


def opinions(
    session: Session, campaign_id: int, item_ids: Sequence[ItemId], *, purposes: Collection[LabelPurpose]
) -> dict[ItemId, dict[str, Opinion]]:
    """Return what each annotator says of each item, in the order in which they first spoke.

    An annotator's later answer replaces his earlier one; a skip is no answer.
    """
    found: dict[ItemId, dict[str, Opinion]] = {}
    for some in in_batches(item_ids):
        asked = {"campaign_id": campaign_id, "items": some, "purposes": list(purposes)}
        for item, annotator, outcome, classes, purpose in session.execute(_opinions(), asked):
            opinion = Opinion(annotator, Outcome(outcome), tuple(classes), LabelPurpose(purpose))
            found.setdefault(ItemId(item), {})[annotator] = opinion
    return found


def every_opinion(
    session: Session, campaign_id: int, *, purposes: Collection[LabelPurpose]
) -> Mapping[ItemId, Mapping[str, Opinion]]:
    """Return what each annotator says of each item that more than one annotator answered."""
    several = (
        select(Annotation.item_id)
        .where(
            Annotation.campaign_id == campaign_id,
            Annotation.purpose.in_(list(purposes)),
            Annotation.outcome == Outcome.LABEL,
        )
        .group_by(Annotation.item_id)
        .having(func.count(distinct(Annotation.annotator)) > 1)
        .order_by(Annotation.item_id)
    )
    items = [ItemId(item) for item in session.scalars(several)]
    return opinions(session, campaign_id, items, purposes=purposes)


def latest_labels(
    session: Session, campaign_id: int, *, purposes: Collection[LabelPurpose], most: int
) -> dict[ItemId, dict[str, tuple[int, ...]]]:
    """Return what each annotator labelled each item with, in the end, among the campaign's latest annotations."""
    query = (
        select(Annotation.item_id, Annotation.annotator, Annotation.outcome, Annotation.classes, Annotation.purpose)
        .where(Annotation.campaign_id == campaign_id)
        .order_by(Annotation.sequence.desc())
        .limit(most)
    )
    found: dict[ItemId, dict[str, tuple[int, ...]]] = {}
    # The latest come first, so that what an annotator said before of the same item is passed over.
    for item, annotator, outcome, classes, purpose in session.execute(query):
        if outcome == Outcome.LABEL and purpose in purposes:
            found.setdefault(ItemId(item), {}).setdefault(annotator, tuple(classes))
    return found


def counts(session: Session, campaign_id: int) -> dict[str, dict[Outcome, int]]:
    """Return on how many items each annotator had each outcome."""
    query = (
        select(Annotation.annotator, Annotation.outcome, func.count(distinct(Annotation.item_id)))
        .where(Annotation.campaign_id == campaign_id)
        .group_by(Annotation.annotator, Annotation.outcome)
    )
    found: dict[str, dict[Outcome, int]] = {}
    for annotator, outcome, number in session.execute(query):
        found.setdefault(annotator, {})[Outcome(outcome)] = number
    return found


def last_sequence(session: Session, campaign_id: int) -> int:
    """Return the sequence of the campaign's latest annotation; 0 where there is none."""
    return session.scalar(select(func.max(Annotation.sequence)).where(Annotation.campaign_id == campaign_id)) or 0


def page(
    session: Session, campaign_id: int, *, after: int, until: int, item_id: str, annotator: str, limit: int
) -> Sequence[Annotation]:
    """Return up to `limit` annotations with after < sequence ≤ until; "" for an item or annotator means all."""
    query = select(Annotation).where(
        Annotation.campaign_id == campaign_id,
        Annotation.sequence > min(after, LARGEST),
        Annotation.sequence <= until,
    )
    if item_id:
        query = query.where(Annotation.item_id == item_id)
    if annotator:
        query = query.where(Annotation.annotator == annotator)
    return session.scalars(query.order_by(Annotation.sequence).limit(limit)).all()
