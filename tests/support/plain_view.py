"""What a strategy sees, as plain tensors: candidates and labelled items in memory, a model given as functions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from learner.problem import Problem, Targets

Model = Callable[[torch.Tensor], torch.Tensor]
"""From vectors (n, d) to what the model says of them."""


@dataclass(frozen=True, kw_only=True)
class PlainLabelled:
    """A learner.ports.LabelledView."""

    vectors: torch.Tensor
    targets: Targets
    probabilities: torch.Tensor = field(default_factory=lambda: torch.empty(0, 0))
    features: torch.Tensor = field(default_factory=lambda: torch.empty(0, 0))

    def __len__(self) -> int:
        return len(self.vectors)


def no_labelled(problem: Problem, dimension: int) -> PlainLabelled:
    shape = (0, len(problem.classes)) if problem.multilabel else (0,)
    targets = np.zeros(shape, np.bool_ if problem.multilabel else np.int64)
    empty = torch.empty(0, len(problem.classes))
    return PlainLabelled(
        vectors=torch.empty(0, dimension), targets=targets, probabilities=empty, features=torch.empty(0, dimension)
    )


@dataclass(kw_only=True)
class PlainContext:
    """A learner.ports.ScoringContext. `model` serves `predict`; `samples` (K, n, c); features default to vectors."""

    problem: Problem
    probabilities: torch.Tensor
    vectors: torch.Tensor
    draws: torch.Tensor
    direction: torch.Tensor | None = None
    labelled: PlainLabelled | None = None
    samples: torch.Tensor | None = None
    features: torch.Tensor | None = None
    model: Model | None = None

    def __post_init__(self) -> None:
        if self.labelled is None:
            self.labelled = no_labelled(self.problem, self.vectors.shape[1])
        if self.features is None:
            self.features = self.vectors

    @cached_property
    def inverse_lengths(self) -> torch.Tensor:
        lengths = self.vectors.norm(dim=1)
        return torch.where(lengths > 0, 1 / lengths.clamp_min(1e-30), torch.zeros_like(lengths))

    def predict(self, vectors: torch.Tensor) -> torch.Tensor:
        assert self.model is not None, "this test gave no model"
        return self.model(vectors)

    def rows(self, rows: slice | NDArray[np.int64]) -> "PlainContext":
        """Return the context of some of the items."""
        place = rows if isinstance(rows, slice) else torch.from_numpy(rows)
        return replace(
            self,
            probabilities=self.probabilities[place],
            vectors=self.vectors[place],
            draws=self.draws[place],
            samples=None if self.samples is None else self.samples[:, place],
            features=None if self.features is None else self.features[place],
        )


@dataclass(kw_only=True)
class PlainView:
    """A learner.ports.CandidateView over a context of all candidates, which are taken to be in the order of draws."""

    context: PlainContext
    seed: int = 0
    block_rows: int = 7

    @property
    def problem(self) -> Problem:
        return self.context.problem

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def labelled(self) -> PlainLabelled:
        assert self.context.labelled is not None
        return self.context.labelled

    @property
    def draws(self) -> NDArray[np.float64]:
        return self.context.draws.numpy()

    def __len__(self) -> int:
        return len(self.context.vectors)

    def blocks(self) -> Iterator[tuple[slice, PlainContext]]:
        for start in range(0, len(self), self.block_rows):
            rows = slice(start, min(start + self.block_rows, len(self)))
            yield rows, self.context.rows(rows)

    def at(self, rows: NDArray[np.int64]) -> PlainContext:
        return self.context.rows(rows)
