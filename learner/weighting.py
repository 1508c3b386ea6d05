"""How much each labelled item counts, and what every model refuses to be fitted to."""

import numpy as np
from numpy.typing import NDArray

from learner.ports import TrainingSet
from learner.problem import Problem, Targets, class_counts
from sealpool.errors import FailedPrecondition


def check_classes(problem: Problem, targets: Targets) -> NDArray[np.int64]:
    """Return the classes that there is something to learn about: those with a label; multi-label: and with one without.

    Raises
    ------
    FailedPrecondition
        For `examples.labels`: fewer than two, or for multi-label none.
    """
    counts = class_counts(problem, targets)
    if problem.multilabel:
        columns = np.flatnonzero((counts > 0) & (counts < len(targets)))
        if not len(columns):
            raise FailedPrecondition("no class has both a positive and a negative example", field="examples.labels")
        return columns
    columns = np.flatnonzero(counts)
    if len(columns) < 2:
        raise FailedPrecondition(
            f"the examples have {len(columns)} of the classes; training needs two", field="examples.labels"
        )
    return columns


def item_weights(problem: Problem, training: TrainingSet, *, balanced: bool) -> NDArray[np.float64]:
    """Return (n, 1), or for multi-label (n, c): how much each item counts, class weights included.

    With `balanced`, an item of class c counts n / (classes with a label · n_c); multi-label, a positive of class c
    counts n / (2·n_c) and a negative n / (2·(n − n_c)).
    """
    count = len(training)
    given = np.ones(count) if training.weights is None else training.weights.astype(np.float64)
    columns = len(problem.classes) if problem.multilabel else 1
    if not balanced:
        return np.repeat(given[:, None], columns, axis=1)
    counts = class_counts(problem, training.targets)
    if problem.multilabel:
        positive, negative = (count / (2 * np.maximum(number, 1)) for number in (counts, count - counts))
        return np.where(training.targets, positive, negative) * given[:, None]
    weights = count / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return (weights[training.targets] * given)[:, None]


def no_samples() -> FailedPrecondition:
    """Return the error of a model that is asked for samples and draws none."""
    return FailedPrecondition(
        "this strategy needs posterior samples, and the estimator softmax draws none: set uncertainty.estimator to "
        "mc_dropout, ensemble or laplace",
        field="model.uncertainty.estimator",
    )
