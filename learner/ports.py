"""What the learner's rooms ask of what can be exchanged: models, query strategies, and the index server."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from learner.problem import Problem, Targets
from sealpool.types import ItemId, Items, Vectors
from sealpool.v1 import common_pb2, index_pb2

Progress = Callable[[int, float], None]
"""Told (iteration, mean loss an example) while a model is fitted. Cheap; called from the fitting thread."""

CancelCheck = Callable[[], bool]
"""Whether the caller has left. Asked at least once an iteration, from the fitting thread."""

Arrays = Mapping[str, NDArray[np.generic]]
"""What a fitted model is made of, by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOptions:
    """A model and how it is trained; zeros mean the model's default."""

    name: str = "logistic_regression"
    l2: float = 0.0
    max_iterations: int = 0
    balanced: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSet:
    """What a model is fitted to.

    Parameters
    ----------
    vectors
        (n, d) float32, finite.
    targets
        (n,) int64, or (n, c) bool for multi-label.
    weights
        (n,) float32, how much each item counts, beside the class weights; None means 1 each.
    """

    vectors: Vectors
    targets: Targets
    weights: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True, kw_only=True, slots=True)
class FitReport:
    """How fitting went. `loss` is the mean an example, penalty included."""

    iterations: int
    loss: float


class Classifier(Protocol):
    """A model of one problem. Made unfitted; one thread at a time fits, any number predict after that."""

    def fit(
        self, training: TrainingSet, *, seed: int, device: torch.device, progress: Progress, cancelled: CancelCheck
    ) -> FitReport:
        """Fit from scratch. Same training set, seed and device kind: same model.

        Raises
        ------
        FailedPrecondition
            Fewer than two classes among the targets (multi-label: no class with a positive and a negative), or the
            numbers overflow.
        Cancelled
            `cancelled` said so.
        """

    def predict_proba(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return (n, c) probabilities of vectors (n, d) on the model's device, float32 or float64 as they are.

        Rows sum to 1, except for multi-label, where each entry is a probability of its own. Never NaN for finite
        vectors of usual size.
        """

    def save(self) -> dict[str, NDArray[np.generic]]:
        """Return what `load` needs to make the same model again."""

    def load(self, arrays: Arrays, *, device: torch.device) -> None:
        """Become the model that was saved. Raises KeyError or ValueError where `arrays` are not of this model."""


class DensityOver(Enum):
    """The set P whose mean direction information density takes."""

    CANDIDATES = "candidates"
    POOL = "pool"


@dataclass(frozen=True, kw_only=True, slots=True)
class StrategyOptions:
    """A query strategy and its parameters."""

    name: str = "entropy"
    base: str = "entropy"
    beta: float = 1.0
    density_over: DensityOver = DensityOver.CANDIDATES
    positive_class: str = ""


class ScoringContext(Protocol):
    """Some candidates as a strategy sees them; row i of everything is the same item.

    What a strategy does not ask for is not computed: one that leaves `probabilities` alone never runs the model. All is
    float32 where many candidates are looked through, and float64 where the best of them are put in order.
    """

    @property
    def problem(self) -> Problem:
        """The task and its classes."""

    @property
    def probabilities(self) -> torch.Tensor:
        """(n, c) of the model."""

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


class QueryStrategy(Protocol):
    """Says how much each candidate is worth a label. Scores a row by that row alone, so it can be fed in batches."""

    @property
    def density_over(self) -> DensityOver | None:
        """Which mean direction it needs, if one."""

    def score(self, context: ScoringContext) -> torch.Tensor:
        """Return (n,) floats on the context's device; higher is more worth a label."""


class CandidateUpdate(Protocol):
    """What changed in a candidate pool since a version; see sealpool.client.CandidateUpdate."""

    @property
    def added(self) -> Items:
        """Items that came or were replaced."""

    @property
    def removed(self) -> list[ItemId]:
        """Items that left."""

    @property
    def info(self) -> common_pb2.CandidatePoolInfo:
        """The candidate pool now."""

    @property
    def base_version(self) -> int:
        """The version that the difference starts from; 0 voids what was held."""

    @property
    def pool_direction(self) -> NDArray[np.float32]:
        """(d,) mean unit vector of the unlabelled pool."""

    @property
    def pool_version(self) -> int:
        """Version of the pool."""


class Index(Protocol):
    """What the learner asks of the index server. `sealpool.client.IndexClient` is one; errors are sealpool.errors."""

    def get_pool(self, name: str) -> index_pb2.Pool:
        """Return one pool; NotFound if there is none."""

    def get_items(
        self,
        pool: str,
        ids: Sequence[str],
        *,
        vectors: bool = True,
        payloads: bool = False,
        allow_missing: bool = False,
    ) -> Items:
        """Return items in the order of `ids`; unknown ids are NotFound, or left out with `allow_missing`."""

    def scan_items(self, pool: str, *, vectors: bool = True, payloads: bool = False) -> Iterator[Items]:
        """Yield all items in bounded chunks."""

    def sample_items(
        self, pool: str, count: int, *, seed: int, campaign: str = "", exclude: Sequence[str] = ()
    ) -> list[ItemId]:
        """Draw up to `count` items outside the campaign's candidates, its labelled items and `exclude`."""

    def expand_candidates(
        self,
        pool: str,
        campaign: str,
        labelled_ids: Sequence[str],
        *,
        policy: common_pb2.PolicySpec,
        expand_from_ids: Sequence[str] | None = None,
        classes: Sequence[Sequence[int]] = (),
        held_version: int = 0,
        vectors: bool = True,
        payloads: bool = False,
        preview: bool = False,
    ) -> CandidateUpdate:
        """Tell what was labelled, get the difference of the candidate pool; as a `preview`, what it would be.

        A preview may be asked for by many threads at once. `classes` are parallel to `labelled_ids`, or empty.
        """
