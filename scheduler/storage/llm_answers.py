"""The ledger of language models: what was asked, answered and paid for."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from scheduler.domain.llm_spec import annotator_name
from scheduler.domain.states import LabelPurpose, Outcome
from scheduler.storage.models import Annotation, Label, LlmAnswer, Task
from sealpool.statistics import wilson
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, scheduler_pb2


@dataclass(frozen=True, kw_only=True, slots=True)
class NewAnswer:
    """An answer as it came. `problem` says what was wrong with it, "" for a valid one."""

    item_id: ItemId
    prompt_hash: str
    sample: int
    endpoint: str
    model: str
    answer: str
    problem: str
    tokens_in: int
    tokens_out: int
    cost: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """What a campaign's answers came to."""

    requests: int
    tokens_in: int
    tokens_out: int
    cost: float
    longest_answer: int  # tokens


def find(session: Session, campaign_id: int, *, prompt_hash: str, sample: int) -> str | None:
    """Return the answer to a question that was asked before, None if it was not."""
    query = select(LlmAnswer.answer).where(
        _of(campaign_id), LlmAnswer.prompt_hash == prompt_hash, LlmAnswer.sample == sample
    )
    return session.scalar(query)


def add(session: Session, campaign_id: int, answer: NewAnswer, *, now: datetime) -> None:
    """Write an answer. The first one to a question stays."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    row = {
        "campaign_id": campaign_id,
        "item_id": answer.item_id,
        "prompt_hash": answer.prompt_hash,
        "sample": answer.sample,
        "endpoint": answer.endpoint,
        "model": answer.model,
        # PostgreSQL keeps no NUL in a text.
        "answer": answer.answer.replace("\0", ""),
        "problem": answer.problem.replace("\0", ""),
        "tokens_in": answer.tokens_in,
        "tokens_out": answer.tokens_out,
        "cost": answer.cost,
        "answered_at": now,
    }
    session.execute(insert(LlmAnswer).values(row).on_conflict_do_nothing())


def spent(session: Session, campaign_id: int) -> Spent:
    """Add up what a campaign's answers cost."""
    tokens_in, tokens_out, cost = (
        func.coalesce(func.sum(column), 0) for column in (LlmAnswer.tokens_in, LlmAnswer.tokens_out, LlmAnswer.cost)
    )
    longest = func.coalesce(func.max(LlmAnswer.tokens_out), 0)
    row = session.execute(select(func.count(), tokens_in, tokens_out, cost, longest).where(_of(campaign_id))).one()
    return Spent(
        requests=row[0], tokens_in=int(row[1]), tokens_out=int(row[2]), cost=float(row[3]), longest_answer=row[4]
    )


def report(session: Session, campaign_id: int, *, annotator: str) -> scheduler_pb2.LlmReport | None:
    """Return what a language model did in a campaign, None if it was never asked.

    The error rate is estimated from the audit alone: items drawn by a hash of their ids. Corrections that people made
    of their own accord would bias it.

    Parameters
    ----------
    annotator
        In whose name the labels of the campaign's model stand. Those of models that it had before count too.
    """
    total = spent(session, campaign_id)
    if not total.requests:
        return None
    outcomes = _outcomes(session, campaign_id, _names(session, campaign_id, annotator))
    audited, errors = audit(session, campaign_id, annotator=annotator)
    low, high = wilson(errors, audited)
    return scheduler_pb2.LlmReport(
        requests=total.requests,
        tokens_in=total.tokens_in,
        tokens_out=total.tokens_out,
        cost=total.cost,
        labelled=outcomes.get(Outcome.LABEL, 0),
        abstained=outcomes.get(Outcome.CANNOT_TELL, 0),
        audited=audited,
        errors=errors,
        error_rate=errors / audited if audited else float("nan"),
        error_low=low,
        error_high=high,
    )


def audit(session: Session, campaign_id: int, *, annotator: str) -> tuple[int, int]:
    """Return how many items of the audit people labelled too, and how many of these otherwise than the model."""
    drawn = select(Task.item_id).where(
        Task.campaign_id == campaign_id,
        Task.purpose == LabelPurpose.REVIEW,
        Task.origin == common_pb2.PICK_ORIGIN_AUDIT,
    )
    names = _names(session, campaign_id, annotator)
    model, people = aliased(Annotation), aliased(Annotation)
    query = (
        select(model.classes, people.classes)
        .join(people, people.item_id == model.item_id)
        .where(
            model.sequence.in_(_latest(campaign_id, Annotation.annotator.in_(names))),
            people.sequence.in_(_latest(campaign_id, Annotation.annotator.not_in(names))),
            model.item_id.in_(drawn),
        )
    )
    pairs = [(sorted(ours), sorted(theirs)) for ours, theirs in session.execute(query)]
    return len(pairs), sum(ours != theirs for ours, theirs in pairs)


def _outcomes(session: Session, campaign_id: int, names: Collection[str]) -> Mapping[str, int]:
    latest = (
        select(func.max(Annotation.sequence))
        .where(Annotation.campaign_id == campaign_id, Annotation.annotator.in_(names))
        .group_by(Annotation.item_id)
    )
    query = select(Annotation.outcome, func.count()).where(Annotation.sequence.in_(latest))
    return {outcome: count for outcome, count in session.execute(query.group_by(Annotation.outcome))}  # noqa: C416


def _latest(campaign_id: int, whose: ColumnElement[bool]) -> Select[int]:
    return (
        select(func.max(Annotation.sequence))
        .where(Annotation.campaign_id == campaign_id, Annotation.outcome == Outcome.LABEL, whose)
        .group_by(Annotation.item_id)
    )


def _names(session: Session, campaign_id: int, annotator: str) -> set[str]:
    """Return the names of all models that the campaign asked, `annotator` among them: it may change its model."""
    models = session.scalars(select(LlmAnswer.model).where(_of(campaign_id)).distinct())
    return {annotator, *(annotator_name(model) for model in models)}


def _of(campaign_id: int) -> ColumnElement[bool]:
    return LlmAnswer.campaign_id == campaign_id


def labels_of_others(
    session: Session, campaign_id: int, *, annotator: str, until: int
) -> dict[ItemId, tuple[int, ...]]:
    """Return the labels for training, as of sequence `until`, that stand in the name of no language model."""
    names = _names(session, campaign_id, annotator)
    latest = (
        select(func.max(Label.sequence))
        .where(Label.campaign_id == campaign_id, Label.purpose == LabelPurpose.TRAINING, Label.sequence <= until)
        .group_by(Label.item_id)
    )
    query = select(Label.item_id, Label.classes).where(Label.sequence.in_(latest), Label.annotator.not_in(names))
    return {ItemId(item): tuple(classes) for item, classes in session.execute(query.order_by(Label.sequence))}
