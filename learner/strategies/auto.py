"""The strategy that chooses one."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learner.ports import CancelCheck, LabelledView
from learner.problem import Problem, Task, class_counts
from learner.strategies import halving

REPRESENTATION = "typiclust"
CONTROL = "random"
LEAST_LABELS = 20
LEAST_LABELS_A_CLASS = 2
PLENTY_A_CLASS = 5
MOST_LABELS = 600
"""Labels that trials are made with; of more, this many are drawn."""
FIRST_TRIALS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A strategy's `name`, the `reason` for it as a sentence, and how many models were fitted to find it."""

    name: str
    reason: str
    fits: int = 0


def choose(labelled: LabelledView, problem: Problem, seed: int, *, cancelled: CancelCheck = lambda: False) -> Choice:
    """Choose the strategy of a round: representation (`typiclust`) while labels are too few, then uncertainty.

    1. Fewer than two classes among the labels, fewer than 20 labels, or fewer than 2 for each class that is among them:
       representation.
    2. Otherwise representation, uncertainty (`margin`; for multi-label `entropy`) and `random` as a control are tried
       out on the labels so far by successive halving: split them, call a part labelled, let each arm pick from another
       part, fit a linear model to both, and see its error on the rest. 10 trials of all three, 20 more of the better
       two. The error is the share misclassified; for binary and multi-label, of wrongly ordered pairs.
    3. The best arm, unless it is the control, is chosen if its error is lower than the other's by more than one
       standard error of the differences, trial by trial. Otherwise representation below 5 labels a class, and
       uncertainty from there on.

    Trials have half the labels, so they show what was best some rounds ago: uncertainty comes rather late than early,
    which costs less (CLINC150, 50 labels a round: uncertainty from 100 labels on ends at .73, representation at .80).
    In trials representation is stood in for by greedy k-medoids: central items of what is not covered, without
    clusters to find in each trial.

    Hacohen and Weinshall, How to select which active learning strategy is best suited for your specific problem and
    budget, NeurIPS 2023: what is best with few labels differs from what is best with many, and the labels can tell.
    Jamieson and Talwalkar, AISTATS 2016. Cost: inner products of at most 600 labels, and 100 fits of ridge regression
    of at most 300: about a second, whatever the dimension.

    The choice is a function of the labelled items, their order and the seed alone.

    Raises
    ------
    Cancelled
        `cancelled` said so.
    """
    counts = class_counts(problem, labelled.targets)
    known = (counts > 0) & (counts < len(labelled)) if problem.multilabel else counts > 0
    classes = int(np.count_nonzero(known))
    too_few = _why_too_few(len(labelled), classes, problem)
    if too_few:
        return Choice(name=REPRESENTATION, reason=too_few)
    rows = np.sort(np.random.default_rng(seed).permutation(len(labelled))[:MOST_LABELS])
    vectors = labelled.vectors[torch.from_numpy(rows).to(labelled.vectors.device)].double().cpu().numpy()
    trials = halving.Trials(
        vectors,
        _indicators(problem, labelled)[rows][:, known],
        halving.misclassified if problem.task is Task.MULTICLASS else halving.misordered,
        seed=seed,
        cancelled=cancelled,
    )
    uncertainty = "entropy" if problem.multilabel else "margin"
    errors = halving.halve(trials, _arms(uncertainty, problem), first=FIRST_TRIALS)
    name, why = _winner(errors, uncertainty, len(labelled) / classes)
    return Choice(name=name, reason=f"{why} ({_told(errors)})", fits=trials.fits)


def _arms(uncertainty: str, problem: Problem) -> Mapping[str, halving.Arm]:
    return {
        REPRESENTATION: halving.most_representative,
        uncertainty: halving.nearest_to_even if problem.multilabel else halving.least_certain,
        CONTROL: halving.any_at_all,
    }


def _indicators(problem: Problem, labelled: LabelledView) -> NDArray[np.float64]:
    """Return (m, c): 1 where the item has the class."""
    if problem.multilabel:
        return labelled.targets.astype(np.float64)
    return np.equal(labelled.targets[:, None], np.arange(len(problem.classes))).astype(np.float64)


def _why_too_few(labels: int, classes: int, problem: Problem) -> str:
    """Return why nothing can be tried out on the labels; "" where it can."""
    if problem.multilabel and classes == 0:
        return f"{REPRESENTATION}: none of the classes has a positive and a negative among {labels:,} labelled items"
    if not problem.multilabel and classes < 2:
        return f"{REPRESENTATION}: {labels:,} labels of {classes} class(es) train no model"
    least = max(LEAST_LABELS, LEAST_LABELS_A_CLASS * classes)
    if labels < least:
        return (
            f"{REPRESENTATION}: {labels:,} labels of {classes:,} classes are fewer than {least:,}, too few for trials"
        )
    return ""


def _winner(errors: Mapping[str, NDArray[np.float64]], uncertainty: str, labels_a_class: float) -> tuple[str, str]:
    """Return a name, and what speaks for it."""
    most = max(len(some) for some in errors.values())
    best, other = sorted((name for name in errors if len(errors[name]) == most), key=lambda name: errors[name].mean())
    gap = errors[other] - errors[best]
    if best != CONTROL and gap.mean() > gap.std(ddof=1) / np.sqrt(len(gap)):
        return best, f"{best}: it lowered the error most in {most} trials on the labels so far"
    name = REPRESENTATION if labels_a_class < PLENTY_A_CLASS else uncertainty
    arm, rival = (other, best) if best == CONTROL else (best, other)
    side = "fewer than" if labels_a_class < PLENTY_A_CLASS else "at least"
    return name, (
        f"{name}: {most} trials on the labels so far do not set {arm} apart from {rival}, "
        f"and {labels_a_class:.1f} labels a class are {side} {PLENTY_A_CLASS}"
    )


def _told(errors: Mapping[str, NDArray[np.float64]]) -> str:
    """Return the errors of the arms that stayed, the lowest first, and which went."""
    most = max(len(some) for some in errors.values())
    means = sorted((float(some.mean()), name) for name, some in errors.items() if len(some) == most)
    told = ", ".join(f"{name} {100 * mean:.1f} %" for mean, name in means)
    return f"error {told}; " + ", ".join(
        f"{name} dropped after {len(some)}" for name, some in errors.items() if len(some) < most
    )
