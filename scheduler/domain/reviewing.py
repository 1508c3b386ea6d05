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
    2021. Labels are pruned by noise rate, and ordered by the probability of what they say.

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
        import cleanlab.multilabel_classification.filter
        import cleanlab.multilabel_classification.rank
        import cleanlab.rank
    except ImportError as error:
        raise FailedPrecondition(
            "reviewing labels needs cleanlab on the scheduler's machine: pip install 'sealpool[agreement]'"
        ) from error
    # n_jobs: cleanlab would fork, and a process that has served gRPC must not.
    if multilabel:
        several = [list(classes) for classes in labels]
        is_issue = cleanlab.multilabel_classification.filter.find_label_issues(several, probabilities, n_jobs=1)
        quality = cleanlab.multilabel_classification.rank.get_label_quality_scores(several, probabilities)
    else:
        one = np.array([classes[0] for classes in labels], np.int64)
        is_issue = cleanlab.filter.find_label_issues(one, probabilities, n_jobs=1)
        quality = cleanlab.rank.get_label_quality_scores(one, probabilities)
    found = [Doubt(position=int(at), quality=float(quality[at])) for at in np.flatnonzero(is_issue)]
    return sorted(found, key=lambda doubt: (doubt.quality, doubt.position))
