"""From a name to the strategy that picks, and to the labelled items that it looks at."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch

from learner.choosing import Chosen, StrategyChooser
from learner.expansion import LabelledSet
from learner.labelled import LabelledReader
from learner.options import DensityOver, StrategyOptions
from learner.ports import Classifier, Inputs
from learner.problem import Problem, Task
from learner.strategies.auto import REPRESENTATION
from learner.vectors import VectorReader
from sealpool.errors import Cancelled, FailedPrecondition, InvalidArgument
from sealpool.types import ItemId
from sealpool.vocabulary.strategies import STRATEGIES, Need
from tests.support.candidate_sources import linear_model
from tests.support.fake_index import FakeIndex

CPU = torch.device("cpu")
PROBLEMS = {
    "binary": Problem(task=Task.BINARY, classes=("a", "b")),
    "multiclass": Problem(task=Task.MULTICLASS, classes=("a", "b", "c")),
    "multilabel": Problem(task=Task.MULTILABEL, classes=("a", "b", "c")),
}
PROBLEM = PROBLEMS["multiclass"]
WITHOUT_MODEL = sorted(name for name, entry in STRATEGIES.items() if Need.MODEL not in entry.needs)


@pytest.fixture
def index() -> FakeIndex:
    """90 items in three clusters; item-<number> is of cluster number % 3."""
    rng = np.random.default_rng(0)
    rows = 3 * np.eye(3)[np.arange(90) % 3] + rng.normal(0, 0.5, (90, 3))
    return FakeIndex({f"item-{number:02}": row.tolist() for number, row in enumerate(rows)})


def labelled_set(numbers: Sequence[int], *, classes: bool = True) -> LabelledSet:
    ids = [ItemId(f"item-{number:02}") for number in numbers]
    told: Mapping[ItemId, tuple[int, ...]] = {
        item_id: (number % 3,) for item_id, number in zip(ids, numbers, strict=True)
    }
    return LabelledSet(expands=dict.fromkeys(ids, True), excluded=[], classes=told if classes else {})


def chooser_of(index: FakeIndex) -> StrategyChooser:
    return StrategyChooser(LabelledReader(reader=VectorReader(index, cache_bytes=0), device=CPU))


def choose(
    index: FakeIndex,
    name: str,
    labelled: LabelledSet,
    *,
    classifier: Classifier | None = None,
    seed: int = 0,
    problem: Problem = PROBLEM,
    cancelled: bool = False,
    **options: object,
) -> Chosen:
    return chooser_of(index).choose(
        StrategyOptions(name=name, **options),  # type: ignore[arg-type]
        problem,
        classifier,
        pool=index.get_pool("pool"),
        labelled=labelled,
        seed=seed,
        cancelled=lambda: cancelled,
    )


def model_of(problem: Problem = PROBLEM) -> Classifier:
    return linear_model(problem, 3)


class ReadsTexts:
    """A model of texts: the share of each class's word in them."""

    needs_text = True

    def predict_proba(self, inputs: Inputs) -> torch.Tensor:
        assert inputs.texts is not None
        counts = torch.tensor([[1 + text.count(word) for word in "abc"] for text in inputs.texts])
        return counts / counts.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("task", sorted(PROBLEMS))
@pytest.mark.parametrize("name", sorted(STRATEGIES.keys() - {"auto"}))
def test_every_strategy_is_found_by_its_aliases_and_sees_what_it_asks_for(
    index: FakeIndex, name: str, task: str
) -> None:
    entry, problem = STRATEGIES[name], PROBLEMS[task]
    if task not in entry.tasks:
        with pytest.raises(InvalidArgument) as refused:
            choose(index, name, labelled_set([]), classifier=model_of(problem), problem=problem)
        assert refused.value.field == "header.strategy.name"
        return
    options = {"positive_class": "b"} if "positive_class" in entry.options else {}
    numbers = [number for number in range(12) if task != "binary" or number % 3 < 2]
    for spelling in (name, name.upper(), *entry.aliases):
        chosen = choose(
            index, spelling, labelled_set(numbers), classifier=model_of(problem), problem=problem, **options
        )
        assert (chosen.name, chosen.reason) == (name, "")
        assert type(chosen.strategy).__name__.lower() == name.replace("_", "")
        looks = bool(entry.needs & {Need.LABELLED, Need.CLASSES})
        assert (chosen.labelled is not None) is looks
        if chosen.labelled is not None:
            assert len(chosen.labelled) == len(numbers)
            assert len(chosen.labelled.targets) == len(numbers)


def test_labelled_items_come_in_the_order_of_their_ids_without_those_that_are_gone(index: FakeIndex) -> None:
    index.delete("item-04")
    chosen = choose(index, "k_center", labelled_set([9, 4, 0, 7]))
    assert chosen.labelled is not None
    expected = np.stack([index.vectors[ItemId(f"item-{number:02}")] for number in (0, 7, 9)])
    np.testing.assert_array_equal(chosen.labelled.vectors.numpy(), expected)
    assert chosen.labelled.targets.tolist() == [0, 1, 0]


def test_a_model_is_asked_about_labelled_items_only_by_strategies_that_want_to_know(index: FakeIndex) -> None:
    model = model_of()
    chosen = choose(index, "cal", labelled_set(range(6)), classifier=model)
    assert chosen.labelled is not None
    assert torch.equal(chosen.labelled.probabilities, model.predict_proba(Inputs(vectors=chosen.labelled.vectors)))
    assert chosen.labelled.features.shape == (6, 3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("information_density", DensityOver.POOL), ("entropy", None), ("k_center", None)],
)
def test_the_direction_it_needs_is_told(index: FakeIndex, name: str, expected: DensityOver | None) -> None:
    options = {"density_over": DensityOver.POOL} if expected else {}
    assert choose(index, name, labelled_set([1]), classifier=model_of(), **options).density_over is expected


class TestWithoutModel:
    @pytest.mark.parametrize("name", WITHOUT_MODEL)
    def test_a_strategy_that_needs_none_is_chosen(self, index: FakeIndex, name: str) -> None:
        options = {"positive_class": "b"} if "positive_class" in STRATEGIES[name].options else {}
        chooser_of(index).check(StrategyOptions(name=name, **options), PROBLEM, None, draws_samples=True)
        assert choose(index, name, labelled_set(range(6)), **options).name == (
            REPRESENTATION if name == "auto" else name
        )

    @pytest.mark.parametrize("name", sorted(STRATEGIES.keys() - set(WITHOUT_MODEL)))
    def test_one_that_needs_a_model_is_refused_before_anything_is_read(self, index: FakeIndex, name: str) -> None:
        entry = STRATEGIES[name]
        problem = PROBLEM if "multiclass" in entry.tasks else PROBLEMS["multilabel"]
        options = {"positive_class": "b"} if name == "most_likely_positive" else {}
        with pytest.raises(
            InvalidArgument, match=f"{name} needs a model; without one: active_search, auto, "
        ) as refused:
            chooser_of(index).check(StrategyOptions(name=name, **options), problem, None, draws_samples=True)
        assert refused.value.field == "header.strategy.name"
        with pytest.raises(InvalidArgument, match="needs a model"):
            choose(index, name, labelled_set(range(6)), problem=problem, **options)
        assert index.calls == []

    def test_a_base_that_needs_none_makes_a_density_that_needs_none(self, index: FakeIndex) -> None:
        assert choose(index, "information_density", labelled_set([1]), base="random").name == "information_density"


class TestClasses:
    def test_a_strategy_that_looks_at_them_must_be_told(self, index: FakeIndex) -> None:
        with pytest.raises(InvalidArgument) as refused:
            choose(index, "galaxy", labelled_set(range(6), classes=False), classifier=model_of())
        assert refused.value.field == "label_counts"

    def test_one_that_looks_at_vectors_alone_need_not_be(self, index: FakeIndex) -> None:
        chosen = choose(index, "k_center", labelled_set(range(6), classes=False))
        assert chosen.labelled is not None
        assert len(chosen.labelled) == 6

    def test_there_are_none_to_tell_before_the_first_label(self, index: FakeIndex) -> None:
        chosen = choose(index, "galaxy", labelled_set([], classes=False), classifier=model_of())
        assert chosen.labelled is not None
        assert len(chosen.labelled) == len(chosen.labelled.targets) == 0

    def test_classes_that_the_task_does_not_allow_are_refused(self, index: FakeIndex) -> None:
        labelled = labelled_set(range(2))
        for classes in ((7,), (0, 1), ()):
            wrong = LabelledSet(
                expands=labelled.expands, excluded=[], classes={**labelled.classes, ItemId("item-01"): classes}
            )
            with pytest.raises(InvalidArgument):
                choose(index, "galaxy", wrong, classifier=model_of())


class TestTexts:
    def test_a_model_of_texts_gets_those_of_labelled_items(self, index: FakeIndex) -> None:
        index.texts = {f"item-{number:02}": "abc"[number % 3] * 8 for number in range(90)}
        chosen = choose(index, "cal", labelled_set(range(6)), classifier=ReadsTexts())  # type: ignore[arg-type]
        assert chosen.labelled is not None
        assert chosen.labelled.probabilities.argmax(dim=1).tolist() == [0, 1, 2, 0, 1, 2]

    def test_a_labelled_item_without_a_text_is_named(self, index: FakeIndex) -> None:
        index.texts = {f"item-{number:02}": "a" for number in range(90) if number != 4}
        with pytest.raises(FailedPrecondition, match="'item-04'"):
            choose(index, "cal", labelled_set(range(6)), classifier=ReadsTexts())  # type: ignore[arg-type]

    def test_trials_of_auto_look_at_vectors_alone(self, index: FakeIndex) -> None:
        assert choose(index, "auto", labelled_set(range(60)), classifier=ReadsTexts()).reason  # type: ignore[arg-type]


class TestAuto:
    def test_without_a_model_it_is_representation(self, index: FakeIndex) -> None:
        chosen = choose(index, "auto", labelled_set(range(60)))
        assert (chosen.name, chosen.reason) == (REPRESENTATION, f"{REPRESENTATION}: there is no model yet")

    @pytest.mark.parametrize("count", [0, 1, 6, 19])
    def test_with_few_labels_it_is_representation_and_says_how_few(self, index: FakeIndex, count: int) -> None:
        chosen = choose(index, "auto", labelled_set(range(count)), classifier=model_of())
        assert chosen.name == REPRESENTATION
        assert f"{count} labels" in chosen.reason
        assert chosen.labelled is not None  # of the strategy that was chosen
        assert len(chosen.labelled) == count

    def test_with_labels_enough_it_tries_and_tells_the_errors(self, index: FakeIndex) -> None:
        chosen = choose(index, "auto", labelled_set(range(60)), classifier=model_of())
        assert chosen.name in (REPRESENTATION, "margin")
        assert chosen.reason.startswith(chosen.name)
        assert "%" in chosen.reason
        assert STRATEGIES[chosen.name].name == chosen.name

    def test_it_chooses_the_same_whatever_the_order_of_the_labels(self, index: FakeIndex) -> None:
        answers = {
            choose(index, "auto", labelled_set(numbers), classifier=model_of(), seed=4).reason
            for numbers in (range(60), range(59, -1, -1), np.random.default_rng(1).permutation(60).tolist())
        }
        assert len(answers) == 1

    def test_it_needs_the_classes_where_there_is_a_model(self, index: FakeIndex) -> None:
        with pytest.raises(InvalidArgument) as refused:
            choose(index, "auto", labelled_set(range(30), classes=False), classifier=model_of())
        assert refused.value.field == "label_counts"

    @pytest.mark.parametrize(
        ("options", "field"), [({"beta": 0.5}, "beta"), ({"clusters": 3}, "clusters"), ({"base": "margin"}, "base")]
    )
    def test_options_that_it_would_not_look_at_are_refused_by_name(
        self, index: FakeIndex, options: dict[str, object], field: str
    ) -> None:
        for name in ("auto", "AUTO"):
            with pytest.raises(InvalidArgument) as refused:
                chooser_of(index).check(StrategyOptions(name=name, **options), PROBLEM, model_of(), draws_samples=True)  # type: ignore[arg-type]
            assert refused.value.field == f"header.strategy.{field}"
        chooser_of(index).check(StrategyOptions(name="Auto"), PROBLEM, model_of(), draws_samples=True)

    def test_trials_stop_when_the_caller_has_left(self, index: FakeIndex) -> None:
        with pytest.raises(Cancelled):
            choose(index, "auto", labelled_set(range(60)), classifier=model_of(), cancelled=True)


def test_what_cannot_be_made_is_refused_by_the_check_alone(index: FakeIndex) -> None:
    for options, field in (
        (StrategyOptions(name="oracle"), "name"),
        (StrategyOptions(name="margin", radius=0.5), "radius"),
        (StrategyOptions(name="most_likely_positive", positive_class="z"), "positive_class"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            chooser_of(index).check(options, PROBLEM, model_of(), draws_samples=True)
        assert refused.value.field == f"header.strategy.{field}"


def test_samples_are_missed_before_anything_is_told(index: FakeIndex) -> None:
    with pytest.raises(FailedPrecondition, match=r"uncertainty\.estimator"):
        chooser_of(index).check(StrategyOptions(name="bald"), PROBLEM, model_of(), draws_samples=False)
