"""Labels that are likely wrong, found and handed out again."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from scheduler import messages
from scheduler.domain.labels import why_untrainable
from scheduler.domain.reviewing import doubts
from scheduler.domain.seeds import Purpose, derive_seed
from scheduler.domain.states import CampaignState, LabelPurpose
from scheduler.labelled_set import training_set
from scheduler.ports import Learner
from scheduler.service.once import Once
from scheduler.storage import campaigns, rounds, tasks
from scheduler.storage.models import Campaign
from scheduler.storage.store import Store
from scheduler.storage.tasks import Pick
from sealpool.errors import FailedPrecondition, InvalidArgument
from sealpool.types import ItemId, LabelledItems
from sealpool.v1 import common_pb2, learner_pb2, scheduler_pb2
from sealpool.vocabulary.checking import check_range

DEFAULT_FOLDS = 5
MAX_FOLDS = 20


class ReviewService:
    """Doubts labels.

    Parameters
    ----------
    learner
        With a long deadline: it trains a model a fold.
    max_items
        Suspects in one call at most: the setting max_lease_tasks.
    """

    def __init__(self, *, store: Store, learner: Learner, max_items: int) -> None:
        self._store = store
        self._learner = learner
        self._max_items = max_items
        self._once = Once(store)

    def review(self, request: scheduler_pb2.ReviewLabelsRequest) -> scheduler_pb2.ReviewLabelsResponse:
        """Find suspects, worst first, and make a task for each unless they are only to be shown."""
        earlier = self._once.answered(request, scheduler_pb2.ReviewLabelsResponse)
        if earlier is not None:
            return earlier
        folds = self._check(request)
        with self._store.reading() as session:
            campaign = campaigns.get(session, request.campaign)
            spec = campaigns.spec_of(campaign)
            _check_not_archived(campaign)
            labelled = training_set(session, campaign.id, spec, until=campaign.last_sequence)
            reviewed = set(tasks.items_of(session, campaign.id, purpose=LabelPurpose.REVIEW))
            number = _last_number(session, campaign)
        _check_enough(spec, labelled, folds=folds)
        found = self._suspects(spec, labelled, folds=folds, number=number)
        suspects = [suspect for suspect in found if suspect.item_id not in reviewed][: request.max_items]

        def effect(session: Session) -> scheduler_pb2.ReviewLabelsResponse:
            if request.show_only:
                return scheduler_pb2.ReviewLabelsResponse(suspects=suspects)
            return _hand_out(session, request.campaign, suspects)

        return self._once.run(request, scheduler_pb2.ReviewLabelsResponse, effect)

    def _check(self, request: scheduler_pb2.ReviewLabelsRequest) -> int:
        if not 1 <= request.max_items <= self._max_items:
            raise InvalidArgument(
                "max_items", f"{request.max_items:,} is not 1 to {self._max_items:,} (setting max_lease_tasks)"
            )
        if request.folds:
            check_range("folds", request.folds, 2, MAX_FOLDS)
        return request.folds or DEFAULT_FOLDS

    def _suspects(
        self,
        spec: scheduler_pb2.CampaignSpec,
        labelled: Mapping[ItemId, tuple[int, ...]],
        *,
        folds: int,
        number: int,
    ) -> list[scheduler_pb2.Suspect]:
        header = learner_pb2.TrainHeader(
            campaign=spec.name,
            round=number,
            pool=spec.pool,
            task=spec.task,
            classes=spec.classes,
            model=spec.model,
            seed=derive_seed(spec.seed, number, Purpose.REVIEW),
        )
        examples = LabelledItems(ids=list(labelled), labels=list(labelled.values()))
        said: dict[ItemId, NDArray[np.float64]] = {}
        for chunk in self._learner.cross_predict(header, examples, folds=folds):
            said.update(zip(chunk.ids, chunk.probabilities.astype(np.float64), strict=True))
        # Items that have left the pool since are not predicted: their labels stand.
        items = [item for item in labelled if item in said]
        if not items:
            return []
        given = [labelled[item] for item in items]
        is_multilabel = spec.task == common_pb2.TASK_KIND_MULTILABEL
        return [
            scheduler_pb2.Suspect(
                item_id=items[doubt.position],
                classes=[spec.classes[index] for index in given[doubt.position]],
                predictions=messages.class_probabilities(spec.classes, said[items[doubt.position]].tolist()),
                quality=doubt.quality,
            )
            for doubt in doubts(given, np.stack([said[item] for item in items]), multilabel=is_multilabel)
        ]


def _hand_out(
    session: Session, campaign_name: str, suspects: Sequence[scheduler_pb2.Suspect]
) -> scheduler_pb2.ReviewLabelsResponse:
    campaign = campaigns.lock(session, campaign_name)
    _check_not_archived(campaign)
    # Another review may have run beside this one.
    reviewed = set(tasks.items_of(session, campaign.id, purpose=LabelPurpose.REVIEW))
    picks = [
        Pick(item_id=ItemId(suspect.item_id), score=suspect.quality, origin=common_pb2.PICK_ORIGIN_REVIEW)
        for suspect in suspects
        if suspect.item_id not in reviewed
    ]
    tasks.add(session, campaign.id, _last_number(session, campaign), picks, labelled=(), purpose=LabelPurpose.REVIEW)
    return scheduler_pb2.ReviewLabelsResponse(suspects=suspects, tasks=len(picks))


def _check_not_archived(campaign: Campaign) -> None:
    if campaign.state == CampaignState.ARCHIVED:
        raise FailedPrecondition(f"campaign {campaign.name!r} is archived", field="campaign")


def _check_enough(spec: scheduler_pb2.CampaignSpec, labelled: Mapping[ItemId, tuple[int, ...]], *, folds: int) -> None:
    needed = folds * len(spec.classes)
    if len(labelled) < needed:
        raise FailedPrecondition(
            f"{len(labelled):,} items are labelled; {folds} folds of {len(spec.classes):,} classes need {needed:,}",
            field="folds",
        )
    alike = why_untrainable(spec, labelled.values())
    if alike:
        raise FailedPrecondition(alike)
    if spec.task == common_pb2.TASK_KIND_MULTILABEL:
        present = {index for classes in labelled.values() for index in classes}
        absent = next((name for index, name in enumerate(spec.classes) if index not in present), None)
        if absent is not None:
            raise FailedPrecondition(f"no item is labelled with class {absent!r}: label one that has it")


def _last_number(session: Session, campaign: Campaign) -> int:
    last = rounds.last(session, campaign.id)
    return 0 if last is None else last.number
