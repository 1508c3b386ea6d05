"""PowerBALD: a batch drawn by mutual information."""

import torch

from learner.options import StrategyOptions
from learner.ports import ScoringContext
from learner.problem import Problem
from learner.strategies.bald import Bald
from learner.strategies.gumbel import check_coldness, perturbed_log_scores
from sealpool.vocabulary.strategies import Need


class PowerBald:
    """φ(i) = β·ln bald(i) + g_i, with g_i = −ln(−ln u_i) standard Gumbel noise, drawn by the seed and the item's id.

    The best b are draws without replacement in proportion to bald^β, which spreads a batch where the best b of `bald`
    itself would be alike; as β grows it becomes `bald`. The scores are logarithms: any real number, negative ones too.
    Items whose bald is 0 score −10³⁰. Kirsch et al., Stochastic batch acquisition: a simple baseline for deep active
    learning, TMLR 2023. Cost: O(K·c) an item.

    Raises
    ------
    InvalidArgument
        `beta` is not a finite number above 0; None means 1.
    """

    needs = frozenset({Need.MODEL, Need.SAMPLES})
    density_over = None

    def __init__(self, options: StrategyOptions, problem: Problem) -> None:
        self._bald = Bald(options, problem)
        self._beta = check_coldness(options.beta)

    def score(self, context: ScoringContext) -> torch.Tensor:
        """Return the logarithm of BALD to the power β, with noise."""
        return perturbed_log_scores(self._bald.score(context), context.draws, self._beta)
