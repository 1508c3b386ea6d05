"""The picks belong to items, model and seed: not to the noise of float32, the order of the cache or the batches."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from learner.models import make_classifier
from learner.options import ModelOptions, StrategyOptions
from learner.ports import BatchStrategy, Classifier, Inputs
from learner.problem import Problem, Task
from learner.scoring import ScoredItem, Scorer
from learner.sources import CandidateSource
from learner.strategies import make_strategy
from sealpool.errors import FailedPrecondition
from sealpool.vocabulary.strategies import STRATEGIES, Need
from tests.support.candidate_sources import labelled_of, lens_of, source_of

CPU = torch.device("cpu")
PROBLEM = Problem(task=Task.MULTICLASS, classes=("a", "b", "c"))
FROM_PROBABILITIES = sorted(
    name
    for name, entry in STRATEGIES.items()
    if entry.per_item
    and "multiclass" in entry.tasks
    and not entry.needs & {Need.SAMPLES, Need.LABELLED}
    and name != "expected_gradient_length"
)
"""Strategies that look at probabilities, vectors and draws alone."""


def pick(source: CandidateSource, classifier: Classifier, name: str, *, batch_rows: int = 1000) -> list[ScoredItem]:
    positive = "b" if name == "most_likely_positive" else ""
    strategy = make_strategy(StrategyOptions(name=name, positive_class=positive), PROBLEM)
    assert not isinstance(strategy, BatchStrategy)
    direction = source.candidates.direction if strategy.density_over else None
    labelled = labelled_of(PROBLEM, classifier, 5, 9)
    scorer = Scorer(
        lens=lens_of(PROBLEM, classifier, labelled=labelled, direction=direction),
        strategy=strategy,
        batch_rows=batch_rows,
    )
    return scorer.pick(source, count=40, barred=np.empty(0, np.int64), cancelled=lambda: False)


class NoisyModel:
    """A model whose last bits depend on a row's place in the batch, as those of a matrix product do, only surely."""

    needs_text = False

    def __init__(self, weights: NDArray[np.float32]) -> None:
        self._weights = torch.from_numpy(weights)

    def predict_proba(self, inputs: Inputs) -> torch.Tensor:
        vectors = inputs.vectors
        noise = 4 * torch.finfo(vectors.dtype).eps * torch.sin(torch.arange(len(vectors)).double())
        z = vectors.double() @ self._weights.double()
        return torch.softmax(z * (1 + noise[:, None]), dim=1).to(vectors.dtype)


@pytest.mark.parametrize("sharpness", [1, 12, 40])
@pytest.mark.parametrize("name", FROM_PROBABILITIES)
def test_noise_order_and_batches_change_no_pick(name: str, sharpness: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(8):
        vectors = rng.normal(size=(600, 5)).astype(np.float32)
        vectors[::3] = vectors[0]  # repeats: only a draw tells them apart
        model: Classifier = NoisyModel((rng.normal(size=(5, 3)) * sharpness).astype(np.float32))  # type: ignore[assignment]
        expected = pick(source_of(vectors), model, name)
        assert len({item.id for item in expected}) == 40
        for batch_rows in (1000, 170):
            other = pick(source_of(vectors, rng.permutation(600)), model, name, batch_rows=batch_rows)
            assert other == expected


def test_random_draws_without_asking_the_model() -> None:
    class Absent:
        needs_text = False

        def predict_proba(self, inputs: Inputs) -> torch.Tensor:
            raise AssertionError("the model was asked")

    vectors = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32)
    picks = pick(source_of(vectors), Absent(), "random")  # type: ignore[arg-type]
    assert len(picks) == 40


@pytest.mark.parametrize("name", FROM_PROBABILITIES)
def test_a_class_without_a_label_spoils_no_score(name: str) -> None:
    model = make_classifier(ModelOptions(), PROBLEM)
    weights = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    model.load({"weights": weights, "bias": np.array([0, -np.inf, 1], np.float32)}, device=CPU)
    vectors = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32)
    picks = pick(source_of(vectors), model, name)
    assert len(picks) == 40
    assert np.isfinite([item.score for item in picks]).all()


def test_vectors_beyond_the_model_are_refused() -> None:
    model = make_classifier(ModelOptions(), PROBLEM)
    model.load({"weights": np.full((5, 3), 10, np.float32), "bias": np.zeros(3, np.float32)}, device=CPU)
    vectors = np.full((50, 5), 3e38, np.float32)
    with pytest.raises(FailedPrecondition, match="overflows"):
        pick(source_of(vectors), model, "entropy")
