"""Who labelled how much, and how well annotators agree."""

from collections.abc import Mapping, Sequence

from sqlalchemy.orm import Session

from scheduler.domain.agreement import Classes, agreement_of
from scheduler.domain.llm_spec import ORACLE as LLM
from scheduler.domain.llm_spec import annotator_of
from scheduler.domain.spec import oracle_of
from scheduler.domain.states import LabelPurpose, Outcome
from scheduler.storage import annotations, campaigns, labels, llm_answers
from scheduler.storage.models import Campaign
from scheduler.storage.store import Store
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, scheduler_pb2

Answers = Mapping[ItemId, Mapping[str, Classes]]
"""What each annotator labelled each item with."""


class OracleReportService:
    """Reports on the annotators of a campaign, people or not."""

    def __init__(self, *, store: Store) -> None:
        self._store = store

    def report(self, request: scheduler_pb2.GetOracleReportRequest) -> scheduler_pb2.GetOracleReportResponse:
        """Compare the annotators of items that several labelled, whatever for, and count what everybody did."""
        with self._store.reading() as session:
            campaign = campaigns.get(session, request.campaign)
            spec = campaigns.spec_of(campaign)
            counts = annotations.counts(session, campaign.id)
            answers = _answers(session, campaign, spec)
            final = _final(session, campaign, list(answers))
            llm = None
            if oracle_of(spec) == LLM:
                llm = llm_answers.report(session, campaign.id, annotator=annotator_of(spec.oracle.llm))
        compared, agreed = _compared(answers, final)
        return scheduler_pb2.GetOracleReportResponse(
            annotators=[
                scheduler_pb2.AnnotatorReport(
                    annotator=annotator,
                    labels=number.get(Outcome.LABEL, 0),
                    skipped=number.get(Outcome.SKIP, 0),
                    cannot_tell=number.get(Outcome.CANNOT_TELL, 0),
                    compared=compared.get(annotator, 0),
                    agreed=agreed.get(annotator, 0),
                )
                for annotator, number in sorted(counts.items())
            ],
            agreement=agreement_of(
                [list(said.values()) for said in answers.values()],
                classes=len(spec.classes),
                multilabel=spec.task == common_pb2.TASK_KIND_MULTILABEL,
            ),
            several=len(answers),
            llm=llm,
        )


def _answers(session: Session, campaign: Campaign, spec: scheduler_pb2.CampaignSpec) -> Answers:
    # Items of an evaluation pool may be called as other items of the pool are.
    purposes = [p for p in LabelPurpose if p is not LabelPurpose.EVALUATION or not spec.evaluation_pool]
    found: dict[ItemId, dict[str, Classes]] = {}
    for item, said in annotations.every_opinion(session, campaign.id, purposes=purposes).items():
        labelled = {name: opinion.classes for name, opinion in said.items() if opinion.outcome is Outcome.LABEL}
        if len(labelled) > 1:
            found[item] = labelled
    return found


def _final(session: Session, campaign: Campaign, items: Sequence[ItemId]) -> dict[ItemId, Classes]:
    """Return the items' labels in the end: for training, where an item has one of those."""
    found: dict[ItemId, Classes] = {}
    for purpose in (LabelPurpose.AUDIT, LabelPurpose.EVALUATION, LabelPurpose.TRAINING):
        found.update(labels.effective_of(session, campaign.id, items, purpose=purpose))
    return found


def _compared(answers: Answers, final: Mapping[ItemId, Classes]) -> tuple[dict[str, int], dict[str, int]]:
    compared: dict[str, int] = {}
    agreed: dict[str, int] = {}
    for item, said in answers.items():
        if item not in final:
            continue
        for annotator, classes in said.items():
            compared[annotator] = compared.get(annotator, 0) + 1
            agreed[annotator] = agreed.get(annotator, 0) + (classes == final[item])
    return compared, agreed
