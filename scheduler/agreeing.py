"""How well annotators agree of late, at a price that is bounded."""

from collections.abc import Mapping, Sequence

from sqlalchemy.orm import Session

from scheduler.domain.agreement import Classes, agreement_of
from scheduler.domain.annotation_spec import annotations_of
from scheduler.domain.states import LabelPurpose
from scheduler.storage import annotations, campaigns
from scheduler.storage.models import Campaign
from sealpool.v1 import common_pb2, scheduler_pb2

LATEST = 1000
"""Annotations that are looked at. All of a campaign's take seconds."""


class RecentAgreement:
    """Agreement over the latest annotations of campaigns that ask several people of an item.

    A campaign is looked at anew once it has another annotation. Threads: one at a time.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, float]] = {}

    def of_each(self, session: Session, rows: Sequence[Campaign]) -> Mapping[int, float]:
        """Return Krippendorff's alpha by campaign, NaN where it says nothing; others are left out."""
        self._known = {row.id: self._of(session, row, spec) for row in rows if annotations_of(spec := _spec(row)) > 1}
        return {campaign_id: alpha for campaign_id, (_, alpha) in self._known.items()}

    def _of(self, session: Session, row: Campaign, spec: scheduler_pb2.CampaignSpec) -> tuple[int, float]:
        last = annotations.last_sequence(session, row.id)
        known = self._known.get(row.id)
        return known if known is not None and known[0] == last else (last, _alpha(session, row, spec))


def _spec(row: Campaign) -> scheduler_pb2.CampaignSpec:
    return campaigns.spec_of(row)


def _alpha(session: Session, row: Campaign, spec: scheduler_pb2.CampaignSpec) -> float:
    # Items of an evaluation pool may be called as other items of the pool are.
    purposes = [p for p in LabelPurpose if p is not LabelPurpose.EVALUATION or not spec.evaluation_pool]
    said = annotations.latest_labels(session, row.id, purposes=purposes, most=LATEST)
    # Classes that nobody named have no alpha, and a campaign may have 10,000.
    named = sorted({index for of_item in said.values() for classes in of_item.values() for index in classes})
    place = {index: position for position, index in enumerate(named)}
    units: list[list[Classes]] = [
        [tuple(place[index] for index in classes) for classes in of_item.values()] for of_item in said.values()
    ]
    return agreement_of(units, classes=len(named), multilabel=spec.task == common_pb2.TASK_KIND_MULTILABEL)
