"""What a round's model says of the stop set, and whether that recommends to stop."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.domain import stopping
from scheduler.domain.seeds import Purpose, derive_seed
from scheduler.domain.states import DrawKind
from scheduler.domain.stopping_spec import stop_set_of
from scheduler.drawing import draw_real
from scheduler.ports import Index, Learner
from scheduler.rounds.asking_the_model import predict_items
from scheduler.rounds.recording import Recording, RoundJob, recording
from scheduler.rounds.testing_actively import is_multilabel
from scheduler.storage import drawn_items, surveys
from scheduler.storage.models import Round
from scheduler.storage.store import Store
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, scheduler_pb2


@dataclass(frozen=True, kw_only=True, slots=True)
class Surveyed:
    """A survey, and the predictions that the next one is compared with."""

    survey: scheduler_pb2.Survey
    classes: bytes


class Surveyor:
    """Surveys models on a set of items drawn once, where a campaign has stopping criteria."""

    def __init__(self, *, store: Store, index: Index, learner: Learner) -> None:
        self._store = store
        self._index = index
        self._learner = learner

    def survey(
        self,
        job: RoundJob,
        quality: common_pb2.Quality | None,
        active_test: scheduler_pb2.ActiveTest | None,
    ) -> Surveyed | None:
        """Survey the round's model; None, and nothing asked, without stopping criteria. See `record`."""
        if not job.spec.HasField("stopping"):
            return None
        items = self._stop_set(job)
        present, probabilities = predict_items(self._index, self._learner, job, items)
        several = is_multilabel(job.spec)
        predicted = stopping.predicted_classes(probabilities, multilabel=several)
        here = set(present)
        mask = np.array([item in here for item in items], np.bool_)
        packed = stopping.pack(predicted, mask)
        with self._store.reading() as session:
            earlier = surveys.before(session, job.campaign_id, job.number, limit=stopping.KAPPA_WINDOW - 1)
        survey = _measured(stopping.uncertainties(probabilities, multilabel=several), predicted, len(job.spec.classes))
        survey.kappa, survey.classification_change = _compared(job, earlier, packed, len(items))
        _judge(job, survey, earlier, stopping.target_value(job.spec.stopping, quality, active_test))
        return Surveyed(survey=survey, classes=packed)

    def record(self, record: Recording, surveyed: Surveyed) -> None:
        """Write the survey."""
        record.round.survey = surveyed.survey.SerializeToString()
        record.round.survey_classes = surveyed.classes

    def _stop_set(self, job: RoundJob) -> list[ItemId]:
        with self._store.reading() as session:
            drawn = drawn_items.of_kind(session, job.campaign_id, DrawKind.STOP_SET)
        if drawn:
            return drawn
        seed = derive_seed(job.spec.seed, 0, Purpose.STOP_SET)
        drawn = draw_real(self._index, job.spec.pool, stop_set_of(job.spec.stopping), seed=seed)
        with recording(self._store, job) as record:
            drawn_items.add(record.session, job.campaign_id, DrawKind.STOP_SET, drawn)
        return drawn


def _measured(
    shares: np.ndarray[tuple[int], np.dtype[np.float64]], predicted: stopping.Classes, classes: int
) -> scheduler_pb2.Survey:
    return scheduler_pb2.Survey(
        items=len(shares),
        mean_uncertainty=float(shares.mean()) if len(shares) else math.nan,
        uncertainty_counts=stopping.uncertainty_counts(shares).tolist(),
        predicted_counts=stopping.predicted_counts(predicted, classes).tolist(),
    )


def _compared(job: RoundJob, earlier: Sequence[Round], packed: bytes, items: int) -> tuple[float, float]:
    """Return kappa and classification change against the model before, on the items that both saw; NaN for none."""
    last = earlier[-1].survey_classes if earlier else None
    if last is None:
        return math.nan, math.nan
    classes, several = len(job.spec.classes), is_multilabel(job.spec)
    before, was_there = stopping.unpack(last, items=items, classes=classes, multilabel=several)
    now, is_there = stopping.unpack(packed, items=items, classes=classes, multilabel=several)
    both = was_there & is_there
    return stopping.kappa(before[both], now[both]), stopping.classification_change(before[both], now[both])


def _judge(job: RoundJob, survey: scheduler_pb2.Survey, earlier: Sequence[Round], target: float) -> None:
    before = [scheduler_pb2.Survey.FromString(row.survey) for row in earlier if row.survey is not None]
    kappas = [one.kappa for one in before if not math.isnan(one.kappa)]
    measured = stopping.Measured(
        target=target,
        kappa=stopping.mean_kappa(kappas, survey.kappa),
        overall_uncertainty=survey.mean_uncertainty,
        classification_change=survey.classification_change,
    )
    survey.verdicts.extend(stopping.verdicts(job.spec.stopping, measured, before[-1].verdicts if before else ()))
    survey.reason = stopping.why_stop(job.spec.stopping, survey.verdicts)
    survey.recommends_stop = bool(survey.reason)
