"""Scores in place against the formulas as the literature writes them, in float64 over the whole pool at once."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from index_server.scoring import STRATEGIES, LinearModel, score_rows

POSITIVE = 1


def probabilities_of(vectors, model):
    logits = vectors.astype(np.float64) @ model.weights.T.astype(np.float64) + model.biases.astype(np.float64)
    if model.multilabel:
        return 1 / (1 + np.exp(np.minimum(-logits, 700)))
    if len(model.weights) == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def entropy(p):
    return -(p * np.log(np.where(p > 0, p, 1))).sum(axis=-1)


def margin(p):
    ordered = np.sort(p, axis=-1)
    return 1 - (ordered[..., -1] - ordered[..., -2])


def least_confidence(p):
    return 1 - p.max(axis=-1)


FORMULAS = {"entropy": entropy, "margin": margin, "least_confidence": least_confidence}


def expected_scores(vectors, model, strategy):
    p = probabilities_of(vectors, model)
    if strategy == "most_likely_positive":
        return p[:, POSITIVE]
    if model.multilabel:
        return FORMULAS[strategy](np.stack([p, 1 - p], axis=-1)).mean(axis=1)
    return FORMULAS[strategy](p)


@st.composite
def problems(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dimension = draw(st.integers(1, 40))
    rows = draw(st.sampled_from([1, 2, 3, 10]))
    multilabel = rows > 1 and draw(st.booleans())
    size = 10.0 ** draw(st.integers(-3, 3))
    weights = (size * random.standard_normal((rows, dimension))).astype(np.float32)
    biases = (size * random.standard_normal(rows)).astype(np.float32)
    vectors = random.standard_normal((draw(st.integers(1, 400)), dimension)).astype(np.float32)
    if draw(st.booleans()):  # many repeated vectors: many equal scores
        vectors = vectors[random.integers(len(vectors), size=len(vectors)) // 4]
    cuts = np.sort(random.integers(0, len(vectors), draw(st.integers(0, 9))))
    return LinearModel(weights=weights, biases=biases, multilabel=multilabel), vectors, cuts


@settings(max_examples=150, deadline=None)
@given(problem=problems(), strategy=st.sampled_from(STRATEGIES), count=st.integers(1, 60))
def test_the_best_are_those_of_the_formulas(problem, strategy, count):
    model, vectors, cuts = problem
    rows = np.arange(len(vectors))
    expected = expected_scores(vectors, model, strategy)
    blocks = zip(np.split(rows, cuts), np.split(vectors, cuts), strict=True)

    scored = score_rows(blocks, model, strategy, count, positive_class=POSITIVE)

    assert scored.scored == len(vectors)
    assert len(set(scored.rows.tolist())) == len(scored.rows) == min(count, len(vectors))
    np.testing.assert_allclose(scored.scores, expected[scored.rows], rtol=1e-6, atol=1e-12)
    left_out = np.delete(expected, scored.rows)
    assert (left_out <= scored.scores[-1] * (1 + 1e-6) + 1e-12).all()
    order = np.lexsort((scored.rows, -scored.scores))
    assert order.tolist() == list(range(len(order)))


@settings(max_examples=50, deadline=None)
@given(problem=problems(), strategy=st.sampled_from(STRATEGIES), count=st.integers(1, 60))
def test_fewer_asked_for_are_the_first_of_more(problem, strategy, count):
    model, vectors, cuts = problem
    rows = np.arange(len(vectors))
    every = score_rows([(rows, vectors)], model, strategy, len(vectors), positive_class=POSITIVE)
    few = score_rows(
        zip(np.split(rows, cuts), np.split(vectors, cuts), strict=True), model, strategy, count, positive_class=POSITIVE
    )
    np.testing.assert_array_equal(few.rows, every.rows[:count])
    np.testing.assert_array_equal(few.scores, every.scores[:count])
