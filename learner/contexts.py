"""Candidates and labelled items as strategies see them; the ports are in learner.ports."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from learner.draws import Keys, draws_of
from learner.ports import Classifier, Inputs, LabelledView, ScoringContext
from learner.problem import Problem, Targets
from sealpool.errors import FailedPrecondition


def in_unit_interval(draws: Keys) -> NDArray[np.float64]:
    """Turn 64-bit draws into float64 in [0, 1), keeping their order."""
    return (draws >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True, kw_only=True, slots=True)
class Lens:
    """What is the same for all candidates of one Select.

    Parameters
    ----------
    classifier
        None before there are labels to train one on.
    labelled
        None where the strategy does not ask for it.
    direction
        (d,), where the strategy asks for one.
    """

    problem: Problem
    classifier: Classifier | None
    labelled: LabelledView | None
    direction: NDArray[np.float32] | NDArray[np.float64] | None
    device: torch.device
    seed: int

    @property
    def reads_text(self) -> bool:
        """Whether the model does."""
        return self.classifier is not None and self.classifier.needs_text

    @property
    def model(self) -> Classifier:
        """The model, for a strategy that needs one."""
        if self.classifier is None:
            raise AssertionError("a strategy that does not need a model asked for it")
        return self.classifier


def make_context(
    lens: Lens,
    vectors: Callable[[], torch.Tensor],
    *,
    texts: Sequence[str] | None,
    inverse_lengths: NDArray[np.float32],
    keys: Keys,
) -> ScoringContext:
    """Return the context of some candidates.

    Parameters
    ----------
    vectors
        Fetches (n, d), when they are first asked for.
    texts
        (n), where the model reads texts.
    inverse_lengths, keys
        (n,), as `Candidates` has them.
    """
    return _Context(lens, vectors, texts, inverse_lengths, keys)


class _Context:
    def __init__(
        self,
        lens: Lens,
        vectors: Callable[[], torch.Tensor],
        texts: Sequence[str] | None,
        inverse_lengths: NDArray[np.float32],
        keys: Keys,
    ) -> None:
        self.problem = lens.problem
        self._lens = lens
        self._vectors = vectors
        self._texts = texts
        self._inverse_lengths = inverse_lengths
        self._keys = keys

    @property
    def labelled(self) -> LabelledView:
        if self._lens.labelled is None:
            raise AssertionError("a strategy that does not need labelled items asked for them")
        return self._lens.labelled

    @cached_property
    def vectors(self) -> torch.Tensor:
        return self._vectors()

    @cached_property
    def _inputs(self) -> Inputs:
        return Inputs(vectors=self.vectors, texts=self._texts)

    @cached_property
    def probabilities(self) -> torch.Tensor:
        return self._lens.model.predict_proba(self._inputs)

    @cached_property
    def samples(self) -> torch.Tensor:
        return self._lens.model.sample_proba(self._inputs, seed=self._lens.seed)

    @cached_property
    def features(self) -> torch.Tensor:
        return self._lens.model.features(self._inputs)

    @cached_property
    def inverse_lengths(self) -> torch.Tensor:
        return torch.from_numpy(self._inverse_lengths).to(self.vectors)

    @cached_property
    def direction(self) -> torch.Tensor | None:
        direction = self._lens.direction
        return None if direction is None else torch.from_numpy(direction).to(self.vectors)

    @cached_property
    def draws(self) -> torch.Tensor:
        return torch.from_numpy(in_unit_interval(draws_of(self._keys, self._lens.seed))).to(self._lens.device)

    def predict(self, vectors: torch.Tensor) -> torch.Tensor:
        if self._lens.reads_text:
            raise FailedPrecondition(
                "drop_query changes vectors, and the model reads texts", field="header.strategy.name"
            )
        return self._lens.model.predict_proba(Inputs(vectors=vectors))


def make_labelled(
    vectors: torch.Tensor, targets: Targets, *, texts: Sequence[str] | None, classifier: Classifier | None
) -> LabelledView:
    """Return the view of labelled items: `vectors` (m, d), and `texts` (m) where the model reads texts."""
    return _Labelled(vectors, targets, texts, classifier)


class _Labelled:
    def __init__(
        self, vectors: torch.Tensor, targets: Targets, texts: Sequence[str] | None, classifier: Classifier | None
    ) -> None:
        self.vectors = vectors
        self.targets = targets
        self._inputs = Inputs(vectors=vectors, texts=texts)
        self._classifier = classifier

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def probabilities(self) -> torch.Tensor:
        return self._model.predict_proba(self._inputs)

    @cached_property
    def features(self) -> torch.Tensor:
        return self._model.features(self._inputs)

    @property
    def _model(self) -> Classifier:
        if self._classifier is None:
            raise AssertionError("a strategy that does not need a model asked for it")
        return self._classifier
