import numpy as np
import pytest

from index_server.scoring import STRATEGIES, LinearModel, score_rows
from index_server.scoring.model import MAX_CLASSES
from sealpool.errors import InvalidArgument


def model(weights, biases=None, **options):
    weights = np.array(weights, np.float32)
    biases = np.zeros(len(weights), np.float32) if biases is None else np.array(biases, np.float32)
    return LinearModel(weights=weights, biases=biases, **options)


def score(vectors, linear, strategy="entropy", count=100, **options):
    vectors = np.array(vectors, np.float32)
    return score_rows([(np.arange(len(vectors)), vectors)], linear, strategy, count, **options)


def scores_by_row(*arguments, **options):
    scored = score(*arguments, **options)
    return scored.scores[np.argsort(scored.rows)]


LN = np.log
THREE_CLASSES = model([[1, 0], [0, 1], [0, 0]])
ONE_ROW = model([[1, 0]])
TWO_LABELS = model([[1, 0], [0, 1]], multilabel=True)
# Vectors whose probabilities are easy: (1/2, 1/4, 1/4), (1/4, 1/2, 1/4), (1/3, 1/3, 1/3).
EASY = [[LN(2), 0], [0, LN(2)], [0, 0]]
# Probabilities of two labels: (3/4, 1/2), (1/2, 1/4), (1/2, 1/2); of one row: 3/4, 1/2, 1/2.
LABELS = [[LN(3), 0], [0, -LN(3)], [0, 0]]
H = 0.5 * LN(2) + 0.5 * LN(4)
H2 = 0.75 * LN(4 / 3) + 0.25 * LN(4)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("entropy", [H, H, LN(3)]),
        ("margin", [0.75, 0.75, 1]),
        ("least_confidence", [0.5, 0.5, 2 / 3]),
        ("most_likely_positive", [0.25, 0.5, 1 / 3]),
    ],
)
def test_an_item_of_one_among_several_classes(strategy, expected):
    np.testing.assert_allclose(scores_by_row(EASY, THREE_CLASSES, strategy, positive_class=1), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("entropy", [H2, LN(2), LN(2)]),
        ("margin", [0.5, 1, 1]),
        ("least_confidence", [0.25, 0.5, 0.5]),
        ("most_likely_positive", [0.75, 0.5, 0.5]),
    ],
)
@pytest.mark.parametrize("positive_class", [0, 1])
def test_one_row_of_weights_is_the_second_of_two_classes(strategy, expected, positive_class):
    scores = scores_by_row(LABELS, ONE_ROW, strategy, positive_class=positive_class)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("entropy", [(H2 + LN(2)) / 2, (H2 + LN(2)) / 2, LN(2)]),
        ("margin", [0.75, 0.75, 1]),
        ("least_confidence", [0.375, 0.375, 0.5]),
        ("most_likely_positive", [0.5, 0.25, 0.5]),
    ],
)
def test_labels_that_an_item_has_or_not_are_averaged(strategy, expected):
    np.testing.assert_allclose(scores_by_row(LABELS, TWO_LABELS, strategy, positive_class=1), expected, rtol=1e-6)


def test_biases_are_added():
    np.testing.assert_allclose(
        scores_by_row([[0.0, 0.0]], model([[1, 0]], [LN(3)]), "most_likely_positive"), [0.75], rtol=1e-6
    )


def test_the_best_come_first_and_of_equal_ones_the_earlier():
    scored = score([[2], [0], [-1], [0], [1], [0]], model([[1]]), count=4)
    assert scored.rows.tolist() == [1, 3, 5, 2]
    assert scored.scored == 6
    assert (scored.rows.dtype, scored.scores.dtype) == (np.int64, np.float32)


def test_mirror_images_are_equally_uncertain():
    scored = score([[3], [-1], [1], [-3]], model([[1]]))
    assert scored.rows.tolist() == [1, 2, 0, 3]


def test_rows_need_not_come_in_order():
    blocks = [(np.array([9, 4]), np.zeros((2, 1), np.float32)), (np.array([7, 2]), np.zeros((2, 1), np.float32))]
    assert score_rows(blocks, model([[1]]), "margin", 3).rows.tolist() == [2, 4, 7]


def test_fewer_rows_than_asked_for_all_come_back():
    assert score([[1], [0]], model([[1]]), count=5).rows.tolist() == [1, 0]


@pytest.mark.parametrize("blocks", [[], [(np.empty(0, np.int64), np.empty((0, 1), np.float32))]])
def test_of_nothing_there_is_no_best(blocks):
    scored = score_rows(blocks, model([[1]]), "entropy", 5)
    assert (scored.rows.shape, scored.scores.shape, scored.scored) == ((0,), (0,), 0)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("size", [1e3, 1e19, 1e38])
def test_huge_logits_give_finite_scores_in_the_right_order(strategy, rows, multilabel, size):
    linear = model(np.eye(rows, 2) * size, multilabel=multilabel)
    scored = score([[1.0, 1.0], [size, -size], [0.0, 0.0], [-size, size]], linear, strategy)
    assert np.isfinite(scored.scores).all()
    assert (scored.scores >= 0).all()
    if strategy != "most_likely_positive":
        assert scored.scores[scored.rows.tolist().index(2)] == scored.scores[0]  # where all logits are equal
    elif rows == 1:
        assert scored.rows.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equal_vectors_get_equal_scores_wherever_they_stand(strategy):
    vectors = np.tile(np.random.default_rng(1).standard_normal(33).astype(np.float32), (20_000, 1))
    linear = model(np.random.default_rng(2).standard_normal((7, 33)))
    scored = score(vectors, linear, strategy, 50, positive_class=3)
    assert scored.rows.tolist() == list(range(50))
    assert len(set(scored.scores.tolist())) == 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_answer_does_not_depend_on_how_rows_come_in_blocks(strategy):
    draw = np.random.default_rng(3)
    vectors = draw.standard_normal((20_000, 16)).astype(np.float32)
    vectors[draw.integers(20_000, size=5000)] = vectors[7]
    linear = model(3 * draw.standard_normal((5, 16)))
    whole = score(vectors, linear, strategy, 300)
    rows = np.arange(20_000)
    for cuts in ([1, 2, 8191, 8193], draw.integers(20_000, size=60)):
        cuts = np.sort(cuts)
        blocks = list(zip(np.split(rows, cuts), np.split(vectors, cuts), strict=True))
        for order in (blocks, blocks[::-1]):
            parts = score_rows(order, linear, strategy, 300)
            np.testing.assert_array_equal(parts.rows, whole.rows)
            np.testing.assert_array_equal(parts.scores, whole.scores)
            assert parts.scored == 20_000


@pytest.mark.parametrize("pieces", [1, 10])
@pytest.mark.parametrize("large", [700, 1e6])
def test_rows_that_float32_cannot_tell_apart_are_ranked_in_float64(large, pieces):
    # The sum of the products passes through large numbers, where float32 rounds away what the first ones differ by.
    draw = np.random.default_rng(4)
    head = draw.permutation(3000).astype(np.float32) * np.float32(1e-6)
    detour = (large * draw.uniform(1, 2, 3000)).astype(np.float32)
    vectors = np.stack([head, detour, -detour], axis=1)
    blocks = zip(np.split(np.arange(3000), pieces), np.split(vectors, pieces), strict=True)
    scored = score_rows(blocks, model([[1, 1, 1]]), "most_likely_positive", 10)
    assert scored.rows.tolist() == np.argsort(-head)[:10].tolist()


def test_float16_vectors_and_strided_ones_are_scored_as_their_float32_selves():
    vectors = np.random.default_rng(5).standard_normal((100, 8)).astype(np.float16)
    linear = model(np.random.default_rng(6).standard_normal((3, 8)))
    expected = score(vectors, linear)
    wide = np.repeat(vectors.astype(np.float32), 2, axis=1)[:, ::2]
    for given in (vectors, wide):
        scored = score_rows([(np.arange(100), given)], linear, "entropy", 100)
        np.testing.assert_array_equal(scored.rows, expected.rows)
        np.testing.assert_array_equal(scored.scores, expected.scores)


def test_many_classes_and_dimensions_are_scored_in_smaller_pieces():
    vectors = np.random.default_rng(7).standard_normal((5000, 2)).astype(np.float32)
    linear = model(np.random.default_rng(8).standard_normal((MAX_CLASSES, 2)))
    logits = vectors.astype(np.float64) @ linear.weights.T.astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    entropy = -(probabilities * np.log(probabilities)).sum(axis=1)
    scored = score(vectors, linear, count=3)
    assert scored.rows.tolist() == np.argsort(-entropy)[:3].tolist()
    wide = np.zeros((40, 65_536), np.float32)
    wide[33, 0] = 1
    assert score(wide, model(np.ones((1, 65_536))), "most_likely_positive", 1).rows.tolist() == [33]


def test_the_caller_can_end_a_scan_between_blocks():
    def blocks():
        yield np.arange(1), np.zeros((1, 1), np.float32)
        raise TimeoutError

    with pytest.raises(TimeoutError):
        score_rows(blocks(), model([[1]]), "entropy", 1)


@pytest.mark.parametrize(
    ("linear", "field", "problem"),
    [
        (model(np.ones((0, 2))), "weights", "0 rows"),
        (model(np.ones((MAX_CLASSES + 1, 2))), "weights", "1,025 rows"),
        (model(np.ones((2, 3))), "weights", "dimension 3"),
        (model(np.ones(2)), "weights", "1 axes"),
        (model([[1, np.nan]]), "weights", "NaN"),
        (model([[1, np.inf]]), "weights", "infinity"),
        (model([[1, 1]], [1, 2]), "biases", "shape"),
        (model([[1, 1]], [[1]]), "biases", "shape"),
        (model([[1, 1]], [np.nan]), "biases", "NaN"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(linear, field, problem):
    with pytest.raises(InvalidArgument, match=problem) as caught:
        linear.check(2)
    assert caught.value.field == field


def test_a_model_that_fits_is_not_refused():
    model(np.ones((MAX_CLASSES, 2)), multilabel=True).check(2)
    model([[1, 1]], [3]).check(2)


@pytest.mark.parametrize(
    ("linear", "positive_class"), [(ONE_ROW, 2), (THREE_CLASSES, 3), (TWO_LABELS, 2), (TWO_LABELS, -1)]
)
def test_a_class_that_is_not_there_cannot_be_looked_for(linear, positive_class):
    with pytest.raises(InvalidArgument) as caught:
        score(EASY, linear, "most_likely_positive", positive_class=positive_class)
    assert caught.value.field == "positive_class"


def test_an_unknown_strategy_is_refused_with_those_there_are():
    with pytest.raises(InvalidArgument, match="entropy, least_confidence, margin, most_likely_positive") as caught:
        score(EASY, ONE_ROW, "bald")
    assert caught.value.field == "strategy"


def test_nothing_cannot_be_asked_for():
    with pytest.raises(InvalidArgument) as caught:
        score(EASY, ONE_ROW, count=0)
    assert caught.value.field == "count"


def test_near_repeats_are_ranked_by_differences_below_the_noise_of_float32():
    draw = np.random.default_rng(4)
    base = 10 * draw.standard_normal(64)
    vectors = (base + 1e-5 * draw.standard_normal((3000, 64))).astype(np.float32)
    weights = draw.standard_normal((1, 64)).astype(np.float32)
    bias = -(base.astype(np.float32) @ weights[0])
    scored = score(vectors, model(weights, [bias]), "most_likely_positive", 10)
    logits = vectors.astype(np.float64) @ weights[0].astype(np.float64) + np.float64(bias)
    assert scored.rows.tolist() == np.argsort(-logits)[:10].tolist()
