"""New parameters from a seed, though torch draws them from a generator that all threads share."""

import threading
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")

_TURN = threading.Lock()


def seeded(build: Callable[[], T], seed: int) -> T:
    """Return what `build` makes on the CPU with torch's generator at `seed`; the generator is left as it was.

    One at a time, or two models that are made at once would take each other's draws.
    """
    with _TURN, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed % 2**63)
        return build()
