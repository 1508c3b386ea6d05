"""What every model and every strategy of the registries promises."""

import numpy as np
import pytest
import torch

from learner.models import MODELS, make_classifier
from learner.ports import Classifier, ModelOptions, StrategyOptions, TrainingSet
from learner.problem import Problem, Task
from learner.strategies import STRATEGIES, make_strategy
from sealpool.errors import Cancelled, FailedPrecondition
from tests.support.scoring_context import PlainContext

CPU = torch.device("cpu")
PROBLEMS = [
    Problem(task=Task.BINARY, classes=("no", "yes")),
    Problem(task=Task.MULTICLASS, classes=("a", "b", "c", "unseen")),
    Problem(task=Task.MULTILABEL, classes=("a", "b", "never")),
]


def training_set(problem: Problem) -> TrainingSet:
    vectors = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    if problem.multilabel:
        return TrainingSet(
            vectors=vectors, targets=np.stack([vectors[:, 0] > 0, vectors[:, 1] > 0, vectors[:, 0] > 99], 1)
        )
    classes = 2 if problem.task is Task.BINARY else 3
    return TrainingSet(vectors=vectors, targets=(np.arange(60) % classes).astype(np.int64))


def fitted(name: str, problem: Problem) -> Classifier:
    classifier = make_classifier(ModelOptions(name=name), problem)
    classifier.fit(training_set(problem), seed=3, device=CPU, progress=lambda *_: None, cancelled=lambda: False)
    return classifier


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.task.value)
@pytest.mark.parametrize("name", sorted(MODELS))
class TestEveryModel:
    def test_gives_finite_probabilities_for_every_class(self, name: str, problem: Problem) -> None:
        p = fitted(name, problem).predict_proba(torch.randn(9, 6) * 10)
        assert (p.shape, p.dtype) == ((9, len(problem.classes)), torch.float32)
        assert bool(((p >= 0) & (p <= 1)).all())
        if not problem.multilabel:
            assert torch.allclose(p.sum(dim=1), torch.ones(9), atol=1e-5)
        assert bool((p[:, -1] < 0.1).all()) or problem.task is Task.BINARY  # nothing was labelled with it

    def test_is_the_same_after_another_fit_and_after_save_and_load(self, name: str, problem: Problem) -> None:
        vectors = torch.randn(9, 6)
        first, again = fitted(name, problem), make_classifier(ModelOptions(name=name), problem)
        again.load(first.save(), device=CPU)
        for other in (again, fitted(name, problem)):
            assert torch.equal(first.predict_proba(vectors), other.predict_proba(vectors))

    def test_predicts_in_the_precision_of_the_vectors(self, name: str, problem: Problem) -> None:
        model, vectors = fitted(name, problem), torch.randn(9, 6)
        precise = model.predict_proba(vectors.double())
        assert precise.dtype == torch.float64
        assert torch.allclose(precise.float(), model.predict_proba(vectors), atol=1e-6)
        assert not torch.equal(precise, model.predict_proba(vectors).double())

    def test_refuses_arrays_of_another_model(self, name: str, problem: Problem) -> None:
        other = Problem(task=Task.MULTICLASS, classes=tuple("abcdefgh"))
        arrays = make_classifier(ModelOptions(name=name), other).save()
        for wrong in ({}, arrays):
            with pytest.raises((KeyError, ValueError)):
                make_classifier(ModelOptions(name=name), problem).load(wrong, device=CPU)

    def test_needs_two_classes_and_a_caller(self, name: str, problem: Problem) -> None:
        options = {"seed": 0, "device": CPU, "progress": lambda *_: None}
        whole = training_set(problem)
        one = TrainingSet(vectors=whole.vectors, targets=np.zeros_like(whole.targets))
        with pytest.raises(FailedPrecondition):
            make_classifier(ModelOptions(name=name), problem).fit(one, cancelled=lambda: False, **options)
        with pytest.raises(Cancelled):
            make_classifier(ModelOptions(name=name), problem).fit(whole, cancelled=lambda: True, **options)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.task.value)
@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_scores_any_number_of_items_and_says_what_it_is(name: str, problem: Problem) -> None:
    strategy = make_strategy(StrategyOptions(name=name, positive_class=problem.classes[1]), problem)
    for count in (0, 1, 5):
        scores = strategy.score(
            PlainContext(
                problem=problem,
                probabilities=torch.full((count, len(problem.classes)), 1 / len(problem.classes)),
                vectors=torch.ones(count, 4),
                inverse_lengths=torch.full((count,), 0.5),
                direction=torch.ones(4) / 2,
                draws=torch.rand(count, dtype=torch.float64),
            )
        )
        assert scores.shape == (count,)
        assert scores.is_floating_point()
