"""What an estimator asks of the model that it is put around, and what estimators share."""

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from learner.ports import Arrays, CancelCheck, Classifier, FitReport, Inputs, Progress, TrainingSet

DEFAULT_SAMPLES = 20
DEFAULT_MEMBERS = 5

_MODEL = "model."
_SEED = "seed"


class Linear(Classifier, Protocol):
    """A classifier whose last layer is linear, and whose dropout masks can be held."""

    @property
    def prior_precision(self) -> float | None:
        """The precision of a Gaussian prior on each row of the last layer, if its fit had one."""

    def head(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the last layer's weights (c, h) and bias (c,); a class that cannot be has bias -inf."""

    def dropped_proba(self, inputs: Inputs, *, seed: int, samples: int, rate: float | None) -> Iterator[torch.Tensor]:
        """Yield (n, c) probabilities of each sample: one set of masks, a function of seed and sample, for all rows."""


class Around:
    """A classifier around another: fits it, saves it, and remembers the seed that it was fitted with.

    Parameters
    ----------
    base
        The model inside, unfitted.
    """

    def __init__(self, base: Linear) -> None:
        self._base = base
        self._seed = 0

    @property
    def needs_text(self) -> bool:
        """Whether the model inside reads texts."""
        return self._base.needs_text

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
        """Fit the model inside; see learner.ports.Classifier."""
        self._seed = seed
        return self._base.fit(
            training,
            validation=validation,
            warm=warm,
            seed=seed,
            device=device,
            progress=progress,
            cancelled=cancelled,
        )

    def features(self, inputs: Inputs) -> torch.Tensor:
        """Return (n, h) of the model inside."""
        return self._base.features(inputs)

    def save(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays of the model inside, and the seed."""
        arrays = prefixed(_MODEL, self._base.save())
        arrays[_SEED] = np.array([self._seed % 2**64], np.uint64)
        return arrays

    def load(self, arrays: Arrays, *, device: torch.device) -> None:
        """Become the model that was saved."""
        self._base.load(under(_MODEL, arrays), device=device)
        self._seed = int(arrays[_SEED].astype(np.uint64)[0])


def prefixed(prefix: str, arrays: Arrays) -> dict[str, NDArray[np.generic]]:
    """Return `arrays` under names that begin with `prefix`."""
    return {prefix + name: array for name, array in arrays.items()}


def under(prefix: str, arrays: Arrays) -> Mapping[str, NDArray[np.generic]]:
    """Return the arrays whose names begin with `prefix`, without it; KeyError if there are none."""
    found = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    if not found:
        raise KeyError(prefix)
    return found
