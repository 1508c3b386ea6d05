"""What several annotators say together: majorities, Dawid and Skene, Krippendorff's alpha, doubts."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.domain.agreement import (
    Classes,
    Decision,
    agreement_of,
    better_class,
    dawid_skene,
    decide,
    krippendorff_alpha,
    majority,
)
from scheduler.domain.annotation_spec import check_annotation
from scheduler.domain.reviewing import doubts
from sealpool.errors import InvalidArgument
from sealpool.types import ItemId
from sealpool.v1 import common_pb2
from sealpool.v1 import scheduler_pb2 as pb
from tests.unit.scheduler.world import make_spec


@pytest.mark.parametrize(
    ("votes", "label"),
    [
        ([(0,)], (0,)),
        ([(0,), (1,)], None),
        ([(0,), (1,), (1,)], (1,)),
        ([(0,), (1,), (2,)], None),
        ([(2,), (1,), (2,), (0,)], (2,)),  # more than any other, though no majority of all
    ],
)
def test_the_class_said_more_often_than_any_other_is_the_majority(votes: list[Classes], label: Classes | None) -> None:
    assert majority(votes, multilabel=False) == label


@pytest.mark.parametrize(
    ("votes", "label"),
    [
        ([(0, 2), (0,), (2, 1)], (0, 2)),
        ([(), (), (1,)], ()),
        ([(0,), (0, 1)], None),  # exactly half said 1
        ([(0, 1), (0, 1)], (0, 1)),
    ],
)
def test_multilabel_each_class_that_over_half_said_is_the_majority(votes: list[Classes], label: Classes | None) -> None:
    assert majority(votes, multilabel=True) == label


@pytest.mark.parametrize(
    ("votes", "decision"),
    [
        ([], Decision(more=2)),
        ([(0,)], Decision(more=1)),
        ([(0,), (0,)], Decision(label=(0,))),
        ([(0,), (1,)], Decision(more=1)),
        ([(0,), (1,), (2,), (3,)], Decision(given_up=True)),
        ([(0,), (1,), (2,), (2,)], Decision(label=(2,))),
    ],
)
def test_one_more_is_asked_until_they_agree_or_too_many_were(votes: list[Classes], decision: Decision) -> None:
    assert decide(votes, wanted=2, at_most=4, multilabel=False) == decision


def test_alpha_is_that_of_the_published_example() -> None:
    """Krippendorff, Computing Krippendorff's alpha-reliability, 2011, section C: nominal data with gaps, 0.743."""
    table = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
    units = [[row[at] for row in table if row[at]] for at in range(12)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


UNITS = st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=12)


@settings(max_examples=200, deadline=None)
@given(units=UNITS)
def test_alpha_is_what_the_coincidence_matrix_says(units: list[list[int]]) -> None:
    """α = 1 − (n − 1) Σ_{c≠k} o_ck / Σ_{c≠k} n_c n_k, from the matrix of coincidences as the paper builds it."""
    matrix = np.zeros((4, 4))
    for unit in units:
        for one, other in itertools.permutations(range(len(unit)), 2):
            matrix[unit[one], unit[other]] += 1 / (len(unit) - 1)
    marginals = matrix.sum(axis=1)
    off = ~np.eye(4, dtype=bool)
    expected = np.outer(marginals, marginals)[off].sum()
    alpha = krippendorff_alpha(units)
    if expected < 1e-9:
        assert math.isnan(alpha)
    else:
        assert alpha == pytest.approx(1 - (marginals.sum() - 1) * matrix[off].sum() / expected)


def test_multilabel_agreement_is_the_mean_over_the_classes_that_tell() -> None:
    units: list[list[Classes]] = [[(0,), (0,)], [(1,), (0, 1)], [(), ()]]
    zero = krippendorff_alpha([[1, 1], [0, 1], [0, 0]])
    one = krippendorff_alpha([[0, 0], [1, 1], [0, 0]])
    assert one == 1
    assert agreement_of(units, classes=3, multilabel=True) == pytest.approx((zero + one) / 2)
    assert math.isnan(agreement_of([], classes=3, multilabel=True))
    assert math.isnan(agreement_of([], classes=3, multilabel=False))


def test_dawid_skene_trusts_good_annotators_over_a_majority_of_bad_ones() -> None:
    random = np.random.default_rng(3)
    truth = random.integers(0, 2, 200)
    votes: dict[ItemId, dict[str, int]] = {}
    for at, true in enumerate(truth):
        coins = {f"guesses{who}": int(random.integers(0, 2)) for who in range(3)}
        knows = {f"knows{who}": int(true if random.random() < 0.97 else 1 - true) for who in range(2)}
        votes[ItemId(f"i{at}")] = {**coins, **knows}
    posteriors = dawid_skene(votes)
    best = np.array([int(posterior[1] > posterior[0]) for posterior in posteriors.values()])
    by_count = np.array([int(sum(said.values()) > 2) for said in votes.values()])
    order = [list(votes).index(item) for item in posteriors]
    assert (best == truth[order]).mean() > 0.95 > (by_count == truth).mean()


def test_nothing_is_asked_of_dawid_skene_without_votes() -> None:
    assert dawid_skene({}) == {}


def test_only_a_clearly_likelier_class_corrects_a_label() -> None:
    assert better_class({0: 0.5, 1: 0.5}, 1) is None
    assert better_class({0: 0.5 + 1e-9, 1: 0.5 - 1e-9}, 1) is None
    assert better_class({0: 0.7, 1: 0.3}, 1) == 0
    assert better_class({0: 0.7, 1: 0.3}, 0) is None
    assert better_class({0: 1.0}, 4) == 0


def test_swapped_labels_are_doubted_worst_first() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 90)
    probabilities = np.full((90, 3), 0.05)
    probabilities[np.arange(90), truth] = 0.9
    probabilities[7] = np.roll([0.98, 0.01, 0.01], truth[7])
    labels: list[Classes] = [(int(index),) for index in truth]
    labels[7], labels[30] = ((int(truth[7]) + 1) % 3,), ((int(truth[30]) + 1) % 3,)
    found = doubts(labels, probabilities, multilabel=False)
    assert [doubt.position for doubt in found] == [7, 30]
    assert [doubt.quality for doubt in found] == pytest.approx([0.01, 0.05])


def test_swapped_multilabel_labels_are_doubted() -> None:
    random = np.random.default_rng(0)
    truth = random.random((80, 3)) < 0.4
    probabilities = np.where(truth, 0.9, 0.1)
    labels: list[Classes] = [tuple(np.flatnonzero(row).tolist()) for row in truth]
    labels[11] = tuple(np.flatnonzero(~truth[11]).tolist())
    assert [doubt.position for doubt in doubts(labels, probabilities, multilabel=True)] == [11]


@pytest.mark.parametrize(
    ("annotation", "field"),
    [
        ({"annotations": 26}, "annotations"),
        ({"annotations": 3, "max_annotations": 2}, "max_annotations"),
        ({"max_annotations": 51}, "max_annotations"),
        ({"give_up_after": 51}, "give_up_after"),
        ({"agreement": 9}, "agreement"),
    ],
)
def test_a_wrong_annotation_spec_is_refused_with_its_field(annotation: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidArgument, match=f"spec.annotation.{field}"):
        check_annotation(make_spec(annotation=pb.AnnotationSpec(**annotation)))  # type: ignore[arg-type]


def test_dawid_skene_is_refused_with_several_labels_an_item_and_several_annotations_with_an_own_oracle() -> None:
    dawid = pb.AnnotationSpec(annotations=3, agreement=pb.AGREEMENT_DAWID_SKENE)
    check_annotation(make_spec(annotation=dawid))
    with pytest.raises(InvalidArgument, match=r"spec\.annotation\.agreement"):
        check_annotation(make_spec(annotation=dawid, task=common_pb2.TASK_KIND_MULTILABEL))
    with pytest.raises(InvalidArgument, match=r"spec\.annotation\.annotations"):
        check_annotation(make_spec(annotation=dawid, oracle=pb.OracleSpec(name="dataset")))


def test_doubts_of_several_labels_are_cleanlabs_wherever_it_has_an_answer() -> None:
    filtering = pytest.importorskip("cleanlab.multilabel_classification.filter")
    ranking = pytest.importorskip("cleanlab.multilabel_classification.rank")
    randomness = np.random.default_rng(4)
    probabilities = randomness.random((80, 4))
    labels = [tuple(np.flatnonzero(row).tolist()) for row in randomness.random((80, 4)) < 0.4]
    found = doubts(labels, probabilities, multilabel=True)
    several = [list(classes) for classes in labels]
    issues = np.flatnonzero(filtering.find_label_issues(several, probabilities, n_jobs=1))
    assert {doubt.position for doubt in found} == set(issues.tolist())
    scores = ranking.get_label_quality_scores(several, probabilities)
    assert [doubt.quality for doubt in found] == pytest.approx([scores[doubt.position] for doubt in found])


@pytest.mark.parametrize(
    ("labels", "classes"),
    [([()] * 12, 3), ([(0,)] * 12, 3), ([(0, 1, 2)] * 12, 3), ([(0,), ()] * 6, 1), ([(2,), (0, 2)] * 6, 3), ([], 3)],
)
def test_doubts_of_several_labels_take_classes_that_none_or_all_have(
    labels: list[tuple[int, ...]], classes: int
) -> None:
    pytest.importorskip("cleanlab")
    truth = np.array([[index in of_item for index in range(classes)] for of_item in labels]).reshape(-1, classes)
    assert doubts(labels, np.where(truth, 0.9, 0.1), multilabel=True) == []
