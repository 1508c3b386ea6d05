"""Monte Carlo dropout: the model with K sets of dropout masks."""

from collections.abc import Iterator

import torch

from learner.ports import Inputs
from learner.uncertainty.base import Around, Linear


class MonteCarloDropout(Around):
    """Sample k is the model with one set of dropout masks held for every item and every call.

    p(y|x) = (1/K) Σ_k p(y|x, masks_k), with the masks of the seed of the fit; `sample_proba` draws those of its own
    seed. Only dropout is on: batch norm keeps its statistics. Logistic regression has it on its input.

    Gal and Ghahramani, Dropout as a Bayesian approximation, ICML 2016; masks held as in Kirsch et al., BatchBALD,
    NeurIPS 2019. Cost: K predictions.

    Parameters
    ----------
    rate
        In place of the model's own rates; None leaves these.
    """

    def __init__(self, base: Linear, *, samples: int, rate: float | None) -> None:
        super().__init__(base)
        self._samples = samples
        self._rate = rate

    def predict_proba(self, inputs: Inputs) -> torch.Tensor:
        """Return the mean (n, c) over the samples of the fit's seed."""
        drawn = self._draw(inputs, self._seed)
        total = next(drawn)
        for sample in drawn:
            total += sample
        return total.div_(self._samples)

    def sample_proba(self, inputs: Inputs, *, seed: int) -> torch.Tensor:
        """Return (K, n, c)."""
        return torch.stack(list(self._draw(inputs, seed)))

    def _draw(self, inputs: Inputs, seed: int) -> Iterator[torch.Tensor]:
        return self._base.dropped_proba(inputs, seed=seed, samples=self._samples, rate=self._rate)
