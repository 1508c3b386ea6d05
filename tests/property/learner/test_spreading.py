"""Label spreading against its closed form, F* = (1 − α)(I − αS)⁻¹Y, dense and in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.spreading import normalised_graph, spread
from sealpool.errors import Cancelled

CPU = torch.device("cpu")


def dense_graph(rows, columns, weights, items):
    """Say W and S as the paper does."""
    affinity = np.zeros((items, items))
    for row, column, weight in zip(rows, columns, weights, strict=True):
        if row != column:
            affinity[row, column] = max(affinity[row, column], weight)
            affinity[column, row] = max(affinity[column, row], weight)
    degree = affinity.sum(axis=1)
    scale = np.array([1 / np.sqrt(one) if one > 0 else 0 for one in degree])
    return scale[:, None] * affinity * scale


def closed_form(graph, given_labels, alpha):
    return (1 - alpha) * np.linalg.solve(np.eye(len(graph)) - alpha * graph, given_labels)


@st.composite
def problems(draw):
    items = draw(st.integers(2, 14))
    pairs = st.tuples(st.integers(0, items - 1), st.integers(0, items - 1))
    edges = draw(st.lists(pairs, unique=True, max_size=4 * items))
    weights = draw(st.lists(st.sampled_from([0.0, 0.05, 0.3, 0.9, 1.0]), min_size=len(edges), max_size=len(edges)))
    labelled = sorted(draw(st.sets(st.integers(0, items - 1), min_size=1, max_size=items)))
    classes = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    return items, edges, weights, labelled, classes, rng


@settings(max_examples=120, deadline=None)
@given(problem=problems(), alpha=st.sampled_from([0.2, 0.5, 0.9]), multilabel=st.booleans())
def test_it_is_the_closed_form(problem, alpha, multilabel) -> None:
    items, edges, weights, labelled, classes, rng = problem
    rows, columns = (np.array([edge[side] for edge in edges], np.int64) for side in (0, 1))
    graph = normalised_graph(
        torch.from_numpy(rows), torch.from_numpy(columns), torch.tensor(weights), items, device=CPU
    )
    dense = dense_graph(rows, columns, weights, items)
    np.testing.assert_allclose(graph.to_dense().numpy(), dense, atol=1e-6)
    if multilabel:
        targets = rng.random((len(labelled), classes)) < 0.4
    else:
        targets = np.eye(classes)[rng.integers(0, classes, len(labelled))].astype(bool)
    found = spread(
        graph,
        torch.tensor(labelled),
        torch.from_numpy(targets.astype(np.float32)),
        multilabel=multilabel,
        alpha=alpha,
        max_iterations=1000,
        cancelled=lambda: False,
    )
    present, absent = np.zeros((items, classes)), np.zeros((items, classes))
    present[labelled], absent[labelled] = targets, ~targets
    expected = closed_form(dense, present, alpha)
    against = closed_form(dense, absent, alpha)
    # A class against its absence in every column, or all classes against each other.
    mass = (expected + against)[:, :1] if multilabel else expected.sum(axis=1, keepdims=True)
    reached = mass[:, 0] > 1e-12
    assert ((found.mass > 0) == reached).all()
    shares = np.where(reached[:, None], expected / np.where(reached[:, None], mass, 1), 0)
    np.testing.assert_allclose(found.shares, shares, atol=2e-3)
    if multilabel:
        np.testing.assert_allclose(expected + against, np.repeat(mass, classes, axis=1), atol=1e-12)


def test_it_goes_on_where_a_graph_of_two_sides_stands_still_for_one_iteration() -> None:
    graph = normalised_graph(torch.tensor([0, 1]), torch.tensor([2, 2]), torch.ones(2), 3, device=CPU)
    found = spread(
        graph,
        torch.tensor([0, 1]),
        torch.eye(2),
        multilabel=False,
        alpha=0.5,
        max_iterations=100,
        cancelled=lambda: False,
    )
    np.testing.assert_allclose(found.shares, [[0.875, 0.125], [0.125, 0.875], [0.5, 0.5]], atol=1e-4)


def test_items_far_from_every_label_are_reached_before_it_ends() -> None:
    chain = torch.arange(30)
    graph = normalised_graph(chain[:-1], chain[1:], torch.ones(29), 30, device=CPU)
    found = spread(
        graph,
        torch.tensor([0]),
        torch.tensor([[1.0, 0.0]]),
        multilabel=False,
        alpha=0.9,
        max_iterations=100,
        cancelled=lambda: False,
    )
    assert (found.mass > 0).all()
    assert (found.shares[:, 0] > 0.999).all()
    assert found.iterations >= 29


@pytest.mark.parametrize("alpha", [0.9, 0.01, 0.001])
def test_an_item_is_reached_with_shares_that_sum_to_one_or_not_at_all(alpha) -> None:
    items = 60
    rows = torch.arange(items - 1)
    graph = normalised_graph(rows, rows + 1, torch.ones(items - 1), items, device=CPU)
    found = spread(
        graph,
        torch.tensor([0, items - 1]),
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        multilabel=False,
        alpha=alpha,
        max_iterations=1_000,
        cancelled=lambda: False,
    )
    sums = found.shares.sum(axis=1)
    np.testing.assert_allclose(sums[found.mass > 0], 1, atol=1e-5)
    assert not sums[found.mass == 0].any()


def test_the_number_of_iterations_is_bounded_and_a_caller_who_left_ends_it() -> None:
    chain = torch.arange(30)
    graph = normalised_graph(chain[:-1], chain[1:], torch.ones(29), 30, device=CPU)
    arguments = {"multilabel": False, "alpha": 0.9}
    labels = (torch.tensor([0]), torch.tensor([[1.0, 0.0]]))
    found = spread(graph, *labels, max_iterations=5, cancelled=lambda: False, **arguments)
    assert found.iterations == 5
    assert (found.mass > 0).sum() == 6
    with pytest.raises(Cancelled):
        spread(graph, *labels, max_iterations=5, cancelled=lambda: True, **arguments)
