"""Deep ensembles: K models trained independently."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray

from learner.ports import Arrays, CancelCheck, Classifier, FitReport, Inputs, Progress, TrainingSet
from learner.uncertainty.base import prefixed, under


class Ensemble:
    """The mean of K models that differ in what they drew: their first weights, the order of examples, dropout.

    A model whose optimum is unique differs by its examples' weights: bagging (Breiman, Machine Learning 24, 1996) by
    the Bayesian bootstrap (Rubin, Annals of Statistics 9, 1981; Clyde and Lee, AISTATS 2001), whose exponential
    weights, unlike counts of draws, never leave a class out, however few its labels.

    Lakshminarayanan, Pritzel and Blundell, NeurIPS 2017. Cost: K trainings and K predictions.

    Parameters
    ----------
    make
        Makes one unfitted member.
    members
        K. `sample_proba` returns these, whatever its seed.
    bagging
        Whether each member has examples' weights of its own.
    """

    def __init__(self, make: Callable[[], Classifier], *, members: int, bagging: bool) -> None:
        self._members = [make() for _ in range(members)]
        self._bagging = bagging

    @property
    def needs_text(self) -> bool:
        """Whether the members read texts."""
        return self._members[0].needs_text

    def fit(
        self,
        training: TrainingSet,
        *,
        validation: TrainingSet | None,
        warm: bool,
        seed: int,
        device: torch.device,
        progress: Progress,
        cancelled: CancelCheck,
    ) -> FitReport:
        """Fit one member after the other. The report has the sum of their iterations and the mean of their losses."""
        steps = count(1)
        reports = []
        for number, member in enumerate(self._members):
            member_seed = int(np.random.SeedSequence([seed % 2**64, number]).generate_state(1, np.uint64)[0] >> 1)
            report = member.fit(
                _weighed(training, member_seed) if self._bagging else training,
                validation=validation,
                warm=warm,
                seed=member_seed,
                device=device,
                progress=lambda _, loss: progress(next(steps), loss),
                cancelled=cancelled,
            )
            reports.append(report)
        return FitReport(
            iterations=sum(report.iterations for report in reports),
            loss=float(np.mean([report.loss for report in reports])),
            notes=tuple(dict.fromkeys(note for report in reports for note in report.notes)),
        )

    def predict_proba(self, inputs: Inputs) -> torch.Tensor:
        """Return the members' mean (n, c)."""
        total = self._members[0].predict_proba(inputs)
        for member in self._members[1:]:
            total += member.predict_proba(inputs)
        return total.div_(len(self._members))

    def sample_proba(self, inputs: Inputs, *, seed: int) -> torch.Tensor:
        """Return (K, n, c), one sample a member; the seed changes nothing."""
        del seed
        return torch.stack([member.predict_proba(inputs) for member in self._members])

    def features(self, inputs: Inputs) -> torch.Tensor:
        """Return (n, h) of the first member: those of several have no common coordinates."""
        return self._members[0].features(inputs)

    def save(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays of all members."""
        arrays: dict[str, NDArray[np.generic]] = {}
        for number, member in enumerate(self._members):
            arrays |= prefixed(f"member{number}.", member.save())
        return arrays

    def load(self, arrays: Arrays, *, device: torch.device) -> None:
        """Become the ensemble that was saved."""
        for number, member in enumerate(self._members):
            member.load(under(f"member{number}.", arrays), device=device)


def _weighed(training: TrainingSet, seed: int) -> TrainingSet:
    """Return the examples with exponential weights of mean 1, times those that they have."""
    drawn = np.random.default_rng(seed).exponential(size=len(training))
    drawn /= drawn.mean()
    if training.weights is not None:
        drawn *= training.weights
    return replace(training, weights=drawn.astype(np.float32))
