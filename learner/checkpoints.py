"""Checkpoints: the model of each campaign and round, on disk before anybody hears that it was trained."""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from learner.models import make_classifier
from learner.options import ModelOptions, NeuralOptions, Precision, Retrain, TextOptions, UncertaintyOptions
from learner.ports import Classifier, MakeClassifier
from learner.problem import Problem, Task
from sealpool.durable import make_directory, write_durably
from sealpool.errors import FailedPrecondition, NotFound
from sealpool.validation import check_name
from sealpool.vocabulary.models import MODELS

FORMAT = 2
"""Of the metadata. Raised when an older learner would misread a newer checkpoint."""

_SUFFIX = ".safetensors"

_Stamp = tuple[int, int, int]
"""What a file was when it was read: time, inode, size."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A trained model and what is known about it."""

    info: CheckpointInfo
    classifier: Classifier


class CheckpointStore:
    """The checkpoints under <data_dir>/campaigns/<campaign>/<round>.safetensors.

    Any thread may load; the caller sees to it that one thread at a time saves for a campaign.

    Parameters
    ----------
    keep
        Rounds of a campaign whose checkpoints stay; saving one more removes the oldest.
    keep_loaded
        Checkpoints that stay in memory: a round asks for its own three times.
    make
        Makes the model that a checkpoint's arrays are put into.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        keep: int,
        device: torch.device,
        keep_loaded: int = 2,
        make: MakeClassifier = make_classifier,
    ) -> None:
        self._root = data_dir / "campaigns"
        self._keep = keep
        self._device = device
        self._keep_loaded = keep_loaded
        self._make = make
        self._guard = threading.Lock()
        self._loaded: OrderedDict[tuple[str, int], tuple[_Stamp, Checkpoint]] = OrderedDict()

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, replacing that of the same round. When this returns, it is on disk."""
        info = checkpoint.info
        arrays = {name: np.ascontiguousarray(array) for name, array in checkpoint.classifier.save().items()}
        metadata = {"format": str(FORMAT), "digest": _digest(arrays), "checkpoint": _to_json(info)}
        directory = self._directory(info.campaign)
        make_directory(directory)
        write_durably(self._path(info.campaign, info.round), safetensors.numpy.save(arrays, metadata))
        self._prune(info.campaign, written=info.round)

    def load(self, campaign: str, round_number: int) -> Checkpoint:
        """Return the checkpoint of a round, which others may be using at the same time.

        Raises
        ------
        NotFound
            There is none.
        FailedPrecondition
            It was written by another version of the learner, or is damaged: train the round again.
        """
        key = (campaign, round_number)
        try:
            stamp = _stamp(self._path(campaign, round_number))
        except FileNotFoundError as error:  # also one that was pruned just now
            raise _no_checkpoint(campaign, round_number) from error
        with self._guard:
            held = self._loaded.get(key)
            if held is not None and held[0] == stamp:
                self._loaded.move_to_end(key)
                return held[1]
        checkpoint = self.load_anew(campaign, round_number)
        with self._guard:
            self._loaded[key] = (stamp, checkpoint)
            self._loaded.move_to_end(key)
            while len(self._loaded) > self._keep_loaded:
                self._loaded.popitem(last=False)
        return checkpoint

    def load_anew(self, campaign: str, round_number: int) -> Checkpoint:
        """Return the checkpoint of a round for the caller alone, who may train its model on. Raises as `load` does."""
        try:
            metadata, arrays = _read(self._path(campaign, round_number))
        except FileNotFoundError as error:
            raise _no_checkpoint(campaign, round_number) from error
        except SafetensorError as error:
            raise _damaged(campaign, round_number, error) from error
        written_as = metadata.get("format", "none")
        if written_as != str(FORMAT):
            raise FailedPrecondition(
                f"the checkpoint of {campaign!r}, round {round_number}, has format {written_as}; this learner reads "
                f"{FORMAT}: train the round again"
            )
        try:
            return _restore(metadata, arrays, self._device, self._make)
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(campaign, round_number, error) from error

    def latest_round(self, campaign: str) -> int:
        """Return the highest round with a checkpoint; raise NotFound if there is none."""
        rounds = self.rounds(campaign)
        if not rounds:
            raise NotFound("checkpoint", campaign, field="campaign")
        return rounds[-1]

    def _directory(self, campaign: str) -> Path:
        return self._root / check_name("campaign", campaign)

    def _path(self, campaign: str, round_number: int) -> Path:
        return self._directory(campaign) / f"{round_number}{_SUFFIX}"

    def rounds(self, campaign: str) -> list[int]:
        """Return the rounds of a campaign that have a checkpoint, ascending."""
        paths = self._directory(campaign).glob(f"*{_SUFFIX}")
        return sorted(int(path.stem) for path in paths if path.stem.isdecimal())

    def _prune(self, campaign: str, *, written: int) -> None:
        for round_number in self.rounds(campaign)[: -self._keep]:
            if round_number != written:
                self._path(campaign, round_number).unlink(missing_ok=True)


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino, status.st_size


def _no_checkpoint(campaign: str, round_number: int) -> NotFound:
    return NotFound("checkpoint", f"{campaign}, round {round_number}", field="header.round")


def _read(path: Path) -> tuple[Mapping[str, str], dict[str, NDArray[np.generic]]]:
    with safe_open(path, framework="numpy") as file:
        return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping


def _restore(
    metadata: Mapping[str, str],
    arrays: Mapping[str, NDArray[np.generic]],
    device: torch.device,
    make: MakeClassifier,
) -> Checkpoint:
    if metadata["digest"] != _digest(arrays):
        raise ValueError("the arrays are not those that were written")
    info = _from_json(metadata["checkpoint"])
    classifier = make(info.model, info.problem)
    classifier.load(arrays, device=device)
    return Checkpoint(info=info, classifier=classifier)


def _damaged(campaign: str, round_number: int, error: Exception) -> FailedPrecondition:
    return FailedPrecondition(
        f"the checkpoint of {campaign!r}, round {round_number}, is damaged ({error}): train the round again"
    )


def _digest(arrays: Mapping[str, NDArray[np.generic]]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _to_json(info: CheckpointInfo) -> str:
    return json.dumps(asdict(info), default=lambda value: value.value)  # the only other type is Enum


def _from_json(text: str) -> CheckpointInfo:
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
