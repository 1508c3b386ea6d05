"""Most likely positive."""

import torch

from learner.options import StrategyOptions
from learner.ports import ScoringContext
from learner.problem import Problem, Task
from sealpool.errors import InvalidArgument
from sealpool.vocabulary.strategies import Need


class MostLikelyPositive:
    """φ(i) = p(positive | i), in [0, 1].

    For finding a class, not for learning it: it finds about twice the positives that entropy finds, and its model
    hardly improves. Warmuth et al., Active learning in the drug discovery process, NeurIPS 2001; Coleman et al., AAAI
    2022. The same for multi-label. Cost: O(1) an item.

    Raises
    ------
    InvalidArgument
        `positive_class` is none of the classes, or not given where the campaign is not binary.
    """

    needs = frozenset({Need.MODEL})
    density_over = None

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        self._column = positive_column(options.positive_class, problem)

    def score(self, context: ScoringContext) -> torch.Tensor:
        """Return the probability of the class looked for."""
        return context.probabilities[:, self._column]


def positive_column(name: str, problem: Problem) -> int:
    """Return the number of the class looked for; "" is the second of a binary campaign.

    Raises
    ------
    InvalidArgument
        It is none of the classes, or not given where the campaign is not binary.
    """
    if name in problem.classes:
        return problem.classes.index(name)
    if name:
        raise InvalidArgument("header.strategy.positive_class", f"{name!r} is none of the campaign's classes")
    if problem.task is not Task.BINARY:
        raise InvalidArgument("header.strategy.positive_class", f"is required in a {problem.task.value} campaign")
    return 1
