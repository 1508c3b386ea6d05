"""The picks belong to items, model and seed: not to the noise of float32, the order of the cache or the batches."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from learner.candidates import Candidates
from learner.device import Mirror
from learner.models import make_classifier
from learner.ports import Classifier, ModelOptions, StrategyOptions
from learner.problem import Problem, Task
from learner.scoring import ScoredItem, Scorer
from learner.strategies import STRATEGIES, make_strategy
from sealpool.errors import FailedPrecondition
from sealpool.types import ItemId, Items
from sealpool.v1 import common_pb2
from tests.support.fake_index import FakeUpdate

CPU = torch.device("cpu")
PROBLEM = Problem(task=Task.MULTICLASS, classes=("a", "b", "c"))


def candidates_of(vectors: NDArray[np.float32], order: NDArray[np.int64]) -> Candidates:
    candidates = Candidates()
    candidates.apply(
        FakeUpdate(
            added=Items(ids=[ItemId(f"item-{number}") for number in order], vectors=vectors[order]),
            removed=[],
            info=common_pb2.CandidatePoolInfo(version=1),
            base_version=0,
            pool_direction=np.zeros(vectors.shape[1], np.float32),
            pool_version=1,
        )
    )
    return candidates


def pick(candidates: Candidates, classifier: Classifier, name: str, *, batch_rows: int = 1000) -> list[ScoredItem]:
    strategy = make_strategy(StrategyOptions(name=name, positive_class="b"), PROBLEM)
    scorer = Scorer(
        problem=PROBLEM,
        classifier=classifier,
        strategy=strategy,
        direction=candidates.direction if strategy.density_over else None,
        device=CPU,
        batch_rows=batch_rows,
        seed=7,
    )
    nothing = np.empty(0, np.int64)
    mirror = Mirror(CPU, limit_bytes=0)
    return scorer.pick(candidates, mirror, count=40, barred=nothing, cancelled=lambda: False)


class NoisyModel:
    """A model whose last bits depend on a row's place in the batch, as those of a matrix product do, only surely."""

    def __init__(self, weights: NDArray[np.float32]) -> None:
        self._weights = torch.from_numpy(weights)

    def predict_proba(self, vectors: torch.Tensor) -> torch.Tensor:
        noise = 4 * torch.finfo(vectors.dtype).eps * torch.sin(torch.arange(len(vectors)).double())
        z = vectors.double() @ self._weights.double()
        return torch.softmax(z * (1 + noise[:, None]), dim=1).to(vectors.dtype)


@pytest.mark.parametrize("sharpness", [1, 12, 40])
@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_noise_order_and_batches_change_no_pick(name: str, sharpness: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(8):
        vectors = rng.normal(size=(600, 5)).astype(np.float32)
        vectors[::3] = vectors[0]  # repeats: only a draw tells them apart
        model: Classifier = NoisyModel((rng.normal(size=(5, 3)) * sharpness).astype(np.float32))  # type: ignore[assignment]
        expected = pick(candidates_of(vectors, np.arange(600)), model, name)
        assert len({item.id for item in expected}) == 40
        for batch_rows in (1000, 170):
            other = pick(candidates_of(vectors, rng.permutation(600)), model, name, batch_rows=batch_rows)
            assert other == expected


def test_random_draws_without_asking_the_model() -> None:
    class Absent:
        def predict_proba(self, vectors: torch.Tensor) -> torch.Tensor:
            raise AssertionError("the model was asked")

    vectors = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32)
    picks = pick(candidates_of(vectors, np.arange(90)), Absent(), "random")  # type: ignore[arg-type]
    assert len(picks) == 40


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_a_class_without_a_label_spoils_no_score(name: str) -> None:
    model = make_classifier(ModelOptions(), PROBLEM)
    weights = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    model.load({"weights": weights, "bias": np.array([0, -np.inf, 1], np.float32)}, device=CPU)
    vectors = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32)
    picks = pick(candidates_of(vectors, np.arange(90)), model, name)
    assert len(picks) == 40
    assert np.isfinite([item.score for item in picks]).all()


def test_vectors_beyond_the_model_are_refused() -> None:
    model = make_classifier(ModelOptions(), PROBLEM)
    model.load({"weights": np.full((5, 3), 10, np.float32), "bias": np.zeros(3, np.float32)}, device=CPU)
    vectors = np.full((50, 5), 3e38, np.float32)
    with pytest.raises(FailedPrecondition, match="overflows"):
        pick(candidates_of(vectors, np.arange(50)), model, "entropy")
