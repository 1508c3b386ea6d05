"""What a campaign decides about an item: its classes, and how many of them an item has."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from sealpool.errors import InvalidArgument

MAX_CLASSES = 10_000

Targets = NDArray[np.int64] | NDArray[np.bool_]
"""(n,) int64 class indices, or for multi-label (n, c) bool: whether item i has class j."""


class Task(Enum):
    """How many classes an item has."""

    BINARY = "binary"  # one of two; the second is the positive one
    MULTICLASS = "multiclass"  # one of several
    MULTILABEL = "multilabel"  # any number


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """The task of a campaign and its classes, in the campaign's order."""

    task: Task
    classes: tuple[str, ...]

    @property
    def multilabel(self) -> bool:
        """Whether an item may have any number of classes."""
        return self.task is Task.MULTILABEL


def check_problem(problem: Problem) -> Problem:
    """Return `problem` if its classes fit its task; raise InvalidArgument for `header.classes` otherwise."""
    classes = problem.classes
    at_least = 1 if problem.multilabel else 2
    if not at_least <= len(classes) <= MAX_CLASSES:
        raise InvalidArgument("header.classes", f"has {len(classes):,} entries, not {at_least} to {MAX_CLASSES:,}")
    if problem.task is Task.BINARY and len(classes) != 2:
        raise InvalidArgument("header.classes", f"has {len(classes):,} entries; a binary campaign has 2")
    if "" in classes:
        raise InvalidArgument("header.classes", "holds an empty name")
    if len(set(classes)) < len(classes):
        raise InvalidArgument("header.classes", "holds a name twice")
    return problem


def check_labels(problem: Problem, labels: Sequence[Sequence[int]], *, field: str = "examples.labels") -> None:
    """Raise InvalidArgument for `field` where an item's labels do not fit the task."""
    count = len(problem.classes)
    for position, indices in enumerate(labels):
        if any(not 0 <= index < count for index in indices):
            raise InvalidArgument(field, f"item {position} has an index outside 0 to {count - 1}")
        if not problem.multilabel and len(indices) != 1:
            raise InvalidArgument(
                field,
                f"item {position} has {len(indices)} labels; a {problem.task.value} campaign takes 1 an item",
            )
        if len(set(indices)) < len(indices):
            raise InvalidArgument(field, f"item {position} has a label twice")


def encode_targets(problem: Problem, labels: Sequence[Sequence[int]]) -> Targets:
    """Turn checked labels into the targets that models take."""
    if not problem.multilabel:
        return np.fromiter((indices[0] for indices in labels), np.int64, len(labels))
    targets = np.zeros((len(labels), len(problem.classes)), np.bool_)
    for row, indices in zip(targets, labels, strict=True):
        row[list(indices)] = True
    return targets


def class_counts(problem: Problem, targets: Targets) -> NDArray[np.int64]:
    """Return how many items have each class, (c,)."""
    if problem.multilabel:
        counts: NDArray[np.int64] = np.count_nonzero(targets, axis=0).astype(np.int64)
        return counts
    return np.bincount(targets, minlength=len(problem.classes)).astype(np.int64)
