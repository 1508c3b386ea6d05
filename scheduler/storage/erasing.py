"""Names of people and ids of items, replaced by pseudonyms in every table that holds them."""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

from sqlalchemy import ColumnElement, Table, bindparam, case, select, text, update
from sqlalchemy.orm import Session

from scheduler.domain.states import DrawKind, LabelPurpose, TaskState
from scheduler.storage.models import (
    ActiveTestPoint,
    Annotation,
    DrawnItem,
    Label,
    LabelStudioTask,
    LlmAnswer,
    StreamDecision,
    SyntheticItem,
    Task,
)

_APPEND_ONLY: Final = (Annotation, Label)
"""In the order in which whoever labels writes to them: locked in the other, two transactions could wait for each other.
"""
_NAMING_ITEMS: Final[Sequence[Any]] = (
    *(Task, Label, Annotation, DrawnItem, ActiveTestPoint, LlmAnswer, StreamDecision, SyntheticItem, LabelStudioTask),
)
_NAMING_ANNOTATORS: Final[Sequence[Any]] = (Task, Label, Annotation)
_AT_ONCE: Final = 500
"""Names in a statement, which compares each row that it changes with each of them."""
_AS_IT_IS: Final = {"synchronize_session": False}

ERASED: Final = "erased"
"""What is wrong with a language model's answer that was emptied."""


@contextmanager
def append_only_lifted(session: Session) -> Iterator[None]:
    """Let labels and annotations be changed until the end of the block, in a transaction that writes.

    On PostgreSQL nobody else writes to them meanwhile; on SQLite nobody else writes at all. Where the block raises, the
    transaction must end with it: that brings the triggers back.
    """
    tables = [model.__tablename__ for model in _APPEND_ONLY]
    if session.get_bind().dialect.name == "postgresql":
        for table in tables:
            session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER {table}_append_only"))
        yield
        for table in tables:
            session.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER {table}_append_only"))
        return
    triggers = {
        name: session.execute(text("SELECT sql FROM sqlite_master WHERE name = :name"), {"name": name}).scalar_one()
        for name in (f"{table}_refuse_update" for table in tables)
    }
    for name in triggers:
        session.execute(text(f"DROP TRIGGER {name}"))
    yield
    for statement in triggers.values():
        session.execute(text(statement))


def overwrite_what_changes(session: Session) -> None:
    """See to it that SQLite leaves nothing of what this connection changes in free parts of its file.

    PostgreSQL does that in its own time, by VACUUM.
    """
    if session.get_bind().dialect.name == "sqlite":
        session.execute(text("PRAGMA secure_delete = ON"))


def known_annotators(session: Session, campaign_id: int, annotators: Iterable[str]) -> set[str]:
    """Return those of the names that the campaign keeps."""
    return _known(session, campaign_id, _NAMING_ANNOTATORS, "annotator", list(annotators))


def known_items(session: Session, campaign_id: int, item_ids: Iterable[str]) -> set[str]:
    """Return those of the ids that the campaign keeps."""
    return _known(session, campaign_id, _NAMING_ITEMS, "item_id", list(item_ids))


def rename_annotators(session: Session, campaign_id: int, pseudonyms: Mapping[str, str]) -> None:
    """Give annotators other names and empty their comments. Within `append_only_lifted`."""
    for some in _batches(list(pseudonyms)):
        _change(session, Annotation, _rows(Annotation, campaign_id, "annotator", some), comment="")
        _rename(session, campaign_id, _NAMING_ANNOTATORS, "annotator", {name: pseudonyms[name] for name in some})


def rename_items(session: Session, campaign_id: int, pseudonyms: Mapping[str, str]) -> None:
    """Give items other ids, empty what was written of them, withdraw their tasks. Within `append_only_lifted`."""
    for some in _batches(list(pseudonyms)):
        open_tasks = [*_rows(Task, campaign_id, "item_id", some), Task.state == TaskState.OPEN]
        _change(session, Task, open_tasks, state=TaskState.WITHDRAWN, annotator="", lease_expires_at=None)
        _change(session, Annotation, _rows(Annotation, campaign_id, "item_id", some), comment="")
        _empty_answers(session, campaign_id, some)
        _rename(session, campaign_id, _NAMING_ITEMS, "item_id", {item: pseudonyms[item] for item in some})


def _empty_answers(session: Session, campaign_id: int, items: Sequence[str]) -> None:
    # The hash goes too: it tells whether a text is guessed right, and an item of the same text, which asks the same,
    # would be given the empty answer.
    keys = session.execute(
        select(LlmAnswer.prompt_hash, LlmAnswer.sample).where(*_rows(LlmAnswer, campaign_id, "item_id", items))
    )
    changes = [{"was": was, "of": sample, "now": secrets.token_hex(32)} for was, sample in keys]
    if not changes:
        return
    answers = cast("Table", LlmAnswer.__table__)
    session.execute(
        update(answers)
        .where(
            answers.c.campaign_id == campaign_id,
            answers.c.prompt_hash == bindparam("was"),
            answers.c.sample == bindparam("of"),
        )
        .values(prompt_hash=bindparam("now"), answer="", problem=ERASED),
        changes,
    )


def _known(session: Session, campaign_id: int, models: Sequence[Any], column: str, names: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for some in _batches(names):
        for model in models:
            query = select(getattr(model, column)).where(*_rows(model, campaign_id, column, some)).distinct()
            found.update(session.scalars(query))
    return found


def _rename(
    session: Session, campaign_id: int, models: Sequence[Any], column: str, pseudonyms: Mapping[str, str]
) -> None:
    for model in models:
        changed = {column: case(pseudonyms, value=getattr(model, column))}
        _change(session, model, _rows(model, campaign_id, column, list(pseudonyms)), **changed)


def _change(session: Session, model: Any, rows: Sequence[ColumnElement[bool]], **values: object) -> None:
    session.execute(update(model).where(*rows).values(**values), execution_options=_AS_IT_IS)


def _rows(model: Any, campaign_id: int, column: str, names: Sequence[str]) -> list[ColumnElement[bool]]:
    rows = [model.campaign_id == campaign_id, getattr(model, column).in_(names)]
    # Always true, but the indexes have these before the item: a search for an item read the whole campaign.
    if model is Label and column == "item_id":
        rows.append(Label.purpose.in_(list(LabelPurpose)))
    if model is DrawnItem:
        rows.append(DrawnItem.kind.in_(list(DrawKind)))
    return rows


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), _AT_ONCE):
        yield names[start : start + _AT_ONCE]
