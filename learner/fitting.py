"""Fit the model of a round: which labels are set aside, what it begins from, and what is said of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from learner.checkpoints import Checkpoint
from learner.draws import draws_of, keys_of
from learner.evaluation import macro_f1
from learner.options import ModelOptions, Retrain
from learner.ports import CancelCheck, Classifier, FitReport, Inputs, MakeClassifier, Progress, TrainingSet
from learner.problem import Problem, Targets, class_counts
from sealpool.types import ItemId, Vectors
from sealpool.vocabulary.models import MODELS

_SPLIT_SEED = 0x5EA1
"""The same in every round and campaign, so that what validated in one round is not trained on in the next; but for an
item that was needed as the only example of its class."""
_NEURAL_SHARE = 0.1
_SATURATED = 1e-3
"""A validation score that rises by less than this has stalled."""
_NAMED_CLASSES = 5
_PREDICT_ROWS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """A fitted model. `examples` were trained on, `validation_examples` set aside; the score is macro-F1 on them."""

    classifier: Classifier
    report: FitReport
    examples: int
    validation_examples: int
    validation_score: float
    warm: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trial:
    classifier: Classifier
    report: FitReport
    score: float
    warm: bool


def fit_round(
    options: ModelOptions,
    problem: Problem,
    make: MakeClassifier,
    *,
    ids: Sequence[ItemId],
    vectors: Vectors,
    texts: Sequence[str] | None,
    targets: Targets,
    before: Checkpoint | None,
    seed: int,
    device: torch.device,
    progress: Progress,
    cancelled: CancelCheck,
) -> Fit:
    """Fit the model of a round to labelled items, which `ids`, `vectors`, `texts` and `targets` are parallel to.

    Parameters
    ----------
    before
        The model to go on from, unless each round begins from scratch; None where there is none.

    Raises
    ------
    FailedPrecondition, Cancelled
        As Classifier.fit does.
    """
    aside = set_aside(problem, ids, targets, share=_share(options))
    everything = TrainingSet(vectors=vectors, targets=targets, texts=texts)
    training = _part(everything, np.flatnonzero(~aside))
    validation = _part(everything, np.flatnonzero(aside)) if aside.any() else None

    def attempt(start: Classifier | None) -> _Trial:
        classifier = start if start is not None else make(options, problem)
        report = classifier.fit(
            training,
            validation=validation,
            warm=start is not None,
            seed=seed,
            device=device,
            progress=progress,
            cancelled=cancelled,
        )
        score = _score(classifier, problem, validation, device)
        return _Trial(classifier=classifier, report=report, score=score, warm=start is not None)

    trial = attempt(before.classifier if before is not None else None)
    notes = [*_thin_classes(problem, targets)]
    if before is not None and options.retrain is Retrain.AT_SATURATION and _stalled(trial.score, before):
        anew = attempt(None)
        notes.append(_saturation_note(before, trial, anew))
        trial = anew if anew.score >= trial.score else trial
    return Fit(
        classifier=trial.classifier,
        report=trial.report,
        examples=len(training),
        validation_examples=0 if validation is None else len(validation),
        validation_score=trial.score,
        warm=trial.warm,
        notes=(*notes, *trial.report.notes),
    )


def set_aside(problem: Problem, ids: Sequence[ItemId], targets: Targets, *, share: float) -> NDArray[np.bool_]:
    """Return (n,) which items validate: about `share` of them, by a draw that belongs to the id.

    An item is trained on all the same where its class would be left without an example otherwise. With a share above 0
    at least one item validates, if any class has two.
    """
    if not share:
        return np.zeros(len(ids), np.bool_)
    draws = draws_of(keys_of(ids), _SPLIT_SEED)
    aside: NDArray[np.bool_] = draws < np.uint64(share * 2.0**64)
    has = targets if problem.multilabel else targets[:, None] == np.arange(len(problem.classes))
    left = (has & ~aside[:, None]).sum(axis=0)
    for row in np.flatnonzero(aside)[np.argsort(draws[aside])].tolist():
        if (left[has[row]] == 0).any():
            aside[row] = False
            left += has[row]
    if not aside.any():
        spare = [row for row in np.argsort(draws).tolist() if (left[has[row]] > 1).all()]
        aside[spare[:1]] = True
    return aside


def _share(options: ModelOptions) -> float:
    if options.validation_share:
        return options.validation_share
    learns_by_steps = any(name.startswith("neural.") for name in MODELS[options.name].options)
    needed = options.uncertainty.temperature or options.retrain is Retrain.AT_SATURATION
    return _NEURAL_SHARE if learns_by_steps or needed else 0.0


def _part(items: TrainingSet, rows: NDArray[np.int64]) -> TrainingSet:
    texts = None if items.texts is None else [items.texts[row] for row in rows.tolist()]
    return replace(items, vectors=items.vectors[rows], targets=items.targets[rows], texts=texts)


@torch.inference_mode()
def _score(classifier: Classifier, problem: Problem, validation: TrainingSet | None, device: torch.device) -> float:
    if validation is None:
        return float("nan")
    parts = []
    for start in range(0, len(validation), _PREDICT_ROWS):
        some = slice(start, start + _PREDICT_ROWS)
        texts = None if validation.texts is None else validation.texts[some]
        inputs = Inputs(vectors=torch.from_numpy(validation.vectors[some]).to(device), texts=texts)
        parts.append(classifier.predict_proba(inputs).float().cpu().numpy())
    return macro_f1(problem, np.concatenate(parts), validation.targets)


def _stalled(score: float, before: Checkpoint) -> bool:
    last = before.info.validation_score
    return last is not None and score <= last + _SATURATED  # not without a score: NaN


def _saturation_note(before: Checkpoint, warm: _Trial, anew: _Trial) -> str:
    kept = "from scratch" if anew.score >= warm.score else "warm"
    return (
        f"the validation score stalled at {warm.score:.3f} (round {before.info.round}: "
        f"{before.info.validation_score:.3f}); from scratch it is {anew.score:.3f}, "
        f"and the model trained {kept} is kept"
    )


def _thin_classes(problem: Problem, targets: Targets) -> list[str]:
    thin = np.flatnonzero(class_counts(problem, targets) == 1)
    if not len(thin):
        return []
    named = ", ".join(repr(problem.classes[column]) for column in thin[:_NAMED_CLASSES])
    more = f" and {len(thin) - _NAMED_CLASSES:,} more" if len(thin) > _NAMED_CLASSES else ""
    return [f"there is one label only of {named}{more}"]
