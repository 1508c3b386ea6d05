"""The candidate policies against their formulas in plain Python."""

import math
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from index_server.candidates.policies.anchoral import AnchoralPolicy, choose_anchors
from index_server.candidates.policies.random_subset import RandomSubsetPolicy
from index_server.candidates.policies.seals import SealsPolicy
from index_server.ports import Growth, PolicyOptions
from index_server.spec import Metric
from tests.support.neighbourhoods import BruteForceNeighbourhood

SEEDS = st.integers(0, 2**64 - 1)
# Of a few numbers, so that vectors and scores often are equal.
NUMBERS = st.sampled_from([-2.0, -1.0, 0.5, 1.0, 3.0])


@st.composite
def pools(draw):
    """A pool of which some rows were deleted."""
    vectors = draw(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=14))
    live = draw(st.sets(st.integers(0, len(vectors) - 1), min_size=1))
    return BruteForceNeighbourhood(draw(st.sampled_from(list(Metric))), vectors, live=sorted(live))


@st.composite
def growths(draw):
    neighbourhood = draw(pools())
    live = neighbourhood.live_rows().tolist()
    labelled = draw(st.lists(st.sampled_from(live), unique=True, max_size=8))
    labels = draw(
        st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=len(labelled), max_size=len(labelled))
    )
    options = PolicyOptions(
        k=draw(st.integers(1, 6)),
        subpool_size=draw(st.integers(1, 12)),
        anchors=draw(st.integers(1, 4)),
        seed=draw(SEEDS),
    )
    sources = labelled[: draw(st.integers(0, len(labelled)))]
    return neighbourhood, Growth(
        sources=np.array(sources, np.int64),
        labelled=np.array(labelled, np.int64),
        labels=labels,
        draw=draw(st.integers(1, 1000)),
        options=options,
    )


def by_nearness(neighbourhood, row, others):
    sign = -1 if neighbourhood.metric.higher_is_nearer else 1
    return sorted(others, key=lambda other: (sign * neighbourhood.score(row, other), other))


def members(growth):
    """Return the rows of each class."""
    classes = {}
    for row, labels in zip(growth.labelled.tolist(), growth.labels, strict=True):
        for label in labels:
            classes.setdefault(label, set()).add(row)
    return {label: sorted(rows) for label, rows in classes.items()}


def seeds_by_definition(neighbourhood, rows, count, rng):
    """k-means++: each next with probability D(x)² / Σ D(x)², D the distance to the nearest that was drawn."""

    def square(row, other):
        one, two = neighbourhood.vectors([row, other]).tolist()
        return sum((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(one, two, strict=True))

    drawn = [rows[rng.integers(len(rows))]]
    while len(drawn) < count:
        squares = [min(square(row, other) for other in drawn) for row in rows]
        if not any(squares):
            break
        drawn.append(rows[rng.choice(len(rows), p=[float(value / sum(squares)) for value in squares])])
    return drawn


@given(growths())
def test_seals_brings_the_k_nearest_of_each_source(case):
    neighbourhood, growth = case
    proposal = SealsPolicy(block_neighbors=7).propose(neighbourhood, growth)
    expected = []
    for source in growth.sources.tolist():
        others = [row for row in neighbourhood.live_rows().tolist() if row != source]
        expected += [
            (row, source, neighbourhood.score(source, row))
            for row in by_nearness(neighbourhood, source, others)[: growth.options.k]
        ]
    rows, sources, scores = proposal.rows.tolist(), proposal.sources.tolist(), proposal.scores.tolist()
    assert list(zip(rows, sources, scores, strict=True)) == expected


@given(growths())
def test_random_subset_draws_from_the_unlabelled_without_repetition(case):
    neighbourhood, growth = case
    rows = RandomSubsetPolicy().propose(neighbourhood, growth).rows.tolist()
    unlabelled = set(neighbourhood.live_rows().tolist()) - set(growth.labelled.tolist())
    assert len(rows) == min(growth.options.subpool_size, len(unlabelled))
    assert set(rows) <= unlabelled
    assert rows == sorted(set(rows))


@given(growths())
def test_anchors_are_drawn_from_each_class_by_squared_distance(case):
    neighbourhood, growth = case
    expected = set()
    for label, rows in members(growth).items():
        rng = np.random.default_rng([growth.options.seed, growth.draw, label])
        expected.update(seeds_by_definition(neighbourhood, rows, growth.options.anchors, rng))
    assert choose_anchors(neighbourhood, growth).tolist() == sorted(expected)


@settings(max_examples=200)
@given(growths())
def test_anchoral_keeps_the_best_by_mean_similarity_to_the_anchors_that_retrieved_them(case):
    neighbourhood, growth = case
    unlabelled = set(neighbourhood.live_rows().tolist()) - set(growth.labelled.tolist())
    retrieved = {}
    for anchor in choose_anchors(neighbourhood, growth).tolist():
        for row in by_nearness(neighbourhood, anchor, unlabelled)[: growth.options.k]:
            retrieved.setdefault(row, []).append(anchor)
    sign = -1 if neighbourhood.metric is Metric.L2 else 1
    scores = {
        row: np.float32(math.fsum(sign * float(neighbourhood.score(anchor, row)) for anchor in anchors) / len(anchors))
        for row, anchors in retrieved.items()
    }
    best = sorted(scores, key=lambda row: (-scores[row], row))[: growth.options.subpool_size]
    proposal = AnchoralPolicy().propose(neighbourhood, growth)
    assert proposal.rows.tolist() == best
    assert proposal.scores.tolist() == [scores[row] for row in best]
    assert proposal.sources.tolist() == [retrieved[row][0] if len(retrieved[row]) == 1 else -1 for row in best]


@given(growths(), st.randoms(use_true_random=False))
def test_anchoral_does_not_depend_on_the_order_in_which_labels_were_told(case, random):
    neighbourhood, growth = case
    order = list(range(len(growth.labelled)))
    random.shuffle(order)
    shuffled = Growth(
        sources=growth.sources,
        labelled=growth.labelled[order],
        labels=[growth.labels[place] for place in order],
        draw=growth.draw,
        options=growth.options,
    )
    told, reordered = (AnchoralPolicy().propose(neighbourhood, one) for one in (growth, shuffled))
    assert told.rows.tolist() == reordered.rows.tolist()
    assert told.scores.tolist() == reordered.scores.tolist()
