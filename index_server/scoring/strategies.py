"""Query strategies over logits, by the learner's definitions and names. A higher score always means more worth a label.

Logits are (c, n), a class a row: NumPy then works along items, not along short rows of classes. The formulas take
float32 and float64, may overwrite the logits, and give finite scores wherever the logits' differences are finite.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index_server.scoring.model import LinearModel
from sealpool.errors import InvalidArgument

Logits = NDArray[np.floating]
"""(c, n)."""

Values = NDArray[np.floating]
"""(n,), scores of the logits' type."""

Formula = Callable[[Logits], Values]


@dataclass(frozen=True, kw_only=True, slots=True)
class Strategy:
    """The formulas of one strategy.

    Parameters
    ----------
    of_classes
        Of an item that has one of c ≥ 2 classes.
    of_signs
        Of an item that has a class or not: elementwise, of that class's logit.
    slope
        How far a score moves when no logit moves by more than 1.
    """

    of_classes: Formula
    of_signs: Formula
    slope: float


def _exponentials(logits: Logits) -> tuple[Logits, Values]:
    """Return exp(z − max z) and its sum over classes, at least 1; `logits` becomes z − max z."""
    logits -= logits.max(axis=0)
    exponentials = np.exp(logits)
    return exponentials, exponentials.sum(axis=0)


def _small_exponential(logits: Logits) -> Logits:
    """Return exp(−|z|)."""
    np.abs(logits, out=logits)
    np.negative(logits, out=logits)
    small: Logits = np.exp(logits)
    return small


def _entropy(logits: Logits) -> Values:
    """H = ln S − Σ_c e_c·z_c / S with z ≤ 0, e = exp z and S = Σ e: −Σ p·ln p without a logarithm a class."""
    exponentials, total = _exponentials(logits)
    exponentials *= logits
    entropy: Values = np.log(total) - exponentials.sum(axis=0) / total
    return entropy


def _sign_entropy(logits: Logits) -> Values:
    """H = ln(1 + e) + |z|·e / (1 + e) with e = exp(−|z|)."""
    np.abs(logits, out=logits)
    small = np.exp(-logits)
    entropy: Values = np.log1p(small) + logits * small / (1 + small)
    return entropy


def _margin(logits: Logits) -> Values:
    """1 − (p_1 − p_2) = 1 − (1 − e_2) / S, e_2 the second largest of exp(z − max z)."""
    exponentials, total = _exponentials(logits)
    largest, second = exponentials[0].copy(), np.zeros_like(total)
    for values in exponentials[1:]:
        np.maximum(second, np.minimum(largest, values), out=second)
        np.maximum(largest, values, out=largest)
    margin: Values = 1 - (1 - second) / total
    return margin


def _sign_margin(logits: Logits) -> Values:
    """1 − |2p − 1| = 2e / (1 + e)."""
    return 2 * _sign_least_confidence(logits)


def _least_confidence(logits: Logits) -> Values:
    """1 − max p = 1 − 1 / S."""
    _, total = _exponentials(logits)
    confidence: Values = 1 - 1 / total
    return confidence


def _sign_least_confidence(logits: Logits) -> Values:
    """min(p, 1 − p) = e / (1 + e)."""
    small = _small_exponential(logits)
    small /= 1 + small
    return small


def _probability(logits: Logits) -> Values:
    """σ(z), without an overflow: e / (1 + e) or 1 / (1 + e)."""
    positive = logits > 0
    small = _small_exponential(logits)
    probability: Values = np.where(positive, 1, small) / (1 + small)
    return probability


_STRATEGIES: Final = {
    # Σ_k |∂H/∂z_k| = E|ln p + H|, at most the deviation of ln p, and that is below 3.7 for 1,024 classes.
    "entropy": Strategy(of_classes=_entropy, of_signs=_sign_entropy, slope=4.0),
    "margin": Strategy(of_classes=_margin, of_signs=_sign_margin, slope=1.0),
    "least_confidence": Strategy(of_classes=_least_confidence, of_signs=_sign_least_confidence, slope=0.5),
}
_MOST_LIKELY_POSITIVE: Final = "most_likely_positive"

STRATEGIES: Final = (*_STRATEGIES, _MOST_LIKELY_POSITIVE)
"""The names. The last one alone asks for a class."""


def make_formula(name: str, model: LinearModel, positive_class: int) -> tuple[Formula, float]:
    """Return a strategy's formula for the logits of `model`, and its slope.

    Raises
    ------
    InvalidArgument
        There is no strategy of that name, or `positive_class` is none of the classes where it counts.
    """
    if name == _MOST_LIKELY_POSITIVE:
        return _probability_of(model, positive_class), 0.5
    if name not in _STRATEGIES:
        raise InvalidArgument("strategy", f"{name!r} is none of {', '.join(sorted(STRATEGIES))}")
    strategy = _STRATEGIES[name]
    if model.binary or model.multilabel:
        return lambda logits: strategy.of_signs(logits).mean(axis=0), strategy.slope
    return strategy.of_classes, strategy.slope


def _probability_of(model: LinearModel, positive_class: int) -> Formula:
    if not 0 <= positive_class < model.classes:
        raise InvalidArgument("positive_class", f"{positive_class} is none of the {model.classes:,} classes")
    if model.binary:
        return lambda logits: _probability(logits[0])
    if model.multilabel:
        return lambda logits: _probability(logits[positive_class])
    return partial(_share, positive_class)


def _share(positive_class: int, logits: Logits) -> Values:
    exponentials, total = _exponentials(logits)
    share: Values = exponentials[positive_class] / total
    return share
