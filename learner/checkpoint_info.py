"""What is known about a trained model, and how its checkpoint says so."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from learner.options import ModelOptions, NeuralOptions, Precision, Retrain, TextOptions, UncertaintyOptions
from learner.problem import Problem, Task
from sealpool.vocabulary.models import MODELS


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """A temperature, and the expected calibration errors of the validation items that it was fitted on."""

    temperature: float
    error_before: float
    error_after: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointInfo:
    """What is known about a trained model.

    Parameters
    ----------
    fingerprint
        SHA-256 of everything that decides what the model is; see learner.training.fingerprint.
    examples_digest
        SHA-256 of the ids of the examples, sorted.
    class_counts
        Examples with each class.
    pool, pool_version, dimension
        Where the vectors came from, and how long they are.
    examples, missing, iterations, loss, validation_examples, validation_score, warm_from_round, notes
        As in the proto's TrainResult; the score is None without validation items.
    calibration
        None where no temperature was fitted.
    """

    campaign: str
    round: int
    problem: Problem
    model: ModelOptions
    seed: int
    fingerprint: str
    examples_digest: str
    class_counts: tuple[int, ...]
    pool: str
    pool_version: int
    dimension: int
    examples: int
    missing: int
    iterations: int
    loss: float
    validation_examples: int
    validation_score: float | None
    warm_from_round: int | None
    calibration: Calibration | None
    notes: tuple[str, ...]


def to_json(info: CheckpointInfo) -> str:
    """Encode what is known about a model."""
    return json.dumps(asdict(info), default=lambda value: value.value)  # the only other type is Enum


def from_json(text: str) -> CheckpointInfo:
    """Decode it; raise ValueError, KeyError or TypeError if it is nothing of ours."""
    fields = json.loads(text)
    problem, calibration = fields.pop("problem"), fields.pop("calibration")
    return CheckpointInfo(
        problem=Problem(task=Task(problem["task"]), classes=tuple(problem["classes"])),
        model=_model_options(fields.pop("model")),
        class_counts=tuple(fields.pop("class_counts")),
        notes=tuple(fields.pop("notes")),
        calibration=None if calibration is None else Calibration(**calibration),
        **fields,
    )


def _model_options(model: dict[str, Any]) -> ModelOptions:
    if model["name"] not in MODELS:
        raise ValueError(f"its model {model['name']!r} is unknown here")
    neural, retrain = model.pop("neural"), model.pop("retrain")
    hidden, precision = neural.pop("hidden"), neural.pop("precision")
    return ModelOptions(
        neural=NeuralOptions(hidden=tuple(hidden), precision=Precision(precision), **neural),
        retrain=Retrain(retrain),
        uncertainty=UncertaintyOptions(**model.pop("uncertainty")),
        text=TextOptions(**model.pop("text")),
        **model,
    )
