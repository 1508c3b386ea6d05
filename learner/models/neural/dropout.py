"""Dropout whose masks can be held: one set of them for all items, as posterior samples need.

Gal and Ghahramani, Dropout as a Bayesian approximation, ICML 2016. BatchBALD (Kirsch et al., NeurIPS 2019) needs sample
k to be the same network for every item, so a mask belongs to a sample and a layer, never to an item.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class _Held:
    """The masks of one sample: each layer's place, and the masks made so far."""

    seed: int
    sample: int
    rate: float | None
    places: dict[int, int]
    masks: dict[tuple[int, int, torch.dtype], torch.Tensor] = field(default_factory=dict)


# Context variables, because several threads predict with one module at once, each with a sample of its own.
_HELD: ContextVar[_Held | None] = ContextVar("held_masks", default=None)
_GENERATOR: ContextVar[torch.Generator | None] = ContextVar("dropout_generator", default=None)


class ConsistentDropout(nn.Module):
    """Ordinary dropout in train mode, in eval mode the identity, or inside `one_mask` one mask for everything.

    Parameters
    ----------
    rate
        Share of the features that is dropped, 0 to below 1; the others are scaled by 1 / (1 − rate).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return inputs (…, features) of the same shape."""
        if self.training:
            return self._drop(inputs)
        held = _HELD.get()
        if held is None or id(self) not in held.places:
            return inputs
        return inputs * self._mask(held, inputs)

    def extra_repr(self) -> str:
        """Return the rate, for `repr`."""
        return f"rate={self.rate}"

    def _drop(self, inputs: torch.Tensor) -> torch.Tensor:
        generator = _GENERATOR.get()
        if generator is None or not self.rate:
            return functional.dropout(inputs, self.rate)
        kept = torch.empty_like(inputs).bernoulli_(1 - self.rate, generator=generator)
        return inputs * kept.div_(1 - self.rate)

    def _mask(self, held: _Held, inputs: torch.Tensor) -> torch.Tensor:
        key = (id(self), inputs.shape[-1], inputs.dtype)
        mask = held.masks.get(key)
        if mask is None:
            rate = self.rate if held.rate is None else held.rate
            drawn = draw_mask(inputs.shape[-1], rate, seed=held.seed, sample=held.sample, place=held.places[id(self)])
            mask = held.masks[key] = drawn.to(inputs)
        return mask


def draw_mask(features: int, rate: float, *, seed: int, sample: int, place: int) -> torch.Tensor:
    """Return a mask (features,) float64 of 0 and 1 / (1 − rate), a function of the arguments alone."""
    # Drawn by NumPy on the host, so that it is the same on every device.
    draws = np.random.default_rng([seed % 2**64, sample, place]).random(features)
    return torch.from_numpy((draws >= rate) / (1 - rate))


@contextmanager
def one_mask(module: nn.Module, seed: int, sample: int, *, rate: float | None = None) -> Iterator[None]:
    """Hold, in this thread, one mask a ConsistentDropout of `module`, which is in eval mode.

    A mask is a function of seed, sample and the layer's place among its like in `module`: it is the same for every
    row, every token and every call. Only dropout changes: batch-norm keeps its statistics.

    Parameters
    ----------
    rate
        Taken in place of the layers' own rates where given.
    """
    layers = [part for part in module.modules() if isinstance(part, ConsistentDropout)]
    places = {id(layer): place for place, layer in enumerate(layers)}
    token = _HELD.set(_Held(seed, sample, rate, places))
    try:
        yield
    finally:
        _HELD.reset(token)


@contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Let dropout in train mode, in this thread, draw from `generator` (on the inputs' device).

    torch's own generator is shared by all threads: two trainings at once would change each other's draws.
    """
    token = _GENERATOR.set(generator)
    try:
        yield
    finally:
        _GENERATOR.reset(token)
