"""What a round's model is fitted to, what is set aside of it, and what is said of how it began."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner.checkpoint_info import CheckpointInfo
from learner.checkpoints import Checkpoint
from learner.draws import draws_of, keys_of
from learner.fitting import Fit, fit_round, set_aside
from learner.models import make_classifier
from learner.options import ModelOptions, NeuralOptions, Retrain, UncertaintyOptions
from learner.ports import FitReport, Inputs, TrainingSet
from learner.problem import Problem, Targets, Task
from sealpool.errors import Cancelled, FailedPrecondition
from sealpool.types import ItemId

CPU = torch.device("cpu")
CLASSES = ("a", "b", "c")
PROBLEM = Problem(task=Task.MULTICLASS, classes=CLASSES)
MULTILABEL = Problem(task=Task.MULTILABEL, classes=CLASSES)
SHARE = 0.3


def ids_of(numbers: Sequence[int]) -> list[ItemId]:
    return [ItemId(f"item-{number}") for number in numbers]


@st.composite
def labelled_items(draw: st.DrawFn) -> tuple[Problem, list[ItemId], Targets]:
    numbers = draw(st.lists(st.integers(0, 10_000), unique=True, max_size=40))
    if draw(st.booleans()):
        rows = draw(st.lists(st.tuples(*[st.booleans()] * 3), min_size=len(numbers), max_size=len(numbers)))
        return MULTILABEL, ids_of(numbers), np.array(rows, np.bool_).reshape(len(numbers), 3)
    some = draw(st.lists(st.integers(0, 2), min_size=len(numbers), max_size=len(numbers)))
    return PROBLEM, ids_of(numbers), np.array(some, np.int64)


def has_class(problem: Problem, targets: Targets) -> NDArray[np.bool_]:
    return targets if problem.multilabel else targets[:, None] == np.arange(3)


@given(labelled_items(), st.floats(0.01, 0.5), st.randoms(use_true_random=False))
def test_what_validates_leaves_every_class_an_example_and_belongs_to_the_ids(items, share, random) -> None:
    problem, ids, targets = items
    aside = set_aside(problem, ids, targets, share=share)
    has = has_class(problem, targets)
    assert (has[~aside].any(axis=0) == has.any(axis=0)).all()
    spare = (has.sum(axis=0) > 1) | ~has
    assert aside.any() == spare.all(axis=1).any()
    order = list(range(len(ids)))
    random.shuffle(order)
    shuffled = set_aside(problem, [ids[row] for row in order], targets[order], share=share)
    assert shuffled.tolist() == aside[order].tolist()


@given(labelled_items(), st.floats(0.01, 0.5), st.integers(0, 40))
def test_an_item_validates_in_every_round_or_in_none_once_its_classes_are_trained(items, share, size) -> None:
    problem, ids, targets = items
    drawn = draws_of(keys_of(ids), 0x5EA1) < np.uint64(share * 2.0**64)
    early = set_aside(problem, ids[:size], targets[:size], share=share)
    late = set_aside(problem, ids, targets, share=share)
    trained = has_class(problem, targets)[:size][~drawn[:size]].any(axis=0)
    if drawn[:size].any() and (trained | ~has_class(problem, targets)[:size].any(axis=0)).all():
        assert early.tolist() == late[:size].tolist() == drawn[:size].tolist()


def test_about_the_share_is_set_aside_and_nothing_where_none_is_asked_for() -> None:
    ids, targets = ids_of(range(4000)), np.arange(4000) % 3
    assert abs(set_aside(PROBLEM, ids, targets, share=0.2).mean() - 0.2) < 0.03
    assert not set_aside(PROBLEM, ids, targets, share=0).any()


@dataclass
class Scripted:
    """A classifier that gets a share of the items right, as `skill` says of how it began, and keeps what it was given.

    `began` counts the fits of all that one `make` made.
    """

    skill: Callable[[bool], float]
    fits: list[tuple[bool, TrainingSet, TrainingSet | None]] = field(default_factory=list)
    right: float = 0.0
    needs_text: bool = False

    def fit(self, training: TrainingSet, *, validation: TrainingSet | None, warm: bool, **_: object) -> FitReport:
        self.fits.append((warm, training, validation))
        self.right = self.skill(warm)
        return FitReport(iterations=len(self.fits), loss=1.0, notes=("of the fit",))

    def predict_proba(self, inputs: Inputs) -> torch.Tensor:
        truth = inputs.vectors[:, 0].long()
        wrong = torch.arange(len(truth)) >= round(self.right * len(truth))
        return torch.nn.functional.one_hot((truth + wrong) % 3, 3).float()


def checkpoint(classifier: Scripted, score: float | None, *, round_number: int = 4) -> Checkpoint:
    info = CheckpointInfo(
        campaign="c",
        round=round_number,
        problem=PROBLEM,
        model=ModelOptions(),
        seed=0,
        fingerprint="",
        examples_digest="",
        class_counts=(1, 1, 1),
        pool="pool",
        pool_version=1,
        dimension=2,
        examples=3,
        missing=0,
        iterations=1,
        loss=1.0,
        validation_examples=0 if score is None else 10,
        validation_score=score,
        warm_from_round=None,
        calibration=None,
        notes=(),
    )
    return Checkpoint(info=info, classifier=classifier)  # type: ignore[arg-type]


def fit(
    options: ModelOptions,
    make: Callable[..., object] = make_classifier,
    *,
    count: int = 60,
    targets: Targets | None = None,
    before: Checkpoint | None = None,
    texts: Sequence[str] | None = None,
    problem: Problem = PROBLEM,
    **changes: object,
) -> Fit:
    targets = np.arange(count) % 3 if targets is None else targets
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(targets), 2)).astype(np.float32)
    if not problem.multilabel:
        vectors[:, 0] = targets
    given: Mapping[str, object] = {
        "ids": ids_of(range(len(targets))),
        "vectors": vectors,
        "texts": texts,
        "targets": targets,
        "before": before,
        "seed": 1,
        "device": CPU,
        "progress": lambda *_: None,
        "cancelled": lambda: False,
    }
    return fit_round(options, problem, make, **{**given, **changes})  # type: ignore[arg-type]


def scripted(warm: float, scratch: float) -> tuple[list[Scripted], Callable[..., Scripted]]:
    made: list[Scripted] = []

    def make(*_: object) -> Scripted:
        made.append(Scripted(lambda began_warm: warm if began_warm else scratch))
        return made[-1]

    return made, make


class TestShare:
    @pytest.mark.parametrize(
        ("options", "validates"),
        [
            (ModelOptions(), False),
            (ModelOptions(validation_share=0.4), True),
            (ModelOptions(uncertainty=UncertaintyOptions(temperature=True)), True),
            (ModelOptions(retrain=Retrain.AT_SATURATION), True),
            (ModelOptions(retrain=Retrain.WARM), False),
            (ModelOptions(name="mlp"), True),
        ],
    )
    def test_items_validate_where_they_are_asked_for_or_of_use(self, options: ModelOptions, validates: bool) -> None:
        made, make = scripted(1, 1)
        result = fit(options, make)
        ((_, training, validation),) = made[0].fits
        assert (validation is not None) is validates
        assert result.validation_examples == (0 if validation is None else len(validation))
        assert result.examples == len(training) == 60 - result.validation_examples
        assert np.isfinite(result.validation_score) == validates

    def test_the_share_that_is_asked_for_is_taken(self) -> None:
        _, make = scripted(1, 1)
        assert 0.4 < fit(ModelOptions(validation_share=0.5), make, count=400).validation_examples / 400 < 0.6
        assert 0.05 < fit(ModelOptions(name="mlp"), make, count=400).validation_examples / 400 < 0.15

    def test_texts_stay_with_their_items(self) -> None:
        made, make = scripted(1, 1)
        fit(ModelOptions(validation_share=0.3), make, texts=[f"class {number % 3}" for number in range(60)])
        ((_, training, validation),) = made[0].fits
        assert validation is not None
        for part in (training, validation):
            assert part.texts == [f"class {target}" for target in part.targets]
            assert part.vectors[:, 0].tolist() == part.targets.tolist()

    def test_no_item_validates_where_every_class_has_one_label(self) -> None:
        result = fit(ModelOptions(validation_share=0.5), targets=np.arange(3))
        assert (result.examples, result.validation_examples) == (3, 0)
        assert np.isnan(result.validation_score)

    def test_a_temperature_without_items_to_fit_it_on_is_refused(self) -> None:
        with pytest.raises(FailedPrecondition, match="validation_share"):
            fit(ModelOptions(uncertainty=UncertaintyOptions(temperature=True)), targets=np.arange(3))


class TestBeginning:
    def test_a_round_without_a_model_before_it_begins_from_scratch(self) -> None:
        made, make = scripted(1, 0.5)
        result = fit(ModelOptions(retrain=Retrain.WARM), make)
        assert not result.warm
        assert [warm for warm, *_ in made[0].fits] == [False]

    def test_warm_goes_on_from_the_model_before_and_makes_no_other(self) -> None:
        made, make = scripted(1, 0.5)
        old = Scripted(lambda _: 0.9)
        result = fit(ModelOptions(retrain=Retrain.WARM, validation_share=SHARE), make, before=checkpoint(old, 0.95))
        assert result.warm
        assert result.classifier is old
        assert [warm for warm, *_ in old.fits] == [True]
        assert made == []
        assert result.notes == ("of the fit",)

    def test_at_saturation_goes_on_while_the_score_rises(self) -> None:
        made, make = scripted(1, 1)
        old = Scripted(lambda _: 0.9)
        options = ModelOptions(retrain=Retrain.AT_SATURATION, validation_share=SHARE)
        result = fit(options, make, before=checkpoint(old, 0.5))
        assert result.warm
        assert made == []
        assert result.notes == ("of the fit",)

    @pytest.mark.parametrize(("scratch", "kept"), [(1.0, "from scratch"), (0.0, "warm")])
    def test_at_saturation_keeps_the_better_of_the_two_and_says_so(self, scratch: float, kept: str) -> None:
        made, make = scripted(0, scratch)
        old = Scripted(lambda _: 0.5)
        options = ModelOptions(retrain=Retrain.AT_SATURATION, validation_share=SHARE)
        result = fit(options, make, before=checkpoint(old, 0.99))
        assert result.warm is (kept == "warm")
        assert result.classifier is (old if kept == "warm" else made[0])
        (told, of_the_fit) = result.notes
        assert f"trained {kept} is kept" in told
        assert "round 4: 0.990" in told
        assert of_the_fit == "of the fit"
        assert old.fits[0][2] is not None
        assert made[0].fits[0][1].targets.tolist() == old.fits[0][1].targets.tolist()

    def test_a_score_that_rises_by_less_than_a_thousandth_has_stalled(self) -> None:
        options = ModelOptions(retrain=Retrain.AT_SATURATION, validation_share=SHARE)
        for last, tried in ((0.9995, 1), (0.9985, 0)):
            made, make = scripted(1, 1)
            fit(options, make, before=checkpoint(Scripted(lambda _: 1.0), last))
            assert len(made) == tried

    def test_without_a_score_nothing_has_stalled(self) -> None:
        made, make = scripted(1, 1)
        options = ModelOptions(retrain=Retrain.AT_SATURATION)
        for last, targets in ((None, np.arange(60) % 3), (0.9, np.arange(3)), (None, np.arange(3))):
            result = fit(options, make, before=checkpoint(Scripted(lambda _: 0.5), last), targets=targets)
            assert result.warm
            assert made == []
            assert not any("stalled" in note for note in result.notes)

    def test_a_real_model_goes_on_and_needs_fewer_steps(self) -> None:
        options = ModelOptions(retrain=Retrain.WARM)
        first = fit(options, targets=np.arange(58) % 3)
        again = fit(options, before=checkpoint(first.classifier, None))  # type: ignore[arg-type]
        assert again.report.iterations < fit(options).report.iterations

    def test_a_network_that_goes_on_is_another_than_one_from_scratch(self) -> None:
        options = ModelOptions(name="mlp", neural=NeuralOptions(epochs=2, hidden=(4,)), retrain=Retrain.WARM)
        first = fit(options)
        before = first.classifier.save()
        again = fit(options, before=checkpoint(first.classifier, None))  # type: ignore[arg-type]
        anew = fit(options)
        assert again.classifier is first.classifier
        assert all(np.array_equal(before[name], anew.classifier.save()[name]) for name in before)
        assert not all(np.array_equal(before[name], again.classifier.save()[name]) for name in before)


class TestNotes:
    def test_classes_with_one_label_are_named(self) -> None:
        assert fit(ModelOptions(), targets=np.array([0, 0, 1, 1, 2])).notes == ("there is one label only of 'c'",)
        assert fit(ModelOptions(), targets=np.array([0, 0, 1, 1])).notes == ()

    def test_of_many_thin_classes_five_are_named(self) -> None:
        problem = Problem(task=Task.MULTICLASS, classes=tuple(f"c{number}" for number in range(2_010)))
        (note,) = fit(ModelOptions(max_iterations=1), targets=np.arange(9), problem=problem).notes
        assert note == "there is one label only of 'c0', 'c1', 'c2', 'c3', 'c4' and 4 more"

    def test_a_label_that_one_item_has_is_thin_in_a_multilabel_campaign(self) -> None:
        targets = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 1, 0]], np.bool_)
        assert fit(ModelOptions(), targets=targets, problem=MULTILABEL).notes == ("there is one label only of 'c'",)


def test_a_fit_whose_caller_left_is_cancelled() -> None:
    with pytest.raises(Cancelled):
        fit(ModelOptions(name="mlp"), cancelled=lambda: True)


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(0, 40))
def test_the_score_is_macro_f1_on_what_was_set_aside(count: int, right: int) -> None:
    skill = min(right, count) / count
    result = fit(ModelOptions(validation_share=0.5), lambda *_: Scripted(lambda _: skill), count=count + 3)
    validation = result.validation_examples
    if not validation:
        assert np.isnan(result.validation_score)
        return
    (_, _, items), *_ = result.classifier.fits  # type: ignore[attr-defined]
    predicted = result.classifier.predict_proba(Inputs(vectors=torch.from_numpy(items.vectors))).argmax(dim=1).numpy()
    scores = []
    for column in range(3):
        there, claimed = items.targets == column, predicted == column
        if there.any() or claimed.any():
            scores.append(2 * (there & claimed).sum() / (there.sum() + claimed.sum()))
    assert result.validation_score == pytest.approx(np.mean(scores))
