"""From probabilities to labels: what each item is taken for, and how surely."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class By(StrEnum):
    """What labels the rest of the pool."""

    MODEL = "model"
    PROPAGATION = "propagation"
    BOTH = "both"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """How probabilities become labels.

    Parameters
    ----------
    by
        Whose probabilities count. With BOTH a label is given where the model and the propagation say the same; its
        confidence is the smaller of theirs.
    min_confidence
        Items less sure than this stay without a label.
    trust_model_above
        With BOTH: where the model is at least so sure, its label is taken whatever the propagation says, with the
        model's confidence. None: never.
    """

    by: By
    multilabel: bool
    min_confidence: float
    trust_model_above: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Decisions:
    """What n items are taken for.

    Parameters
    ----------
    labels
        (n, c) bool, which classes.
    confidence
        (n,) float32: of a single class its probability; of several the least of the probabilities of what is said of
        each class, there or not.
    given
        (n,) bool, whether the rule gives the label: it is sure enough, and, with both, agreed on.
    by_model
        (n,) bool, whether the model's word alone decided; with BOTH, where the two did not agree.
    """

    labels: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    given: NDArray[np.bool_]
    by_model: NDArray[np.bool_]


def decide(
    rule: Rule,
    *,
    model: NDArray[np.float32] | None,
    propagated: NDArray[np.float32] | None,
    mass: NDArray[np.float32] | None,
) -> Decisions:
    """Apply a rule to probabilities (n, c) of the model and of the propagation, whichever it needs.

    An item that no label reached, with a `mass` (n,) of 0, is given no label by propagation.
    """
    if rule.by is By.MODEL:
        labels, confidence = _said(_needed(model), multilabel=rule.multilabel)
        every = np.ones(len(confidence), np.bool_)
        return _cut(rule, labels, confidence, every, by_model=every)
    reached = _needed(mass) > 0
    labels, confidence = _said(_needed(propagated), multilabel=rule.multilabel)
    if rule.by is By.PROPAGATION:
        return _cut(rule, labels, confidence, reached, by_model=np.zeros(len(confidence), np.bool_))
    by_model, sure = _said(_needed(model), multilabel=rule.multilabel)
    agreed = reached & (labels == by_model).all(axis=1)
    trusted = np.zeros(len(sure), np.bool_)
    if rule.trust_model_above is not None:
        trusted = sure >= np.float32(rule.trust_model_above)
    alone = trusted & ~agreed
    both_sure = np.where(trusted | ~reached, sure, np.minimum(sure, confidence))
    return _cut(rule, by_model, both_sure, agreed | trusted, by_model=alone)


def names_of(labels: NDArray[np.bool_], classes: Sequence[str]) -> list[list[str]]:
    """Return the names of each row's classes."""
    found: list[list[str]] = [[] for _ in labels]
    for row, column in zip(*np.nonzero(labels), strict=True):
        found[row].append(classes[column])
    return found


def _said(probabilities: NDArray[np.float32], *, multilabel: bool) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    if multilabel:
        return probabilities > 0.5, np.maximum(probabilities, 1 - probabilities).min(axis=1)
    best = probabilities.argmax(axis=1)
    labels = best[:, None] == np.arange(probabilities.shape[1])
    return labels, probabilities[np.arange(len(best)), best]


def _cut(
    rule: Rule,
    labels: NDArray[np.bool_],
    confidence: NDArray[np.float32],
    allowed: NDArray[np.bool_],
    *,
    by_model: NDArray[np.bool_],
) -> Decisions:
    given = allowed & (confidence >= np.float32(rule.min_confidence))
    return Decisions(labels=labels, confidence=confidence.astype(np.float32), given=given, by_model=by_model)


def _needed(values: NDArray[np.float32] | None) -> NDArray[np.float32]:
    if values is None:
        raise AssertionError("the rule asks for what was not given")
    return values
