"""A campaign without servers: fit, measure, pick, label, and again."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.learner.workbench import BATCH_ROWS, CPU, rows_of, source_of
from learner.contexts import Lens, make_labelled
from learner.evaluation import Quality, measure
from learner.fitting import fit_round
from learner.models import make_classifier
from learner.options import ModelOptions, StrategyOptions
from learner.ports import BatchStrategy, Classifier, LabelledView
from learner.predicting import predict
from learner.problem import Problem, Targets, class_counts
from learner.scoring import BatchPicker, Scorer
from learner.strategies import make_strategy
from learner.strategies.auto import REPRESENTATION, choose
from sealpool.types import ItemId, Vectors
from sealpool.vocabulary.strategies import STRATEGIES, Need

_WITHOUT_MODEL = "random"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """Candidates whose labels can be asked for, of which `start` (s,) rows have theirs, and held-out texts."""

    problem: Problem
    vectors: Vectors
    targets: Targets
    texts: tuple[str, ...]
    test_vectors: Vectors
    test_targets: Targets
    test_texts: tuple[str, ...]
    start: NDArray[np.int64]
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """A strategy and a model that are tried out, and what they are called in the tables."""

    name: str
    strategy: StrategyOptions
    model: ModelOptions = field(default_factory=ModelOptions)


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """A model: how many labels and positives of each class it saw, how good it is, and what picked the next batch."""

    labels: int
    counts: tuple[int, ...]
    quality: Quality | None
    picked_by: str = ""


class Campaigns:
    """Campaigns on one trial. Models of the same labels are fitted once."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._source = source_of(trial.vectors)
        self._fitted: dict[tuple[ModelOptions, bytes], tuple[Classifier, Quality] | None] = {}

    def play(self, arm: Arm, *, batch: int, rounds: int) -> list[Round]:
        """Pick `rounds` batches, and return the model before each and after the last.

        A strategy that needs a model picks at random until there are labels of two classes.
        """
        trial, labelled, played = self._trial, self._trial.start, []
        for number in range(rounds + 1):
            found = self._fit(arm.model, labelled)
            picked_by = ""
            if number < rounds:
                picked_by, rows = self._pick(arm, found and found[0], labelled, batch, seed=1000 * trial.seed + number)
            counts = class_counts(trial.problem, trial.targets[labelled])
            played.append(
                Round(
                    labels=len(labelled),
                    counts=tuple(counts.tolist()),
                    quality=found and found[1],
                    picked_by=picked_by,
                )
            )
            if number < rounds:
                labelled = np.concatenate([labelled, rows])
        return played

    def _fit(self, options: ModelOptions, labelled: NDArray[np.int64]) -> tuple[Classifier, Quality] | None:
        """Return the model of some rows and its quality; None where they have too few classes."""
        key = options, np.sort(labelled).tobytes()
        if key not in self._fitted:
            self._fitted[key] = fit(self._trial, options, np.sort(labelled)) if self._trainable(labelled) else None
        return self._fitted[key]

    def _trainable(self, labelled: NDArray[np.int64]) -> bool:
        counts = class_counts(self._trial.problem, self._trial.targets[labelled])
        if self._trial.problem.multilabel:
            return bool(((counts > 0) & (counts < len(labelled))).any())
        return int(np.count_nonzero(counts)) > 1

    def _pick(
        self, arm: Arm, classifier: Classifier | None, labelled: NDArray[np.int64], count: int, *, seed: int
    ) -> tuple[str, NDArray[np.int64]]:
        problem = self._trial.problem
        view = self._view(classifier, labelled)
        options = _resolved(arm.strategy, classifier, view, problem, seed)
        strategy = make_strategy(options, problem)
        lens = Lens(
            problem=problem,
            classifier=classifier,
            labelled=view,
            direction=self._source.candidates.direction,
            device=CPU,
            seed=seed,
        )
        picker = (
            BatchPicker(lens=lens, strategy=strategy, batch_rows=BATCH_ROWS)
            if isinstance(strategy, BatchStrategy)
            else Scorer(lens=lens, strategy=strategy, batch_rows=BATCH_ROWS)
        )
        picked = picker.pick(self._source, count=count, barred=labelled, cancelled=lambda: False)
        return options.name, np.array(rows_of(picked), np.int64)

    def _view(self, classifier: Classifier | None, labelled: NDArray[np.int64]) -> LabelledView:
        rows = np.sort(labelled)
        return make_labelled(
            torch.from_numpy(self._trial.vectors[rows]), self._trial.targets[rows], texts=None, classifier=classifier
        )


def fit(trial: Trial, options: ModelOptions, labelled: NDArray[np.int64]) -> tuple[Classifier, Quality]:
    """Fit a model to some rows of a trial, and measure it on the held-out texts."""
    rows = labelled.tolist()
    classifier = fit_round(
        options,
        trial.problem,
        make_classifier,
        ids=[ItemId(f"item {row:06}") for row in rows],
        vectors=trial.vectors[labelled],
        texts=[trial.texts[row] for row in rows],
        targets=trial.targets[labelled],
        before=None,
        seed=trial.seed,
        device=CPU,
        progress=lambda _iteration, _loss: None,
        cancelled=lambda: False,
    ).classifier
    probabilities = _predict(classifier, trial.test_vectors, trial.test_texts)
    return classifier, measure(trial.problem, probabilities, trial.test_targets)


def _predict(classifier: Classifier, vectors: Vectors, texts: Sequence[str]) -> NDArray[np.float32]:
    given = texts if classifier.needs_text else None
    return predict(classifier, vectors, CPU, texts=given)


def _resolved(
    options: StrategyOptions, classifier: Classifier | None, view: LabelledView, problem: Problem, seed: int
) -> StrategyOptions:
    """Return what picks: for `auto` what it chooses, and random draws where a model is needed and there is none."""
    if options.name == "auto":
        return StrategyOptions(name=choose(view, problem, seed).name if classifier is not None else REPRESENTATION)
    if classifier is None and Need.MODEL in STRATEGIES[options.name].needs:
        return StrategyOptions(name=_WITHOUT_MODEL)
    return options
