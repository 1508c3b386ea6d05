"""Labels that are likely wrong, by confident learning."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sealpool.errors import FailedPrecondition


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubt:
    """A label that is likely wrong: its position among those that were looked at, and its quality."""

    position: int
    quality: float


def doubts(labels: Sequence[tuple[int, ...]], probabilities: NDArray[np.float64], *, multilabel: bool) -> list[Doubt]:
    """Return the labels that are likely wrong, worst first.

    C. G. Northcutt, L. Jiang and I. L. Chuang, Confident learning: estimating uncertainty in dataset labels, JAIR 70,
    2021. Labels are pruned by noise rate, and ordered by the probability of what they say. Multi-label, each class is
    looked at by itself, there or not; one that all items have, or none, casts no doubt.

    Parameters
    ----------
    labels
        n class indices an item, ascending.
    probabilities
        (n, classes): by models that had not seen the label; rows sum to 1 unless multi-label.

    Raises
    ------
    FailedPrecondition
        cleanlab is not installed.
    """
    try:
        import cleanlab.filter  # takes seconds to import, and is an extra
        import cleanlab.rank
    except ImportError as error:
        raise FailedPrecondition(
            "reviewing labels needs cleanlab on the scheduler's machine: pip install 'sealpool[agreement]'"
        ) from error
    if not labels:
        return []
    # n_jobs: cleanlab would fork, and a process that has served gRPC must not.
    if multilabel:
        # Its own functions for several labels do the same, and fail where a class has no items, or all.
        present = np.array([[index in classes for index in range(probabilities.shape[1])] for classes in labels])
        is_issue = np.zeros(len(labels), np.bool_)
        for there, share in zip(present.T, probabilities.T, strict=True):
            if there.any() and not there.all():
                of_two = np.stack([1 - share, share], axis=1)
                is_issue |= cleanlab.filter.find_label_issues(there.astype(np.int64), of_two, n_jobs=1)
        quality = _quality_of_several(np.where(present, probabilities, 1 - probabilities))
    else:
        one = np.array([classes[0] for classes in labels], np.int64)
        is_issue = cleanlab.filter.find_label_issues(one, probabilities, n_jobs=1)
        quality = cleanlab.rank.get_label_quality_scores(one, probabilities)
    found = [Doubt(position=int(at), quality=float(quality[at])) for at in np.flatnonzero(is_issue)]
    return sorted(found, key=lambda doubt: (doubt.quality, doubt.position))


def _quality_of_several(each: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n,) one quality from those of all classes (n, c), in which the worst weigh most.

    s ← 0.8·qᵢ + 0.2·s from the best to the worst: Thyagarajan, Snorrason, Northcutt and Mueller, Identifying Incorrect
    Annotations in Multi-Label Classification Data, 2022.
    """
    descending = -np.sort(-each, axis=1)
    quality = descending[:, 0]
    for following in descending.T[1:]:
        quality = 0.8 * following + 0.2 * quality
    return quality
