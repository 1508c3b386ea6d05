"""What the learner's rooms ask of what can be exchanged: models and query strategies.

Arrays are named by letters: n items, d dimensions of a vector, c classes, h dimensions of a model's last hidden layer,
K posterior samples, m labelled items.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from learner.options import DensityOver, ModelOptions
from learner.problem import Problem, Targets
from sealpool.types import Vectors
from sealpool.vocabulary.strategies import Need

Progress = Callable[[int, float], None]
"""Told (iteration or epoch, mean loss an example) while a model is fitted. Cheap; called from the fitting thread."""

CancelCheck = Callable[[], bool]
"""Whether the caller has left. Cheap; asked at least twice a second, from the working thread."""

Arrays = Mapping[str, NDArray[np.generic]]
"""What a fitted model is made of, by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSet:
    """What a model is fitted to.

    Parameters
    ----------
    vectors
        (n, d) float32, finite.
    targets
        (n,) int64, or (n, c) bool for multi-label.
    texts
        (n) texts where the model needs them, else None.
    weights
        (n,) float32, how much each item counts, beside the class weights; None means 1 each.
    """

    vectors: Vectors
    targets: Targets
    texts: Sequence[str] | None = None
    weights: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """Some items as a model sees them.

    Parameters
    ----------
    vectors
        (n, d) float32 or float64 on the model's device; for a model that needs texts alone it may be (n, 0).
    texts
        (n) texts where the model needs them, else None.
    """

    vectors: torch.Tensor
    texts: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True, kw_only=True, slots=True)
class FitReport:
    """How fitting went.

    Parameters
    ----------
    iterations
        Of the optimiser, or epochs.
    loss
        The mean an example at the end, penalty included.
    temperature, error_before, error_after
        Where a temperature was fitted: it, and the expected calibration error on the validation items.
    notes
        What was done otherwise than asked, each a sentence for users.
    """

    iterations: int
    loss: float
    temperature: float | None = None
    error_before: float = float("nan")
    error_after: float = float("nan")
    notes: tuple[str, ...] = ()


class Classifier(Protocol):
    """A model of one problem. Made unfitted; one thread at a time fits, any number predict after that."""

    @property
    def needs_text(self) -> bool:
        """Whether `fit` and `predict_proba` read texts."""

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
        """Fit. Same training set, validation set, seed, device kind and, if `warm`, same parameters: same model.

        Parameters
        ----------
        validation
            Items that are not trained on; None where there are none.
        warm
            Go on from the parameters that the model has, `load`ed before; otherwise begin anew.

        Raises
        ------
        FailedPrecondition
            Fewer than two classes among the targets (multi-label: no class with a positive and a negative), a missing
            text, or the numbers overflow.
        Cancelled
            `cancelled` said so.
        """

    def predict_proba(self, inputs: Inputs) -> torch.Tensor:
        """Return (n, c) probabilities on the model's device; float64 for float64 vectors where it takes vectors.

        Rows sum to 1, except for multi-label, where each entry is a probability of its own. Never NaN for finite
        vectors of usual size.
        """

    def sample_proba(self, inputs: Inputs, *, seed: int) -> torch.Tensor:
        """Return (K, n, c) probabilities of K posterior samples.

        Sample k is the same model for every item and in every call of one seed, as BatchBALD needs.

        Raises
        ------
        FailedPrecondition
            The estimator draws none.
        """

    def features(self, inputs: Inputs) -> torch.Tensor:
        """Return (n, h), what the model's last, linear layer sees."""

    def save(self) -> dict[str, NDArray[np.generic]]:
        """Return what `load` needs to make the same model again."""

    def load(self, arrays: Arrays, *, device: torch.device) -> None:
        """Become the model that was saved. Raises KeyError or ValueError where `arrays` are not of this model."""


MakeClassifier = Callable[[ModelOptions, Problem], Classifier]
"""Makes an unfitted model; InvalidArgument where there is none of that name."""


class LabelledView(Protocol):
    """The labelled set as a strategy sees it; row i of everything is the same item, in the order of the ids."""

    def __len__(self) -> int: ...

    @property
    def vectors(self) -> torch.Tensor:
        """(m, d) float32 on the device."""

    @property
    def targets(self) -> Targets:
        """(m,) int64, or (m, c) bool for multi-label."""

    @property
    def probabilities(self) -> torch.Tensor:
        """(m, c) of the model, float32."""

    @property
    def features(self) -> torch.Tensor:
        """(m, h) of the model, float32."""


class ScoringContext(Protocol):
    """Some candidates as a strategy sees them; row i of everything is the same item.

    What a strategy does not ask for is not computed: one that leaves `probabilities` alone never runs the model. All is
    float32 where many candidates are looked through, and float64 where the best of them are put in order.
    """

    @property
    def problem(self) -> Problem:
        """The task and its classes."""

    @property
    def labelled(self) -> LabelledView:
        """The labelled set."""

    @property
    def probabilities(self) -> torch.Tensor:
        """(n, c) of the model."""

    @property
    def samples(self) -> torch.Tensor:
        """(K, n, c) of K posterior samples; see `Classifier.sample_proba`."""

    @property
    def features(self) -> torch.Tensor:
        """(n, h), what the model's last layer sees."""

    @property
    def vectors(self) -> torch.Tensor:
        """(n, d), as they are."""

    @property
    def inverse_lengths(self) -> torch.Tensor:
        """(n,) 1 / length of each vector, 0 for a zero vector."""

    @property
    def direction(self) -> torch.Tensor | None:
        """(d,) mean unit vector of the set that the strategy's `density_over` names; None if it names none."""

    @property
    def draws(self) -> torch.Tensor:
        """(n,) float64 in [0, 1), a function of the seed and the item's id alone."""

    def predict(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the probabilities (r, c) of other vectors (r, d). FailedPrecondition for a model that reads texts."""


class ScoringStrategy(Protocol):
    """Says how much each candidate is worth a label. Scores a row by that row alone, so it can be fed in batches."""

    @property
    def needs(self) -> AbstractSet[Need]:
        """What it asks for."""

    @property
    def density_over(self) -> DensityOver | None:
        """Which mean direction it needs, if one."""

    def score(self, context: ScoringContext) -> torch.Tensor:
        """Return (n,) floats on the context's device; higher is more worth a label."""


class CandidateView(Protocol):
    """All candidates that may be picked.

    Row r is the same item in everything, and the order of rows depends on the seed and the items' ids alone, not on how
    the candidates came: they are sorted by their draws, so the first of equals is a fair draw. Vectors may lie on the
    device, in memory, or with the index server: `blocks` is one pass over all of them, `at` fetches a few.
    """

    @property
    def problem(self) -> Problem:
        """The task and its classes."""

    @property
    def device(self) -> torch.device:
        """Where everything is computed."""

    @property
    def seed(self) -> int:
        """Of whatever the strategy draws."""

    @property
    def labelled(self) -> LabelledView:
        """The labelled set."""

    @property
    def draws(self) -> NDArray[np.float64]:
        """(n,) in [0, 1), ascending: a function of the seed and the item's id alone."""

    def __len__(self) -> int: ...

    def blocks(self) -> Iterator[tuple[slice, ScoringContext]]:
        """Yield all candidates in blocks of consecutive rows, float32. Raises Cancelled when the caller has left."""

    def at(self, rows: NDArray[np.int64]) -> ScoringContext:
        """Return the candidates in `rows` (r,), in that order, float32. Raises Cancelled when the caller has left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What a strategy picked: `rows` (b,) of the view, distinct, in the order picked, and their scores (b,), finite."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]


@runtime_checkable
class BatchStrategy(Protocol):
    """Picks a batch as a whole, because what one pick is worth depends on the others."""

    @property
    def needs(self) -> AbstractSet[Need]:
        """What it asks for."""

    def pick(self, view: CandidateView, count: int) -> Batch:
        """Return min(count, n) picks. A function of the view's content, its seed and `count` alone."""


QueryStrategy = ScoringStrategy | BatchStrategy
