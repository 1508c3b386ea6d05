"""What a strategy sees, as plain tensors."""

from dataclasses import dataclass

import torch

from learner.problem import Problem


@dataclass(frozen=True, kw_only=True)
class PlainContext:
    """A learner.ports.ScoringContext."""

    problem: Problem
    probabilities: torch.Tensor
    vectors: torch.Tensor
    inverse_lengths: torch.Tensor
    direction: torch.Tensor | None
    draws: torch.Tensor
