"""Active testing: a few test points, chosen where the model doubts, that judge it as many drawn at random would."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.domain import active_testing
from scheduler.domain.seeds import Purpose, derive_seed
from scheduler.domain.states import DrawKind, LabelPurpose, RoundKind
from scheduler.oracles.registry import OracleRegistry
from scheduler.ports import Index, Learner
from scheduler.rounds.asking_the_model import predict_items
from scheduler.rounds.holding_out import add_evaluation_tasks
from scheduler.rounds.recording import Recording, RoundJob
from scheduler.storage import campaigns, drawn_items, labels, tasks, test_points
from scheduler.storage.store import Store
from scheduler.storage.test_points import TestPoint
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, scheduler_pb2

_Row = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tested:
    """What test points say of a round's model, None before the first is labelled, and those chosen next."""

    estimate: scheduler_pb2.ActiveTest | None
    chosen: Sequence[TestPoint]
    doubts: Sequence[float]

    def without_choice(self) -> "Tested":
        """Return the estimate alone: nobody would label what was chosen."""
        return Tested(estimate=self.estimate, chosen=(), doubts=())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    pool: Sequence[ItemId]
    points: Sequence[TestPoint]
    labelled: Mapping[ItemId, tuple[int, ...]]
    unlabelable: frozenset[ItemId]
    room: int


class ActiveTester:
    """Estimates a model's quality from the test points that are labelled, and chooses further ones."""

    def __init__(self, *, store: Store, index: Index, learner: Learner, oracles: OracleRegistry) -> None:
        self._store = store
        self._index = index
        self._learner = learner
        self._oracles = oracles

    def test(self, job: RoundJob) -> Tested | None:
        """Estimate, and choose; None where the campaign has no test points. Nothing is written: see `record`."""
        if not job.spec.evaluation.test_points:
            return None
        known = self._known(job)
        present, probabilities = predict_items(self._index, self._learner, job, known.pool)
        rows = dict(zip(present, probabilities, strict=True))
        chosen, doubts = self._choose(job, known, rows)
        return Tested(
            estimate=estimate(job.spec, known.points, known.labelled, known.unlabelable, rows),
            chosen=chosen,
            doubts=doubts,
        )

    def record(self, job: RoundJob, record: Recording, tested: Tested) -> None:
        """Write the estimate, and the points as tasks."""
        if tested.estimate is not None:
            record.round.active_test = tested.estimate.SerializeToString()
        test_points.add(record.session, job.campaign_id, job.number, tested.chosen)
        chosen = [(point.item_id, doubt) for point, doubt in zip(tested.chosen, tested.doubts, strict=True)]
        add_evaluation_tasks(job, record, chosen, self._oracles)

    def _known(self, job: RoundJob) -> _Known:
        with self._store.reading() as session:
            campaign = campaigns.get(session, job.campaign)
            spent = campaign.labelled + campaign.evaluation_labelled + job.batch
            promised = len(tasks.outstanding(session, job.campaign_id))
            promised += len(drawn_items.evaluation_outstanding(session, job.campaign_id))
            return _Known(
                pool=drawn_items.of_kind(session, job.campaign_id, DrawKind.TEST_POOL),
                points=test_points.every(session, job.campaign_id),
                labelled=labels.effective(
                    session, job.campaign_id, purpose=LabelPurpose.EVALUATION, until=campaign.last_sequence
                ),
                unlabelable=frozenset(drawn_items.unlabelable(session, job.campaign_id)),
                room=max(0, job.spec.budget - spent - promised),
            )

    def _choose(self, job: RoundJob, known: _Known, rows: Mapping[ItemId, _Row]) -> tuple[list[TestPoint], list[float]]:
        taken = {point.item_id for point in known.points}
        left = [item for item in known.pool if item in rows and item not in taken]
        count = min(job.spec.evaluation.test_points, known.room)
        if not left or not count or job.kind == RoundKind.FINAL:
            return [], []
        doubts = active_testing.expected_loss(
            np.stack([rows[item] for item in left]), multilabel=is_multilabel(job.spec)
        )
        seed = derive_seed(job.spec.seed, job.number, Purpose.TEST_POINTS)
        pool = len(known.points) + len(left)
        drawn = active_testing.choose(doubts, count, seed=seed)
        points = [TestPoint(item_id=left[place], probability=probability, pool=pool) for place, probability in drawn]
        return points, [float(doubts[place]) for place, _ in drawn]


def is_multilabel(spec: scheduler_pb2.CampaignSpec) -> bool:
    """Whether an item may have any number of classes."""
    return spec.task == common_pb2.TASK_KIND_MULTILABEL


def estimate(
    spec: scheduler_pb2.CampaignSpec,
    points: Sequence[TestPoint],
    labelled: Mapping[ItemId, tuple[int, ...]],
    unlabelable: frozenset[ItemId],
    rows: Mapping[ItemId, _Row],
) -> scheduler_pb2.ActiveTest | None:
    """Estimate a model's quality; None before the first point is labelled.

    The points are taken in the order chosen, up to the first whose label is still to come: which ones are labelled
    early may hang together with what they are, and the weights hold for a beginning of the order alone. Points that
    nobody can label, or that the pool has lost, count as if they had never been in it.

    Parameters
    ----------
    rows
        Class probabilities (c,) of those points that the pool still has.
    """
    settled = _settled(points, labelled, unlabelable, rows)
    usable = [point.item_id in labelled and point.item_id in rows for point in settled]
    items = [point.item_id for point, is_usable in zip(settled, usable, strict=True) if is_usable]
    if not items:
        return None
    drawn_with = [point.probability for point in settled]
    kept, pool = active_testing.without_unlabelable(drawn_with, usable, pool=settled[-1].pool)
    weights = active_testing.lure_weights(kept, pool=pool)
    said, truth = np.stack([rows[item] for item in items]), [labelled[item] for item in items]
    several = is_multilabel(spec)
    risk = active_testing.lure_estimate(active_testing.zero_one_losses(said, truth, multilabel=several), weights)
    log_loss = active_testing.lure_estimate(active_testing.log_losses(said, truth, multilabel=several), weights)
    accuracy = 1 - risk.mean
    return scheduler_pb2.ActiveTest(
        points=len(items),
        pool=pool,
        accuracy=accuracy,
        accuracy_low=accuracy - risk.margin,
        accuracy_high=accuracy + risk.margin,
        log_loss=log_loss.mean,
    )


def _settled(
    points: Sequence[TestPoint],
    labelled: Mapping[ItemId, tuple[int, ...]],
    unlabelable: frozenset[ItemId],
    rows: Mapping[ItemId, _Row],
) -> Sequence[TestPoint]:
    for place, point in enumerate(points):
        item = point.item_id
        if item not in labelled and item not in unlabelable and item in rows:
            return points[:place]
    return points
