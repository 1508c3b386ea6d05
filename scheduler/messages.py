"""Rows of the database as messages of the contract."""

import json
from collections.abc import Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy.orm import Session

from scheduler.domain.states import CampaignState, LabelPurpose, Outcome, RoundState
from scheduler.storage import models, rounds, tasks
from scheduler.storage.campaigns import spec_of
from scheduler.storage.leases import LeasedTask
from sealpool.types import Payload
from sealpool.v1 import common_pb2, scheduler_pb2
from sealpool.vocabulary.checking import check_enum

MAX_PROBABILITIES = 100
"""Of an item, so that tasks of a campaign with thousands of classes fit into a message."""


def timestamp(at: datetime) -> Timestamp:
    """Return a time as the contract writes it."""
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp


def campaign_state(state: str) -> scheduler_pb2.CampaignState.ValueType:
    """Return a campaign's state as the contract names it."""
    return scheduler_pb2.CampaignState.Value(f"CAMPAIGN_STATE_{CampaignState(state).name}")


def round_state(state: str) -> scheduler_pb2.RoundState.ValueType:
    """Return a round's state as the contract names it."""
    return scheduler_pb2.RoundState.Value(f"ROUND_STATE_{RoundState(state).name}")


def label_purpose(purpose: str) -> scheduler_pb2.LabelPurpose.ValueType:
    """Return what a label, or the answer of a task, is for as the contract names it."""
    meant = LabelPurpose.TRAINING if purpose == LabelPurpose.REVIEW else LabelPurpose(purpose)
    return scheduler_pb2.LabelPurpose.Value(f"LABEL_PURPOSE_{meant.name}")


def purpose_of(field: str, purpose: scheduler_pb2.LabelPurpose.ValueType) -> LabelPurpose | None:
    """Return what a request says that its labels are for; None where it leaves that open.

    Raises
    ------
    InvalidArgument
        A number that the contract does not know.
    """
    check_enum(field, purpose, values=scheduler_pb2.LabelPurpose.values())
    if purpose == scheduler_pb2.LABEL_PURPOSE_UNSPECIFIED:
        return None
    return LabelPurpose(scheduler_pb2.LabelPurpose.Name(purpose).removeprefix("LABEL_PURPOSE_").lower())


def outcome_of(field: str, outcome: scheduler_pb2.AnnotationOutcome.ValueType) -> Outcome:
    """Return what a request says that an annotator did; LABEL where it leaves that open.

    Raises
    ------
    InvalidArgument
        A number that the contract does not know.
    """
    check_enum(field, outcome, values=scheduler_pb2.AnnotationOutcome.values())
    if outcome == scheduler_pb2.ANNOTATION_OUTCOME_UNSPECIFIED:
        return Outcome.LABEL
    return Outcome(scheduler_pb2.AnnotationOutcome.Name(outcome).removeprefix("ANNOTATION_OUTCOME_").lower())


def round_message(row: models.Round) -> scheduler_pb2.Round:
    """Return a round."""
    return scheduler_pb2.Round(
        number=row.number,
        state=round_state(row.state),
        labels=row.labels,
        picks=row.picks,
        candidates=None if row.candidates is None else common_pb2.CandidatePoolInfo.FromString(row.candidates),
        quality=None if row.quality is None else common_pb2.Quality.FromString(row.quality),
        seconds=scheduler_pb2.PhaseSeconds.FromString(row.seconds),
        error=row.error,
        started_at=timestamp(row.started_at),
        finished_at=None if row.finished_at is None else timestamp(row.finished_at),
        pool_version=row.pool_version,
        strategy=row.strategy,
        strategy_reason=row.strategy_reason,
        notes=row.notes,
        class_counts=row.class_counts,
        origin_counts=row.origin_counts,
        survey=None if row.survey is None else scheduler_pb2.Survey.FromString(row.survey),
        active_test=None if row.active_test is None else scheduler_pb2.ActiveTest.FromString(row.active_test),
    )


def campaign_message(session: Session, row: models.Campaign, *, now: datetime) -> scheduler_pb2.Campaign:
    """Return a campaign as it stands in this transaction."""
    return campaign_messages(session, [row], now=now)[0]


def campaign_messages(
    session: Session, rows: Sequence[models.Campaign], *, now: datetime
) -> list[scheduler_pb2.Campaign]:
    """Return campaigns as they stand in this transaction, at the price of three queries."""
    ids = [row.id for row in rows]
    counts = tasks.counts(session, ids, now=now)
    last = rounds.last_of_each(session, ids)
    finished = rounds.finished(session, ids)
    return [
        scheduler_pb2.Campaign(
            spec=spec_of(row),
            state=campaign_state(row.state),
            created_at=timestamp(row.created_at),
            rounds=finished[row.id],
            labels=row.labelled,
            open_tasks=counts[row.id].open,
            leased_tasks=counts[row.id].leased,
            last_round=round_message(last[row.id]) if row.id in last else None,
            state_reason=row.state_reason,
            review_tasks=counts[row.id].review,
            evaluation_labels=row.evaluation_labelled,
            given_up=counts[row.id].given_up,
        )
        for row in rows
    ]


def task_message(row: models.Task | LeasedTask) -> scheduler_pb2.Task:
    """Return a task, without its payload."""
    return scheduler_pb2.Task(
        id=str(row.id),
        item_id=row.item_id,
        round=row.round,
        score=row.score,
        origin=common_pb2.PickOrigin.ValueType(row.origin),
        lease_expires_at=None if row.lease_expires_at is None else timestamp(row.lease_expires_at),
        purpose=label_purpose(row.purpose),
    )


def add_payload(task: scheduler_pb2.Task, payload: Payload) -> None:
    """Give a task what its annotator reads."""
    task.text = payload.text
    task.uri = payload.uri
    task.metadata_json = json.dumps(payload.metadata, ensure_ascii=False) if payload.metadata else ""


def label_message(row: models.Label, classes: Sequence[str]) -> scheduler_pb2.Label:
    """Return a label; `classes` are the campaign's."""
    return scheduler_pb2.Label(
        item_id=row.item_id,
        classes=[classes[index] for index in row.classes],
        annotator=row.annotator,
        sequence=row.sequence,
        unsolicited=row.unsolicited,
        corrects=row.corrects,
        purpose=label_purpose(row.purpose),
        round=row.round,
        committed_at=timestamp(row.committed_at),
    )


def annotation_message(row: models.Annotation, classes: Sequence[str]) -> scheduler_pb2.Annotation:
    """Return an annotation; `classes` are the campaign's."""
    outcome = scheduler_pb2.AnnotationOutcome.Value(f"ANNOTATION_OUTCOME_{Outcome(row.outcome).name}")
    return scheduler_pb2.Annotation(
        sequence=row.sequence,
        item_id=row.item_id,
        annotator=row.annotator,
        outcome=outcome,
        classes=[classes[index] for index in row.classes],
        confidence=row.confidence,
        comment=row.comment,
        purpose=label_purpose(row.purpose),
        round=row.round,
        committed_at=timestamp(row.committed_at),
    )


def class_probabilities(classes: Sequence[str], probabilities: Sequence[float]) -> list[scheduler_pb2.ClassProbability]:
    """Return what a model says of an item, most likely first, 100 classes at most."""
    likeliest = sorted(range(len(classes)), key=lambda index: -probabilities[index])[:MAX_PROBABILITIES]
    return [scheduler_pb2.ClassProbability(name=classes[i], probability=probabilities[i]) for i in likeliest]


def state_changed(row: models.Campaign, *, now: datetime) -> scheduler_pb2.WatchCampaignResponse:
    """Tell that a campaign has a new state."""
    change = scheduler_pb2.CampaignStateChanged(state=campaign_state(row.state))
    return scheduler_pb2.WatchCampaignResponse(at=timestamp(now), campaign_state_changed=change)


def round_changed(row: models.Round, *, now: datetime) -> scheduler_pb2.WatchCampaignResponse:
    """Tell that a round has a new state."""
    change = scheduler_pb2.RoundChanged(round=round_message(row))
    return scheduler_pb2.WatchCampaignResponse(at=timestamp(now), round_changed=change)


def labels_arrived(accepted: int, labels: int, *, now: datetime) -> scheduler_pb2.WatchCampaignResponse:
    """Tell that labels were committed."""
    change = scheduler_pb2.LabelsArrived(accepted=accepted, labels=labels)
    return scheduler_pb2.WatchCampaignResponse(at=timestamp(now), labels_arrived=change)
