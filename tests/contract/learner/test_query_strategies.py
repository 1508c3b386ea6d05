"""What every query strategy promises, whatever it goes by."""

import numpy as np
import pytest
from numpy.typing import NDArray

from learner.options import StrategyOptions
from learner.ports import BatchStrategy, Classifier
from learner.problem import Problem, Task
from learner.scoring import BatchPicker, ScoredItem, Scorer
from learner.sources import CandidateSource
from learner.strategies import REGISTERED, make_strategy
from sealpool.errors import Cancelled, InvalidArgument
from sealpool.vocabulary.strategies import STRATEGIES, Need, resolve_strategy
from tests.support.candidate_sources import labelled_of, lens_of, linear_model, numbered, source_of

PROBLEMS = {
    "binary": Problem(task=Task.BINARY, classes=("no", "yes")),
    "multiclass": Problem(task=Task.MULTICLASS, classes=("a", "b", "c", "d")),
    "multilabel": Problem(task=Task.MULTILABEL, classes=("a", "b", "c")),
}
CASES = [
    (name, task)
    for name, entry in sorted(STRATEGIES.items())
    for task in PROBLEMS
    if task in entry.tasks and name != "auto"
]
NOTHING = np.empty(0, np.int64)
DIMENSION = 6


def vectors_of(count: int, *, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(5, DIMENSION)) * 2
    return (centres[rng.integers(0, 5, count)] + rng.normal(size=(count, DIMENSION))).astype(np.float32)


def pick(
    name: str,
    problem: Problem,
    source: CandidateSource,
    count: int,
    *,
    labelled: int = 12,
    barred: NDArray[np.int64] = NOTHING,
    classifier: Classifier | None = None,
    rows: int = 1000,
    cancelled: bool = False,
    seed: int = 7,
) -> list[ScoredItem]:
    has = STRATEGIES[name].options
    options = StrategyOptions(name=name, positive_class=problem.classes[1] if "positive_class" in has else "")
    strategy = make_strategy(options, problem)
    model = classifier or linear_model(problem, DIMENSION)
    direction = vectors_of(50, seed=9).mean(axis=0).astype(np.float64)
    lens = lens_of(
        problem, model, labelled=labelled_of(problem, model, DIMENSION, labelled), direction=direction, seed=seed
    )
    if isinstance(strategy, BatchStrategy):
        picker = BatchPicker(lens=lens, strategy=strategy, batch_rows=rows)
        return picker.pick(source, count=count, barred=barred, cancelled=lambda: cancelled)
    scorer = Scorer(lens=lens, strategy=strategy, batch_rows=rows)
    return scorer.pick(source, count=count, barred=barred, cancelled=lambda: cancelled)


def ids_of(picks: list[ScoredItem]) -> list[str]:
    return [item.id for item in picks]


def test_the_registry_holds_just_what_the_vocabulary_names() -> None:
    assert STRATEGIES.keys() == REGISTERED


@pytest.mark.parametrize(("name", "task"), CASES)
class TestEveryStrategy:
    def test_needs_what_the_vocabulary_says(self, name: str, task: str) -> None:
        entry, problem = STRATEGIES[name], PROBLEMS[task]
        positive = problem.classes[1] if "positive_class" in entry.options else ""
        strategy = make_strategy(StrategyOptions(name=name, positive_class=positive), problem)
        assert strategy.needs == entry.needs
        assert isinstance(strategy, BatchStrategy) is not entry.per_item

    @pytest.mark.parametrize("labelled", [0, 1, 12])
    def test_picks_as_many_as_asked_or_all_there_are_each_once(self, name: str, task: str, labelled: int) -> None:
        problem = PROBLEMS[task]
        for size, count in ((0, 3), (1, 1), (1, 3), (40, 7), (9, 9), (5, 20)):
            picks = pick(name, problem, source_of(vectors_of(size)), count, labelled=labelled)
            assert len(picks) == min(size, count)
            assert len(set(ids_of(picks))) == len(picks)
            assert np.isfinite([item.score for item in picks]).all()

    def test_never_picks_what_is_barred(self, name: str, task: str) -> None:
        source = source_of(vectors_of(40))
        problem = PROBLEMS[task]
        first = pick(name, problem, source, 6)
        barred = source.candidates.slots_of([item.id for item in first])
        again = pick(name, problem, source, 40, barred=barred)
        assert sorted(ids_of(again)) == sorted(set(numbered(range(40))) - set(ids_of(first)))

    def test_picks_the_same_whatever_the_order_of_the_cache_and_its_blocks(self, name: str, task: str) -> None:
        problem, vectors = PROBLEMS[task], vectors_of(90)
        vectors[::4] = vectors[0]  # repeats: only a draw tells them apart
        expected = ids_of(pick(name, problem, source_of(vectors), 10))
        for seed in (1, 2):
            order = np.random.default_rng(seed).permutation(90)
            assert ids_of(pick(name, problem, source_of(vectors, order), 10, rows=17 * seed)) == expected
        streamed = source_of(vectors, limit_bytes=100)
        assert streamed.candidates.streamed
        assert ids_of(pick(name, problem, streamed, 10)) == expected

    def test_takes_items_that_are_all_alike_and_vectors_of_zeros(self, name: str, task: str) -> None:
        problem = PROBLEMS[task]
        for vectors in (np.ones((30, DIMENSION), np.float32), np.zeros((30, DIMENSION), np.float32)):
            picks = pick(name, problem, source_of(vectors), 8)
            assert len(set(ids_of(picks))) == 8
            assert np.isfinite([item.score for item in picks]).all()
            other = pick(name, problem, source_of(vectors), 8, seed=8)
            assert ids_of(other) != ids_of(picks)  # a draw decides, not a place

    def test_takes_a_model_that_is_sure_of_one_class(self, name: str, task: str) -> None:
        problem = PROBLEMS[task]
        sure = linear_model(problem, DIMENSION, sharpness=400)
        picks = pick(name, problem, source_of(vectors_of(40)), 8, classifier=sure)
        assert len(set(ids_of(picks))) == 8
        assert np.isfinite([item.score for item in picks]).all()

    def test_stops_when_the_caller_has_left(self, name: str, task: str) -> None:
        with pytest.raises(Cancelled):
            pick(name, PROBLEMS[task], source_of(vectors_of(40)), 8, cancelled=True)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_a_name_and_its_aliases_are_found_in_any_spelling(name: str) -> None:
    entry = STRATEGIES[name]
    for spelling in (name, name.upper(), "".join(word.title() for word in name.split("_")), *entry.aliases):
        assert resolve_strategy(spelling) == name


def test_no_alias_means_two_things() -> None:
    spelled = [
        alias.lower().replace("_", "") for entry in STRATEGIES.values() for alias in (entry.name, *entry.aliases)
    ]
    owners = {spelling: resolve_strategy(spelling) for spelling in spelled}
    for entry in STRATEGIES.values():
        assert {owners[alias.lower().replace("_", "")] for alias in (entry.name, *entry.aliases)} == {entry.name}


def test_options_that_a_strategy_does_not_have_are_refused_by_name() -> None:
    for options, field in (
        (StrategyOptions(name="margin", radius=0.5), "radius"),
        (StrategyOptions(name="k_center", base="margin"), "base"),
        (StrategyOptions(name="information_density", base="badge"), "base"),
        (StrategyOptions(name="information_density", base="power_bald"), "base"),
        (StrategyOptions(name="information_density", beta=float("nan")), "beta"),
        (StrategyOptions(name="never_heard_of"), "name"),
        (StrategyOptions(name="cvirs"), "name"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            make_strategy(options, PROBLEMS["multiclass"])
        assert refused.value.message.startswith(f"header.strategy.{field}:")


def test_a_composition_needs_what_its_base_needs() -> None:
    for name in ("information_density", "stochastic_top_k"):
        strategy = make_strategy(StrategyOptions(name=name, base="bald"), PROBLEMS["multiclass"])
        assert Need.SAMPLES in strategy.needs
        assert make_strategy(StrategyOptions(name=name, base="cal"), PROBLEMS["multiclass"]).needs >= {Need.LABELLED}
