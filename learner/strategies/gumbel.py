"""Draws without replacement in proportion to a power of scores."""

import math

import torch

from sealpool.errors import InvalidArgument

LOWEST = -1e30
"""What stands for the logarithm of 0: finite, and below every other score."""

_LEAST_DRAW = 2.0**-54  # half of what draws are multiples of: a draw of 0 must have a logarithm


def check_coldness(beta: float | None) -> float:
    """Return β, 1 for None; raise InvalidArgument unless it is finite and above 0."""
    coldness = 1.0 if beta is None else beta
    if not (math.isfinite(coldness) and coldness > 0):
        raise InvalidArgument("header.strategy.beta", f"{beta} is not a finite number above 0")
    return coldness


def perturbed_log_scores(scores: torch.Tensor, draws: torch.Tensor, beta: float) -> torch.Tensor:
    """Return β·ln s_i + g_i, (n,) float64, with g_i = −ln(−ln u_i) standard Gumbel noise of the draws u_i in [0, 1).

    The best b of them are b draws without replacement, each in proportion to s^β among what is left. They may be
    negative. Where s_i ≤ 0 the result is LOWEST, so that what scores 0 comes after everything else, all equal, and in
    the order that ties are broken in. Kool, van Hoof and Welling, Stochastic beams and where to find them, ICML 2019.
    """
    exact = scores.to(torch.float64)
    noise = draws.clamp_min(_LEAST_DRAW).log_().neg_().log_().neg_()
    logarithms = exact.clamp_min(torch.finfo(torch.float64).tiny).log_().mul_(beta).add_(noise)
    return logarithms.clamp_(LOWEST / 2, -LOWEST / 2).masked_fill_(exact <= 0, LOWEST)
