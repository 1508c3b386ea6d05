"""How much memory a training takes, about, before it begins."""

from pathlib import Path

import torch

from learner.options import ModelOptions
from learner.problem import Problem
from learner.vectors import FoundItems

_LINEAR_COPIES = 3
"""float64 copies of the vectors that the linear model holds: features, centred and in the coordinates of the search."""
_STATES = 4
"""A weight, its gradient, and AdamW's two moments."""
_ACTIVATION_SHARE = 2
"""Activations of a batch, as a multiple of a transformer's weights: measured 1 to 2 at 32 × 128 tokens."""
_SMALL_NETWORK = 256 << 20


def training_bytes(options: ModelOptions, problem: Problem, found: FoundItems, device: torch.device) -> int:
    """Return about how many bytes of the device's memory a fit of `options` to `found` takes."""
    items, dimension = found.vectors.shape
    if options.name == "logistic_regression":
        outputs = 4 * items * len(problem.classes)
        return int(8 * (_LINEAR_COPIES * items * dimension + outputs))
    on_device = found.vectors.nbytes if device.type == "cuda" else 0
    weights = _weights_bytes(options.text.encoder)
    if not weights:
        return _SMALL_NETWORK + on_device
    return (_STATES + _ACTIVATION_SHARE) * weights + on_device


def _weights_bytes(encoder: str) -> int:
    """Return the size of an encoder's weights in its directory; 0 where there is no such directory."""
    directory = Path(encoder)
    if not encoder or not directory.is_dir():
        return 0
    return sum(path.stat().st_size for suffix in ("safetensors", "bin") for path in directory.glob(f"*.{suffix}"))
