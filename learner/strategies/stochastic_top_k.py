"""A batch drawn by any score."""

from collections.abc import Set as AbstractSet

import torch

from learner.options import DensityOver
from learner.ports import ScoringContext, ScoringStrategy
from learner.strategies.gumbel import check_coldness, perturbed_log_scores
from sealpool.vocabulary.strategies import Need


class StochasticTopK:
    """φ(i) = β·ln base(i) + g_i, with g_i = −ln(−ln u_i) standard Gumbel noise, drawn by the seed and the item's id.

    The best b are draws without replacement in proportion to base^β: β → 0 draws uniformly, β → ∞ takes the best of the
    base. The scores are logarithms: any real number, negative ones too. Items whose base is 0 score −10³⁰. Kirsch et
    al., Stochastic batch acquisition: a simple baseline for deep active learning, TMLR 2023; Kool, van Hoof and
    Welling, ICML 2019. The same for every task, as far as the base is. Cost: that of the base, and O(1) an item.

    Parameters
    ----------
    base
        The strategy whose scores are drawn by. They must not be negative.
    beta
        Exponent of the score (coldness), > 0; None means 1.

    Raises
    ------
    InvalidArgument
        `beta` is not a finite number above 0.
    """

    def __init__(self, base: ScoringStrategy, beta: float | None) -> None:
        self._base = base
        self._beta = check_coldness(beta)

    @property
    def needs(self) -> AbstractSet[Need]:
        """What the base asks for."""
        return self._base.needs

    @property
    def density_over(self) -> DensityOver | None:
        """Which mean direction the base needs, if one."""
        return self._base.density_over

    def score(self, context: ScoringContext) -> torch.Tensor:
        """Return the logarithm of the base's score to the power β, with noise."""
        return perturbed_log_scores(self._base.score(context), context.draws, self._beta)
