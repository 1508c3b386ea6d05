"""The labelled set cut into folds, each about like the whole."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from learner.draws import draws_of, keys_of
from learner.problem import Problem, Targets, class_counts
from sealpool.types import ItemId


def assign_folds(
    problem: Problem, ids: Sequence[ItemId], targets: Targets, *, folds: int, seed: int
) -> NDArray[np.int64]:
    """Return (n,) the fold of each item, 0 to folds − 1: a function of ids, targets and seed, not of the order.

    Stratified: the items of a class are dealt out in turn, in the order of a draw that belongs to seed and id. A
    multi-label item is dealt with the rarest of its classes, one without any class with the others that have none.
    Folds differ by one item at most.
    """
    draws = draws_of(keys_of(ids), seed)
    order = np.lexsort((draws, _strata(problem, targets)))
    dealt = np.empty(len(ids), np.int64)
    dealt[order] = np.arange(len(ids)) % folds
    return dealt


def _strata(problem: Problem, targets: Targets) -> NDArray[np.int64]:
    if not problem.multilabel:
        return targets.astype(np.int64)
    rarity = np.where(targets, class_counts(problem, targets), len(targets) + 1)
    return np.where(targets.any(axis=1), rarity.argmin(axis=1), len(problem.classes)).astype(np.int64)
