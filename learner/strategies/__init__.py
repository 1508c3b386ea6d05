"""Query strategies by name: one file each, and one line here."""

import math
from collections.abc import Callable, Mapping

from learner.ports import QueryStrategy, StrategyOptions
from learner.problem import Problem
from learner.strategies.entropy import Entropy
from learner.strategies.information_density import InformationDensity
from learner.strategies.least_confidence import LeastConfidence
from learner.strategies.margin import Margin
from learner.strategies.most_likely_positive import MostLikelyPositive
from learner.strategies.random import Random
from sealpool.errors import InvalidArgument

Make = Callable[[StrategyOptions, Problem], QueryStrategy]

BASES: Mapping[str, Make] = {
    "random": Random,
    "least_confidence": LeastConfidence,
    "margin": Margin,
    "entropy": Entropy,
    "most_likely_positive": MostLikelyPositive,
}
"""Strategies that information density can weight: their scores are not negative."""


def _information_density(options: StrategyOptions, problem: Problem) -> InformationDensity:
    if not (math.isfinite(options.beta) and options.beta >= 0):
        raise InvalidArgument("header.strategy.beta", f"{options.beta} is not a finite number of at least 0")
    base = _find(BASES, options.base, "header.strategy.base")(options, problem)
    return InformationDensity(base, options.beta, options.density_over)


STRATEGIES: Mapping[str, Make] = {
    **BASES,
    "information_density": _information_density,
}


def make_strategy(options: StrategyOptions, problem: Problem) -> QueryStrategy:
    """Return a strategy for a problem.

    Raises
    ------
    InvalidArgument
        There is none of that name, or a parameter does not fit.
    """
    return _find(STRATEGIES, options.name, "header.strategy.name")(options, problem)


def _find(registry: Mapping[str, Make], name: str, field: str) -> Make:
    if name not in registry:
        raise InvalidArgument(field, f"{name!r} is none of {', '.join(sorted(registry))}")
    return registry[name]
