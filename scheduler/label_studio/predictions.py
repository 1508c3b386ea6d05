"""The model's predictions as Label Studio takes them."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scheduler.label_studio.labelling_config import CHOICES, SHOWN
from sealpool.client import Predictions
from sealpool.v1 import common_pb2, scheduler_pb2

_HOLDS = 0.5


def prediction(
    spec: scheduler_pb2.CampaignSpec, number: int, classes: list[str], probabilities: NDArray[np.float32]
) -> dict[str, Any]:
    """Return one prediction. Its score is how sure the model is: Label Studio hands out the lowest first.

    Parameters
    ----------
    number
        The round of the model.
    probabilities
        (c,), one for each of `classes`. The score is the greatest, or of several labels that of the least sure one:
        the minimum of max(p, 1 − p).
    """
    if spec.task == common_pb2.TASK_KIND_MULTILABEL:
        said = [name for name, p in zip(classes, probabilities, strict=True) if p > _HOLDS]
        score = float(np.min(np.maximum(probabilities, 1 - probabilities)))
    else:
        said = [classes[int(np.argmax(probabilities))]]
        score = float(np.max(probabilities))
    result = {"from_name": CHOICES, "to_name": SHOWN, "type": "choices", "value": {"choices": said}}
    return {"model_version": model_version(spec, number), "score": score, "result": [result] if said else []}


def model_version(spec: scheduler_pb2.CampaignSpec, number: int) -> str:
    """Return how Label Studio names a round's model."""
    return f"{spec.name}/{number}"


def in_order(spec: scheduler_pb2.CampaignSpec, chunks: Iterable[Predictions]) -> Iterator[dict[str, Any]]:
    """Yield a prediction for each row, in the order asked for."""
    for chunk in chunks:
        for row in chunk.probabilities:
            yield prediction(spec, chunk.round, list(chunk.classes), row)
