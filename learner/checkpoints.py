"""Checkpoints: the model of each campaign and round, on disk before anybody hears that it was trained."""

import hashlib
import json
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from learner.checkpoint_info import CheckpointInfo, from_json, to_json
from learner.models import make_classifier
from learner.ports import Classifier, MakeClassifier
from sealpool.durable import make_directory, read_whole, write_durably
from sealpool.errors import FailedPrecondition, NotFound
from sealpool.validation import check_name

FORMAT = 2
"""Of the metadata. Raised when an older learner would misread a newer checkpoint."""

_SUFFIX = ".safetensors"
_LEFT_BEHIND_S = 86_400.0
"""Age of a half-written file past which whoever wrote it must be dead: also where machines' clocks differ."""

_Stamp = tuple[int, int, int]
"""What a file was when it was read: time, inode, size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A trained model and what is known about it."""

    info: CheckpointInfo
    classifier: Classifier


class CheckpointStore:
    """The checkpoints under <data_dir>/campaigns/<campaign>/<round>.safetensors.

    Any thread may load; the caller sees to it that one thread at a time saves for a campaign. Other processes, also on
    other machines, may save, load and prune the same campaigns: each file is whole or not there, and who saves a round
    that another saved with the same fingerprint keeps that one, so that a model does not change under a round.

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
        now: Callable[[], float] = time.time,
    ) -> None:
        self._root = data_dir / "campaigns"
        self._keep = keep
        self._device = device
        self._keep_loaded = keep_loaded
        self._make = make
        self._now = now
        self._writer = secrets.token_hex(8)
        self._guard = threading.Lock()
        self._loaded: OrderedDict[tuple[str, int], tuple[_Stamp, Checkpoint]] = OrderedDict()

    def save(self, checkpoint: Checkpoint) -> CheckpointInfo:
        """Write a checkpoint, replacing one of the same round that was trained on something else.

        When this returns, it is on disk. Returns what is known of the one there: another learner may have been first.
        """
        info = checkpoint.info
        first = self._saved_by_another(info)
        if first is not None:
            return first
        arrays = {name: np.ascontiguousarray(array) for name, array in checkpoint.classifier.save().items()}
        metadata = {"format": str(FORMAT), "digest": _digest(arrays), "checkpoint": to_json(info)}
        directory = self._directory(info.campaign)
        make_directory(directory)
        content = safetensors.numpy.save(arrays, metadata)
        write_durably(self._path(info.campaign, info.round), content, writer=self._writer)
        self._prune(info.campaign, written=info.round)
        return info

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

    def _saved_by_another(self, info: CheckpointInfo) -> CheckpointInfo | None:
        try:
            metadata, arrays = _read(self._path(info.campaign, info.round))
            there = _info(metadata, arrays)
        except (FileNotFoundError, SafetensorError, ValueError, KeyError, TypeError):  # none that a load would return
            return None
        same = (metadata.get("format"), there.fingerprint) == (str(FORMAT), info.fingerprint)
        return there if same else None

    def _prune(self, campaign: str, *, written: int) -> None:
        for round_number in self.rounds(campaign)[: -self._keep]:
            if round_number != written:
                self._path(campaign, round_number).unlink(missing_ok=True)
        for path in self._directory(campaign).glob(f".*{_SUFFIX}.*.new"):
            with suppress(FileNotFoundError):  # its writer has ended just now
                if path.stat().st_mtime < self._now() - _LEFT_BEHIND_S:
                    path.unlink(missing_ok=True)


def _stamp(path: Path) -> _Stamp:
    # Of the opened file: NFS asks its server when a file is opened, and answers a stat from what it remembers.
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
    return status.st_mtime_ns, status.st_ino, status.st_size


def _no_checkpoint(campaign: str, round_number: int) -> NotFound:
    return NotFound("checkpoint", f"{campaign}, round {round_number}", field="header.round")


def _read(path: Path) -> tuple[Mapping[str, str], dict[str, NDArray[np.generic]]]:
    # Not mapped into memory: a page of a file that another machine replaced would end this process with SIGBUS.
    content = read_whole(path)
    arrays = safetensors.numpy.load(content)
    header_bytes = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + header_bytes]).get("__metadata__", {}), arrays


def _restore(
    metadata: Mapping[str, str],
    arrays: Mapping[str, NDArray[np.generic]],
    device: torch.device,
    make: MakeClassifier,
) -> Checkpoint:
    info = _info(metadata, arrays)
    classifier = make(info.model, info.problem)
    classifier.load(arrays, device=device)
    return Checkpoint(info=info, classifier=classifier)


def _info(metadata: Mapping[str, str], arrays: Mapping[str, NDArray[np.generic]]) -> CheckpointInfo:
    if metadata["digest"] != _digest(arrays):
        raise ValueError("the arrays are not those that were written")
    return from_json(metadata["checkpoint"])


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
