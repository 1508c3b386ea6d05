"""What the stopping criteria measure, against the definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from scheduler.domain import stopping
from sealpool.v1 import common_pb2, scheduler_pb2

CLASSES = 4
PREDICTED = hnp.arrays(np.uint16, st.integers(1, 30), elements=st.integers(0, CLASSES - 1))


def rows(classes: int) -> st.SearchStrategy[NDArray[np.float64]]:
    raw = hnp.arrays(np.float64, st.tuples(st.integers(1, 20), st.just(classes)), elements=st.floats(0.001, 1))
    return raw.map(lambda values: values / values.sum(axis=1, keepdims=True))


def kappa_of_the_table(before: list[int], now: list[int], classes: int) -> float:
    table = np.zeros((classes, classes))
    for one, other in zip(before, now, strict=True):
        table[one, other] += 1
    table /= table.sum()
    observed = np.trace(table)
    chance = (table.sum(axis=0) * table.sum(axis=1)).sum()
    return 1.0 if chance == 1 else float((observed - chance) / (1 - chance))


@given(now=PREDICTED, data=st.data())
def test_kappa_is_cohens(now: NDArray[np.uint16], data: st.DataObject) -> None:
    before = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(now), max_size=len(now))), np.uint16)
    expected = kappa_of_the_table(before.tolist(), now.tolist(), CLASSES)
    assert stopping.kappa(before, now) == pytest.approx(expected)
    assert stopping.classification_change(before, now) == pytest.approx(np.mean(before != now))


def test_kappa_of_a_published_table_is_its_value() -> None:
    # 50 grants read by two readers: both yes 20, yes and no 5, no and yes 10, both no 15.
    before = np.array([1] * 25 + [0] * 25, np.uint16)
    now = np.array([1] * 20 + [0] * 5 + [1] * 10 + [0] * 15, np.uint16)
    assert stopping.kappa(before, now) == pytest.approx(0.4)


def test_kappa_of_several_labels_is_the_mean_of_theirs() -> None:
    before = np.array([[1, 0], [1, 1], [0, 0], [0, 1]], np.bool_)
    now = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.bool_)
    assert stopping.kappa(before, now) == pytest.approx((1 + 0) / 2)
    assert stopping.classification_change(before, now) == 0.5


def test_models_that_say_the_same_class_of_everything_agree() -> None:
    alike = np.zeros(5, np.uint16)
    assert stopping.kappa(alike, alike) == 1
    assert math.isnan(stopping.kappa(alike[:0], alike[:0]))


@given(probabilities=rows(CLASSES))
def test_uncertainty_is_the_entropy_over_that_of_a_uniform_guess(probabilities: NDArray[np.float64]) -> None:
    expected = [-sum(p * math.log(p) for p in row) / math.log(CLASSES) for row in probabilities]
    assert stopping.uncertainties(probabilities, multilabel=False) == pytest.approx(expected)


def test_uncertainty_of_several_labels_is_the_mean_of_their_binary_entropies() -> None:
    probabilities = np.array([[0.5, 1.0], [0.25, 0.0]])
    quarter = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert stopping.uncertainties(probabilities, multilabel=True) == pytest.approx([0.5, quarter / 2])


def test_what_is_sure_and_what_is_a_guess_lie_in_the_outer_bins() -> None:
    counts = stopping.uncertainty_counts(np.array([0.0, 0.04, 0.05, 1.0]))
    assert (len(counts), counts[0], counts[1], counts[19], counts.sum()) == (20, 2, 1, 1, 4)


def test_predictions_are_counted_by_class() -> None:
    said = np.array([[0.1, 0.9, 0.0], [0.6, 0.3, 0.1]])
    assert stopping.predicted_classes(said, multilabel=False).tolist() == [1, 0]
    assert stopping.predicted_counts(np.array([1, 0, 1], np.uint16), 3).tolist() == [1, 2, 0]
    several = stopping.predicted_classes(np.array([[0.6, 0.7], [0.5, 0.9]]), multilabel=True)
    assert stopping.predicted_counts(several, 2).tolist() == [1, 2]


@given(present=hnp.arrays(np.bool_, st.integers(1, 40)), data=st.data(), several=st.booleans())
def test_predictions_come_back_at_their_places(present: NDArray[np.bool_], data: st.DataObject, several: bool) -> None:
    count = int(present.sum())
    predicted: stopping.Classes
    if several:
        predicted = data.draw(hnp.arrays(np.bool_, (count, 3)))
    else:
        predicted = data.draw(hnp.arrays(np.uint16, count, elements=st.integers(0, 9_999)))
    packed = stopping.pack(predicted, present)
    placed, there = stopping.unpack(packed, items=len(present), classes=3, multilabel=several)
    assert there.tolist() == present.tolist()
    assert placed[there].tolist() == predicted.tolist()


def test_kappa_is_averaged_over_the_last_three_comparisons() -> None:
    assert math.isnan(stopping.mean_kappa([0.9], 0.8))
    assert stopping.mean_kappa([0.9, 0.7], 0.8) == pytest.approx(0.8)
    assert stopping.mean_kappa([0.0, 0.9, 0.7], 0.8) == pytest.approx(0.8)
    assert math.isnan(stopping.mean_kappa([0.9, 0.7], math.nan))


def measured(**values: float) -> stopping.Measured:
    nothing = {
        "target": math.nan,
        "kappa": math.nan,
        "overall_uncertainty": math.nan,
        "classification_change": math.nan,
    }
    return stopping.Measured(**{**nothing, **values})


@pytest.mark.parametrize(
    ("criterion", "field", "met", "missed"),
    [
        ("target_score", "target", 0.9, 0.89),
        ("kappa", "kappa", 0.9, 0.89),
        ("overall_uncertainty", "overall_uncertainty", 0.9, 0.91),
        ("classification_change", "classification_change", 0.9, 0.91),
    ],
)
def test_a_criterion_counts_the_rounds_in_which_it_was_met_in_a_row(
    criterion: str, field: str, met: float, missed: float
) -> None:
    spec = scheduler_pb2.StoppingSpec(**{criterion: 0.9}, patience=2)
    before: list[scheduler_pb2.StoppingVerdict] = []
    counts, reasons = [], []
    for value in (met, missed, math.nan, met, met):
        before = list(stopping.verdicts(spec, measured(**{field: value}), before))
        assert [one.criterion for one in before] == [criterion]
        counts.append(before[0].rounds_met)
        reasons.append(bool(stopping.why_stop(spec, before)))
    assert counts == [1, 0, 0, 1, 2]
    assert reasons == [False, False, False, False, True]
    assert f"{0.9:g} for 2 rounds in a row" in stopping.why_stop(spec, before)


def test_a_criterion_whose_threshold_was_changed_counts_anew() -> None:
    first = list(stopping.verdicts(scheduler_pb2.StoppingSpec(kappa=0.9), measured(kappa=1.0), []))
    [again] = stopping.verdicts(scheduler_pb2.StoppingSpec(kappa=0.8), measured(kappa=1.0), first)
    assert (first[0].rounds_met, again.rounds_met) == (1, 1)


def test_criteria_without_a_threshold_give_no_verdict() -> None:
    assert list(stopping.verdicts(scheduler_pb2.StoppingSpec(), measured(kappa=1.0), [])) == []


def test_the_target_is_looked_for_on_held_out_items_and_then_on_test_points() -> None:
    quality = common_pb2.Quality(accuracy=0.7, macro_f1=0.6)
    tested = scheduler_pb2.ActiveTest(accuracy=0.9)
    macro = scheduler_pb2.StoppingSpec(target_measure="macro_f1")
    default = scheduler_pb2.StoppingSpec()
    assert stopping.target_value(macro, quality, tested) == 0.6
    assert stopping.target_value(default, quality, tested) == 0.7
    assert stopping.target_value(default, None, tested) == 0.9
    assert math.isnan(stopping.target_value(macro, None, tested))
    assert math.isnan(stopping.target_value(default, None, None))
