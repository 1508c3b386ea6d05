"""What the latest model of a campaign says of texts and vectors that are no items of its pool, or not yet."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.asking import asking
from scheduler.ports import Learner
from sealpool.errors import FailedPrecondition, NotFound
from sealpool.types import Vectors
from sealpool.v1 import common_pb2, scheduler_pb2
from sealpool.vocabulary.models import MODELS

ITEMS_A_CALL = 1_000
DEFAULT_MODEL = "logistic_regression"


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """Class probabilities (n, c) float32, by the model of one round."""

    probabilities: NDArray[np.float32]
    round: int


def reads_text(spec: scheduler_pb2.CampaignSpec) -> bool:
    """Whether the campaign's model reads texts; otherwise it takes vectors."""
    return MODELS[spec.model.name or DEFAULT_MODEL].reads_text


def judge(
    learner: Learner, campaign: str, *, vectors: Vectors | None = None, texts: Sequence[str] | None = None
) -> Judged:
    """Ask the latest model about vectors (n, d) or texts, n of at least 1: all of them by the same model.

    Raises
    ------
    FailedPrecondition
        The campaign has no model yet.
    """
    count = len(vectors if vectors is not None else texts or ())
    found: list[NDArray[np.float32]] = []
    number: int | None = None
    try:
        with asking("the learner"):
            for start in range(0, count, ITEMS_A_CALL):
                stop = start + ITEMS_A_CALL
                answers = learner.predict(
                    campaign,
                    round=number,
                    vectors=None if vectors is None else vectors[start:stop],
                    texts=None if texts is None else texts[start:stop],
                )
                for answer in answers:
                    found.append(answer.probabilities)
                    number = answer.round
    except NotFound as error:
        raise FailedPrecondition(
            f"campaign {campaign!r} has no model yet: label items of two classes and run a round", field="campaign"
        ) from error
    return Judged(probabilities=np.concatenate(found), round=number or 0)


def predicted(task: common_pb2.TaskKind.ValueType, probabilities: NDArray[np.float32]) -> tuple[int, ...]:
    """Return the classes that one row of probabilities speaks for, ascending; multi-label: every one over 0.5."""
    if task == common_pb2.TASK_KIND_MULTILABEL:
        return tuple(int(index) for index in np.flatnonzero(probabilities > 0.5))
    return (int(np.argmax(probabilities)),)


def uncertainty(task: common_pb2.TaskKind.ValueType, probabilities: NDArray[np.float32]) -> float:
    """Return 1 − the largest probability; with several labels an item, that of the most doubtful label."""
    if task == common_pb2.TASK_KIND_MULTILABEL:
        doubt = np.minimum(probabilities, 1 - probabilities).max()
    else:
        doubt = 1 - probabilities.max()
    return min(max(float(doubt), 0.0), 1.0)
