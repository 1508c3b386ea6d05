"""Checkpoints: the model of each campaign and round, on disk before anybody hears that it was trained."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from learner.models import MODELS, make_classifier
from learner.ports import Classifier, ModelOptions
from learner.problem import Problem, Task
from sealpool.durable import make_directory, write_durably
from sealpool.errors import FailedPrecondition, NotFound
from sealpool.validation import check_name

FORMAT = 1
"""Of the metadata. Raised when an older learner would misread a newer checkpoint."""

_SUFFIX = ".safetensors"


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
    examples, missing, iterations, loss
        As in the proto's TrainResult.
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
    """

    def __init__(self, data_dir: Path, *, keep: int, device: torch.device) -> None:
        self._root = data_dir / "campaigns"
        self._keep = keep
        self._device = device

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, replacing that of the same round. When this returns, it is on disk."""
        info = checkpoint.info
        arrays = {name: np.ascontiguousarray(array) for name, array in checkpoint.classifier.save().items()}
        metadata = {"format": str(FORMAT), "digest": _digest(arrays), "checkpoint": _to_json(info)}
        directory = self._directory(info.campaign)
        make_directory(directory)
        write_durably(directory / f"{info.round}{_SUFFIX}", safetensors.numpy.save(arrays, metadata))
        self._prune(info.campaign, written=info.round)

    def load(self, campaign: str, round_number: int) -> Checkpoint:
        """Return the checkpoint of a round.

        Raises
        ------
        NotFound
            There is none.
        FailedPrecondition
            It was written by another version of the learner, or is damaged: train the round again.
        """
        path = self._directory(campaign) / f"{round_number}{_SUFFIX}"
        try:
            metadata, arrays = _read(path)
        except FileNotFoundError as error:  # also one that was pruned just now
            raise NotFound("checkpoint", f"{campaign}, round {round_number}", field="header.round") from error
        except SafetensorError as error:
            raise _damaged(campaign, round_number, error) from error
        written_as = metadata.get("format", "none")
        if written_as != str(FORMAT):
            raise FailedPrecondition(
                f"the checkpoint of {campaign!r}, round {round_number}, has format {written_as}; this learner reads "
                f"{FORMAT}: train the round again"
            )
        try:
            return _restore(metadata, arrays, self._device)
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(campaign, round_number, error) from error

    def latest_round(self, campaign: str) -> int:
        """Return the highest round with a checkpoint; raise NotFound if there is none."""
        rounds = self._rounds(campaign)
        if not rounds:
            raise NotFound("checkpoint", campaign, field="campaign")
        return rounds[-1]

    def _directory(self, campaign: str) -> Path:
        return self._root / check_name("campaign", campaign)

    def _rounds(self, campaign: str) -> list[int]:
        paths = self._directory(campaign).glob(f"*{_SUFFIX}")
        return sorted(int(path.stem) for path in paths if path.stem.isdecimal())

    def _prune(self, campaign: str, *, written: int) -> None:
        for round_number in self._rounds(campaign)[: -self._keep]:
            if round_number != written:
                (self._directory(campaign) / f"{round_number}{_SUFFIX}").unlink(missing_ok=True)


def _read(path: Path) -> tuple[Mapping[str, str], dict[str, NDArray[np.generic]]]:
    with safe_open(path, framework="numpy") as file:
        return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping


def _restore(
    metadata: Mapping[str, str], arrays: Mapping[str, NDArray[np.generic]], device: torch.device
) -> Checkpoint:
    if metadata["digest"] != _digest(arrays):
        raise ValueError("the arrays are not those that were written")
    info = _from_json(metadata["checkpoint"])
    classifier = make_classifier(info.model, info.problem)
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
    fields = asdict(info)
    fields["problem"]["task"] = info.problem.task.value
    return json.dumps(fields)


def _from_json(text: str) -> CheckpointInfo:
    fields = json.loads(text)
    problem, model = fields.pop("problem"), fields.pop("model")
    if model["name"] not in MODELS:
        raise ValueError(f"its model {model['name']!r} is unknown here")
    return CheckpointInfo(
        problem=Problem(task=Task(problem["task"]), classes=tuple(problem["classes"])),
        model=ModelOptions(**model),
        class_counts=tuple(fields.pop("class_counts")),
        **fields,
    )
