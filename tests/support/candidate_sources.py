"""Candidates as the learner holds them, and a model that needs no training."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from learner.candidates import Candidates
from learner.contexts import Lens, make_labelled
from learner.device import Mirror
from learner.ports import Classifier, Inputs, LabelledView
from learner.problem import Problem, Task
from learner.sources import CandidateSource
from sealpool.types import ItemId, Items, Payload
from sealpool.v1 import common_pb2
from tests.support.fake_index import FakeUpdate

CPU = torch.device("cpu")


def numbered(numbers: Sequence[int] | NDArray[np.int64]) -> list[ItemId]:
    return [ItemId(f"item-{number}") for number in numbers]


def update_of(vectors: NDArray[np.float32], order: NDArray[np.int64], texts: Sequence[str] | None = None) -> FakeUpdate:
    payloads = None if texts is None else [Payload(text=texts[number]) for number in order]
    return FakeUpdate(
        added=Items(ids=numbered(order), vectors=vectors[order], payloads=payloads),
        removed=[],
        info=common_pb2.CandidatePoolInfo(version=1),
        base_version=0,
        pool_direction=np.zeros(vectors.shape[1], np.float32),
        pool_version=1,
    )


def source_of(
    vectors: NDArray[np.float32],
    order: NDArray[np.int64] | None = None,
    *,
    texts: Sequence[str] | None = None,
    limit_bytes: int | None = None,
    lost: frozenset[ItemId] = frozenset(),
) -> CandidateSource:
    """Return candidates "item-0", "item-1" … that came in `order`; past `limit_bytes` they are read from `vectors`."""
    order = np.arange(len(vectors)) if order is None else order
    candidates = Candidates(with_texts=texts is not None, limit_bytes=limit_bytes)
    candidates.apply(update_of(vectors, order, texts))

    def read(ids: Sequence[ItemId]) -> Items:
        left = [item_id for item_id in ids if item_id not in lost]
        rows = [int(item_id.removeprefix("item-")) for item_id in left]
        return Items(ids=left, vectors=vectors[rows])

    return CandidateSource(candidates=candidates, mirror=Mirror(CPU, limit_bytes=0), read=read, device=CPU)


def lens_of(
    problem: Problem,
    classifier: Classifier | None,
    *,
    labelled: LabelledView | None = None,
    direction: NDArray[np.float64] | None = None,
    seed: int = 7,
) -> Lens:
    return Lens(problem=problem, classifier=classifier, labelled=labelled, direction=direction, device=CPU, seed=seed)


class LinearModel:
    """A learner.ports.Classifier with weights (d, c) as they are given; its posterior samples shake them a little."""

    def __init__(self, problem: Problem, weights: NDArray[np.float32], *, samples: int = 6) -> None:
        self.problem = problem
        self.weights = torch.from_numpy(weights)
        self.samples = samples
        self.needs_text = False

    def predict_proba(self, inputs: Inputs) -> torch.Tensor:
        return self._squash(inputs.vectors @ self.weights.to(inputs.vectors.dtype))

    def sample_proba(self, inputs: Inputs, *, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        shaken = self.weights * (1 + 0.5 * torch.randn(self.samples, *self.weights.shape, generator=generator))
        return torch.stack([self._squash(inputs.vectors @ one.to(inputs.vectors.dtype)) for one in shaken])

    def features(self, inputs: Inputs) -> torch.Tensor:
        return inputs.vectors

    def _squash(self, z: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(z) if self.problem.multilabel else torch.softmax(z, dim=1)

    def fit(self, *arguments: object, **options: object) -> None:
        raise AssertionError("made fitted")

    def save(self) -> Mapping[str, NDArray[np.generic]]:
        raise AssertionError("never kept")

    def load(self, *arguments: object, **options: object) -> None:
        raise AssertionError("never kept")


def linear_model(problem: Problem, dimension: int, *, sharpness: float = 1.0, seed: int = 3) -> Classifier:
    weights = np.random.default_rng(seed).normal(size=(dimension, len(problem.classes))) * sharpness
    return LinearModel(problem, weights.astype(np.float32))  # type: ignore[return-value]


def labelled_of(
    problem: Problem, classifier: Classifier | None, dimension: int, count: int, *, seed: int = 5
) -> LabelledView:
    """Return `count` labelled items near those that candidates are drawn from."""
    rng = np.random.default_rng(seed)
    vectors = torch.from_numpy(rng.normal(size=(count, dimension)).astype(np.float32))
    if problem.task is Task.MULTILABEL:
        targets = rng.random((count, len(problem.classes))) < 0.3
    else:
        targets = rng.integers(0, len(problem.classes), count)
    return make_labelled(vectors, targets, texts=None, classifier=classifier)
