"""Where models and candidates are computed with."""

import os
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from learner.candidates import Candidates
from sealpool.runtime import control_group

DeviceChoice = Literal["auto", "cpu", "cuda"]


def resolve_device(choice: DeviceChoice) -> torch.device:
    """Return the device; `auto` is CUDA where torch finds it.

    Raises
    ------
    RuntimeError
        `cuda` was asked for and torch finds none.
    """
    available = torch.cuda.is_available()
    if choice == "cuda" and not available:
        raise RuntimeError("device=cuda, but torch finds no CUDA device: set device to auto or cpu")
    return torch.device("cuda" if available and choice != "cpu" else "cpu")


def gpu_memory() -> Mapping[str, int]:
    """Return the bytes that torch holds on each GPU it has used."""
    if not torch.cuda.is_available():
        return {}
    return {f"cuda:{number}": torch.cuda.memory_reserved(number) for number in range(torch.cuda.device_count())}


def gpu_memory_total() -> Mapping[str, int]:
    """Return the memory of each GPU, in use or not."""
    if not torch.cuda.is_available():
        return {}
    return {
        f"cuda:{number}": int(torch.cuda.get_device_properties(number).total_memory)
        for number in range(torch.cuda.device_count())
    }


def memory_bytes(device: torch.device) -> int:
    """Return the memory of a device: a GPU's own, or what this machine has and the control group may take of it."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(machine, control_group.memory_limit() or machine)


class Mirror:
    """A copy of a campaign's candidate vectors on a device, brought up to date by the slots that changed.

    On the CPU it is the vectors themselves, nothing is copied. Past `limit_bytes` it keeps nothing, and each batch
    travels when it is scored.
    """

    def __init__(self, device: torch.device, *, limit_bytes: int) -> None:
        self._device = device
        self._limit = limit_bytes
        self._copy: torch.Tensor | None = None

    def rows(self, candidates: Candidates, start: int, stop: int) -> torch.Tensor:
        """Return the vectors of slots start to stop − 1 on the device. `sync` came before."""
        if self._copy is not None:
            return self._copy[start:stop]
        return torch.from_numpy(candidates.vectors[start:stop]).to(self._device)

    def take(self, candidates: Candidates, slots: NDArray[np.int64]) -> torch.Tensor:
        """Return the vectors of some slots on the device, in that order. `sync` came before."""
        if self._copy is not None:
            return self._copy[torch.from_numpy(slots).to(self._device)]
        # torch's own look-up, which takes all threads; NumPy's takes one.
        rows = torch.from_numpy(candidates.vectors).index_select(0, torch.from_numpy(slots))
        return rows.to(self._device)

    def unused(self) -> "Mirror":
        """Return one like it for other candidates, which holds nothing."""
        return Mirror(self._device, limit_bytes=self._limit)

    def sync(self, candidates: Candidates) -> None:
        """Take over what changed since the last call. Where the device has no room, each batch travels."""
        changed = candidates.take_changed_slots()
        if self._device.type == "cpu" or candidates.streamed or candidates.vectors.nbytes > self._limit:
            self._copy = None
            return
        try:
            self._take_over(candidates, changed)
        except torch.OutOfMemoryError:  # others share the device
            self._copy = None

    def _take_over(self, candidates: Candidates, changed: NDArray[np.int64]) -> None:
        size, dimension = candidates.vectors.shape
        if self._copy is None or self._copy.shape[1] != dimension:
            changed = np.arange(size)
            self._copy = torch.empty(0, dimension, device=self._device)
        if len(self._copy) < size:
            room = max(size, 2 * len(self._copy)) - len(self._copy)
            self._copy = torch.cat([self._copy, torch.empty(room, dimension, device=self._device)])
        for start in range(0, len(changed), _BLOCK):
            slots = changed[start : start + _BLOCK]
            places = torch.from_numpy(slots).to(self._device)
            self._copy[places] = torch.from_numpy(candidates.vectors[slots]).to(self._device)


_BLOCK = 65_536
"""Rows sent to the device at once."""
