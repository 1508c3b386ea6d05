"""What is kept of campaigns' projects in Label Studio. The campaign must be locked by whoever writes."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.orm import Session

from scheduler.domain.states import Audience, LabelPurpose, TaskState
from scheduler.storage.batches import in_batches
from scheduler.storage.models import Annotation, Campaign, LabelStudioAnnotation, LabelStudioLink, LabelStudioTask, Task
from sealpool.types import ItemId


def link_of(session: Session, campaign_id: int) -> LabelStudioLink | None:
    """Return a campaign's link, if it has one."""
    return session.get(LabelStudioLink, campaign_id)


def links(session: Session) -> Sequence[tuple[str, LabelStudioLink]]:
    """Return all links, with their campaigns' names, by name."""
    query = select(Campaign.name, LabelStudioLink).join(Campaign, Campaign.id == LabelStudioLink.campaign_id)
    return sorted(((name, link) for name, link in session.execute(query)), key=lambda pair: pair[0])


def forget(session: Session, campaign_id: int, *, holder: str) -> None:
    """Take a link away, and give back the tasks that `holder` held for it.

    What was taken stays known: should the same project be linked again, nothing of it counts twice.
    """
    session.execute(delete(LabelStudioTask).where(LabelStudioTask.campaign_id == campaign_id))
    session.execute(delete(LabelStudioLink).where(LabelStudioLink.campaign_id == campaign_id))
    session.execute(
        update(Task)
        .where(Task.campaign_id == campaign_id, Task.state == TaskState.OPEN, Task.annotator == holder)
        .values(lease_expires_at=None)
    )


def begin_anew(session: Session, campaign_id: int) -> None:
    """Forget what was put in and taken: another project's numbers mean something else."""
    session.execute(delete(LabelStudioTask).where(LabelStudioTask.campaign_id == campaign_id))
    session.execute(delete(LabelStudioAnnotation).where(LabelStudioAnnotation.campaign_id == campaign_id))


def hold_wanted(
    session: Session, campaign_id: int, *, holder: str, now: datetime, until: datetime
) -> dict[ItemId, Task]:
    """Lease every open task for people that nobody else holds to `holder`; return one an item, most wanted first.

    So an item waits in Label Studio or elsewhere, never in both.
    """
    query = (
        select(Task)
        .where(Task.campaign_id == campaign_id, Task.audience == Audience.PEOPLE, _free_for(holder, now))
        .order_by(Task.round.desc(), Task.rank, Task.slot)
        .with_for_update(skip_locked=True)
    )
    wanted: dict[ItemId, Task] = {}
    for task in session.scalars(query):
        task.annotator = holder
        task.lease_expires_at = until
        wanted.setdefault(ItemId(task.item_id), task)
    session.flush()
    return wanted


def asked_in_vain(
    session: Session, campaign_id: int, wanted: Mapping[ItemId, Task], *, machine: str
) -> Sequence[ItemId]:
    """Return the wanted items that everybody who answered there before has seen: none of them can add anything.

    Somebody "cannot tell", say, and nobody else labels in Label Studio. A label that is to be looked at again is not
    among them: whoever gave it may well see it otherwise now.

    Parameters
    ----------
    machine
        The campaign's own oracle as an annotator: it does not work in Label Studio.
    """
    there = tasks_there(session, campaign_id)
    again = [
        item
        for item, task in wanted.items()
        if item in there and not there[item].open and task.purpose != LabelPurpose.REVIEW
    ]
    if not again:
        return []
    annotators = select(Annotation.annotator).where(Annotation.campaign_id == campaign_id).distinct()
    everybody = set(session.scalars(annotators)) - {machine}
    said: dict[ItemId, set[str]] = {item: set() for item in again}
    for some in in_batches(again):
        query = select(Annotation.item_id, Annotation.annotator).where(Annotation.campaign_id == campaign_id)
        for item, annotator in session.execute(query.where(Annotation.item_id.in_(some))):
            said[ItemId(item)].add(annotator)
    return [item for item in again if said[item] and not everybody - said[item]]


def give_back(session: Session, campaign_id: int, items: Sequence[ItemId], *, holder: str) -> None:
    """Let others have the tasks of some items that were held."""
    for some in in_batches(items):
        held = (Task.campaign_id == campaign_id, Task.state == TaskState.OPEN, Task.annotator == holder)
        session.execute(update(Task).where(*held, Task.item_id.in_(some)).values(lease_expires_at=None))


def tasks_there(session: Session, campaign_id: int) -> dict[ItemId, LabelStudioTask]:
    """Return what is known of each item's task in Label Studio."""
    query = select(LabelStudioTask).where(LabelStudioTask.campaign_id == campaign_id)
    return {ItemId(row.item_id): row for row in session.scalars(query)}


def greatest_task(session: Session, campaign_id: int) -> int:
    """Return the greatest number of a task that is known, 0 if none is."""
    query = select(func.max(LabelStudioTask.their_id)).where(LabelStudioTask.campaign_id == campaign_id)
    return session.scalar(query) or 0


def note_task(session: Session, campaign_id: int, item_id: ItemId, *, their_id: int, is_open: bool) -> bool:
    """Remember an item's task; False where another task of it waits there already."""
    row = session.get(LabelStudioTask, (campaign_id, item_id))
    if row is not None and row.open and row.their_id != their_id:
        return False
    if row is None:
        session.add(LabelStudioTask(campaign_id=campaign_id, item_id=item_id, their_id=their_id, open=is_open))
    else:
        row.their_id, row.open = their_id, is_open
    session.flush()
    return True


def note_labelled(session: Session, campaign_id: int, their_ids: Sequence[int]) -> None:
    """Remember that tasks have their annotations and are handed out there no more."""
    for some in in_batches(their_ids):
        query = update(LabelStudioTask).where(LabelStudioTask.campaign_id == campaign_id)
        session.execute(query.where(LabelStudioTask.their_id.in_(some)).values(open=False))


def note_deleted(session: Session, campaign_id: int, their_ids: Sequence[int]) -> None:
    """Remember that tasks are there no more."""
    for some in in_batches(their_ids):
        query = delete(LabelStudioTask).where(LabelStudioTask.campaign_id == campaign_id)
        session.execute(query.where(LabelStudioTask.their_id.in_(some)))


def handed_out(session: Session, campaign_id: int, item_ids: Sequence[ItemId]) -> set[ItemId]:
    """Return those items that the campaign ever made a task of."""
    found: set[ItemId] = set()
    for some in in_batches(item_ids):
        query = select(Task.item_id).where(Task.campaign_id == campaign_id, Task.item_id.in_(some))
        found.update(map(ItemId, session.scalars(query)))
    return found


def versions(session: Session, campaign_id: int, their_ids: Sequence[int]) -> Mapping[int, str]:
    """Return the latest version taken of each annotation; none for those never seen."""
    found: dict[int, str] = {}
    for some in in_batches(their_ids):
        query = select(LabelStudioAnnotation.their_id, func.max(LabelStudioAnnotation.version))
        query = query.where(
            LabelStudioAnnotation.campaign_id == campaign_id, LabelStudioAnnotation.their_id.in_(some)
        ).group_by(LabelStudioAnnotation.their_id)
        found.update((their_id, version) for their_id, version in session.execute(query))
    return found


def note_annotation(session: Session, campaign_id: int, their_id: int, version: str) -> None:
    """Remember that a version of an annotation was taken, in the transaction in which it was."""
    session.add(LabelStudioAnnotation(campaign_id=campaign_id, their_id=their_id, version=version))


def counts(session: Session, campaign_id: int) -> tuple[int, int]:
    """Return how many tasks are there, and how many annotations were taken."""
    tasks = select(func.count()).select_from(LabelStudioTask).where(LabelStudioTask.campaign_id == campaign_id)
    taken = select(func.count()).select_from(LabelStudioAnnotation)
    taken = taken.where(LabelStudioAnnotation.campaign_id == campaign_id)
    return session.scalar(tasks) or 0, session.scalar(taken) or 0


def _free_for(holder: str, now: datetime) -> ColumnElement[bool]:
    free = or_(Task.lease_expires_at.is_(None), Task.lease_expires_at <= now, Task.annotator == holder)
    return and_(Task.state == TaskState.OPEN, free)
