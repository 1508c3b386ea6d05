"""What several annotators together say of an item, and how far they agree."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import nan

import numpy as np

from sealpool.errors import FailedPrecondition
from sealpool.types import ItemId

Classes = tuple[int, ...]
"""Class indices of one answer, ascending."""
MAX_ITERATIONS = 100
TOLERANCE = 1e-5
CLEARLY = 1e-6
"""By how much a posterior must be above that of the label that stands, so that rounding never corrects one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What becomes of an item: `label` if there is one, or `more` annotations are wanted, or it is given up."""

    label: Classes | None = None
    more: int = 0
    given_up: bool = False


def decide(votes: Sequence[Classes], *, wanted: int, at_most: int, multilabel: bool) -> Decision:
    """Return what follows from the votes for an item, one an annotator.

    Parameters
    ----------
    wanted
        Votes before anything is decided, 1 or more.
    at_most
        Votes after which an item without agreement is given up.
    """
    if len(votes) < wanted:
        return Decision(more=wanted - len(votes))
    label = majority(votes, multilabel=multilabel)
    if label is not None:
        return Decision(label=label)
    return Decision(more=1) if len(votes) < at_most else Decision(given_up=True)


def majority(votes: Sequence[Classes], *, multilabel: bool) -> Classes | None:
    """Return what most of one or more votes say; None for a tie.

    With one class an item, that is the class said more often than any other. Multi-label, it is each class that over
    half said, and a class that exactly half said is a tie.
    """
    counts = Counter(index for classes in votes for index in classes)
    if multilabel:
        if any(2 * count == len(votes) for count in counts.values()):
            return None
        return tuple(sorted(index for index, count in counts.items() if 2 * count > len(votes)))
    most = max(counts.values())
    leading = [index for index, count in counts.items() if count == most]
    return (leading[0],) if len(leading) == 1 else None


def dawid_skene(votes: Mapping[ItemId, Mapping[str, int]]) -> dict[ItemId, dict[int, float]]:
    """Return the posterior of each class that anybody said, for each item, from votes by annotator.

    A. P. Dawid and A. M. Skene, Maximum likelihood estimation of observer error-rates using the EM algorithm, JRSS C
    28(1), 1979. Annotators weigh by their estimated confusion of the classes.

    Raises
    ------
    FailedPrecondition
        crowd-kit is not installed.
    """
    try:
        from crowdkit.aggregation import DawidSkene  # takes seconds to import, and is an extra
        from pandas import DataFrame  # type: ignore[import-untyped]
    except ImportError as error:
        raise FailedPrecondition(
            "agreement by Dawid-Skene needs crowd-kit on the scheduler's machine: pip install 'sealpool[agreement]'"
        ) from error
    if not votes:
        return {}
    rows = [(item, annotator, vote) for item, said in votes.items() for annotator, vote in said.items()]
    table = DataFrame(rows, columns=["task", "worker", "label"])
    with warnings.catch_warnings():
        # crowd-kit 1.4 calls pandas 3 in ways that pandas 4 will refuse.
        warnings.simplefilter("ignore", DeprecationWarning)
        posterior = DawidSkene(n_iter=MAX_ITERATIONS, tol=TOLERANCE).fit_predict_proba(table)
    return {
        ItemId(str(item)): {int(index): float(share) for index, share in zip(posterior.columns, shares, strict=True)}
        for item, shares in zip(posterior.index, posterior.to_numpy(), strict=True)
    }


def better_class(posterior: Mapping[int, float], label: int) -> int | None:
    """Return the class that is clearly more probable than `label`, the most probable one; None if there is none."""
    best = max(posterior, key=lambda index: (posterior[index], -index))
    return best if posterior[best] > posterior.get(label, 0.0) + CLEARLY else None


def krippendorff_alpha(units: Iterable[Sequence[int]]) -> float:
    """Return the agreement of values given to the same units, 1 for perfect, 0 as by chance; values are nominal.

    α = 1 − D_o / D_e over the units with two values or more. With n values in all, n_c of them c, and in unit u n_uc of
    m_u: D_o = Σ_u Σ_{c≠k} n_uc n_uk / (m_u − 1) / n and D_e = Σ_{c≠k} n_c n_k / (n (n − 1)). K. Krippendorff,
    Computing Krippendorff's alpha-reliability, 2011. NaN without such units, and where all values are the same, because
    nothing then tells agreement from chance.
    """
    totals: Counter[int] = Counter()
    observed: Counter[int] = Counter()  # whole numbers, by m_u − 1: a fraction a unit takes 15 µs
    for unit in units:
        if len(unit) < 2:
            continue
        counts = Counter(unit)
        totals.update(counts)
        observed[len(unit) - 1] += _unequal_pairs(counts)
    unequal = _unequal_pairs(totals)
    if unequal == 0:
        return nan
    disagreement = sum((Fraction(pairs, others) for others, pairs in observed.items()), Fraction(0))
    return float(1 - disagreement * (totals.total() - 1) / unequal)


def agreement_of(units: Sequence[Sequence[Classes]], *, classes: int, multilabel: bool) -> float:
    """Return Krippendorff's alpha of answers to the same items; multi-label: the mean over the classes that have one.

    Parameters
    ----------
    units
        The answers to each item.
    classes
        How many classes the campaign has.
    """
    if not multilabel:
        return krippendorff_alpha([[answer[0] for answer in unit] for unit in units])
    each = [krippendorff_alpha([[int(index in said) for said in unit] for unit in units]) for index in range(classes)]
    known = [alpha for alpha in each if alpha == alpha]
    return float(np.mean(known)) if known else nan


def _unequal_pairs(counts: Counter[int]) -> int:
    """Return Σ_{c≠k} n_c n_k, ordered pairs."""
    total = counts.total()
    return total * total - sum(count * count for count in counts.values())
