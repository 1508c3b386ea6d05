"""Cluster-Margin and DropQuery against plain NumPy statements of their rules."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner.clustering import cluster_view
from learner.options import StrategyOptions
from learner.problem import Problem, Task
from learner.strategies.cluster_margin import ClusterMargin
from learner.strategies.drop_query import DropQuery, draw_masks
from learner.strategies.subset import Subset, best_rows
from sealpool.vocabulary.strategies import STRATEGIES
from tests.support.plain_view import PlainContext, PlainView

MADE = {"cluster_margin": ClusterMargin, "drop_query": DropQuery}


def view_of(
    task: Task, *, count: int, seed: int, dimension: int = 5, block_rows: int = 7, sharpness: float = 4.0
) -> PlainView:
    """Candidates and a linear model of them."""
    rng = np.random.default_rng(seed)
    classes = 2 if task is Task.BINARY else 4
    weights = torch.from_numpy(rng.normal(0, sharpness / dimension**0.5, (dimension, classes)).astype(np.float32))
    vectors = torch.from_numpy(rng.normal(0, 1, (count, dimension)).astype(np.float32))

    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x @ weights) if task is Task.MULTILABEL else torch.softmax(x @ weights, dim=1)

    context = PlainContext(
        problem=Problem(task=task, classes=tuple(f"c{number}" for number in range(classes))),
        probabilities=model(vectors),
        vectors=vectors,
        draws=torch.from_numpy(np.sort(rng.random(count))),
        model=model,
    )
    return PlainView(context=context, seed=seed, block_rows=block_rows)


def margins_of(view: PlainView) -> NDArray[np.float64]:
    p = view.context.probabilities.double().numpy()
    if view.problem.multilabel:
        return 1 - np.abs(2 * p - 1).mean(axis=1)
    ordered = np.sort(p, axis=1)
    return 1 - (ordered[:, -1] - ordered[:, -2])


def plain_turns(groups: list[list[int]], count: int) -> list[int]:
    """One of each group in turn, the smallest group first; `groups` are in order of their number."""
    queues = [list(group) for group in sorted(groups, key=len)]
    picked: list[int] = []
    while any(queues) and len(picked) < count:
        for queue in queues:
            if queue and len(picked) < count:
                picked.append(queue.pop(0))
    return picked


@pytest.mark.parametrize("task", list(Task))
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**20), count=st.integers(2, 6), clusters=st.sampled_from([0, 1, 3]))
def test_cluster_margin_goes_round_the_clusters_of_the_least_margins(
    task: Task, seed: int, count: int, clusters: int
) -> None:
    view = view_of(task, count=80, seed=seed)
    options = StrategyOptions(name="cluster_margin", clusters=clusters)
    batch = ClusterMargin(options, view.problem).pick(view, count)
    margins = margins_of(view)
    least = np.sort(np.argsort(-margins, kind="stable")[: 10 * count])
    assignment = cluster_view(Subset(view, least), clusters or count, seed=view.seed).assignment
    groups = [least[assignment == number].tolist() for number in range(assignment.max() + 1)]
    assert batch.rows.tolist() == plain_turns([group for group in groups if group], count)
    np.testing.assert_allclose(batch.scores, margins[batch.rows], atol=1e-5)


def test_cluster_margin_takes_one_of_each_of_several_groups_of_doubtful_items() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 5, 50)
    view = view_of(Task.BINARY, count=50, seed=0)
    view.context.vectors = torch.from_numpy((np.eye(5)[groups] + rng.normal(0, 0.01, (50, 5))).astype(np.float32))
    batch = ClusterMargin(StrategyOptions(name="cluster_margin"), view.problem).pick(view, 5)
    assert sorted(groups[batch.rows]) == [0, 1, 2, 3, 4]


def changes_of(view: PlainView) -> NDArray[np.int64]:
    """How many of three masked copies of each item are predicted otherwise."""
    sets = draw_masks(view.context.vectors.shape[1], view.seed).numpy()
    usual = view.context.probabilities.numpy()
    changes = np.zeros(len(view), np.int64)
    for row, draw in enumerate(view.draws):
        for mask in sets[int(draw * 64)]:
            masked = torch.from_numpy(view.context.vectors[row].numpy() * mask)[None]
            p = view.context.predict(masked)[0].numpy()
            if view.problem.multilabel:
                changes[row] += bool(((p > 0.5) != (usual[row] > 0.5)).any())
            else:
                changes[row] += p.argmax() != usual[row].argmax()
    return changes


@pytest.mark.parametrize("task", list(Task))
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**20), count=st.integers(1, 40), dimension=st.sampled_from([5, 30]))
def test_drop_query_takes_the_nearest_to_each_centre_of_what_changes(
    task: Task, seed: int, count: int, dimension: int
) -> None:
    view = view_of(task, count=40, seed=seed, dimension=dimension)
    batch = DropQuery(StrategyOptions(name="drop_query"), view.problem).pick(view, count)
    changes, margins = changes_of(view), margins_of(view)
    scores = changes + margins / 2
    np.testing.assert_allclose(batch.scores, scores[batch.rows], atol=1e-5)
    uncertain = np.flatnonzero(changes >= 2)
    expected: list[int] = []
    if len(uncertain) > count:
        clusters = cluster_view(Subset(view, uncertain), count, seed=view.seed)
        for number in range(count):
            members = np.flatnonzero(clusters.assignment == number)
            if len(members):
                expected.append(int(uncertain[members[clusters.squared_distances[members].argmin()]]))
        expected.sort(key=lambda row: -scores[row])
    rest = sorted(set(range(40)) - set(expected), key=lambda row: -scores[row])
    assert batch.rows.tolist() == (expected + rest)[:count]


def test_masks_keep_a_quarter_of_the_entries_and_make_up_for_the_rest() -> None:
    masks = draw_masks(500, seed=1).numpy()
    assert set(np.unique(masks)) == {0, 4}
    assert abs((masks > 0).mean() - 0.25) < 0.01
    assert (masks[0, 0] != masks[0, 1]).any()
    assert (masks[0] != masks[1]).any()
    assert (draw_masks(500, seed=2).numpy() != masks).any()


@pytest.mark.parametrize("name", sorted(MADE))
def test_picks_do_not_depend_on_how_candidates_are_fed(name: str) -> None:
    picks = []
    for block_rows in (7, 300):
        view = view_of(Task.MULTICLASS, count=300, seed=4, block_rows=block_rows, dimension=16)
        picks.append(MADE[name](StrategyOptions(name=name), view.problem).pick(view, 12).rows.tolist())
    assert picks[0] == picks[1]


@pytest.mark.parametrize("name", sorted(MADE))
@pytest.mark.parametrize("kind", ["random", "equal", "zero", "sure"])
@settings(deadline=None, max_examples=4)
@given(n=st.integers(0, 30), count=st.integers(0, 35), task=st.sampled_from(list(Task)))
def test_there_are_as_many_distinct_picks_as_there_are_items(
    name: str, kind: str, n: int, count: int, task: Task
) -> None:
    view = view_of(task, count=n, seed=1, sharpness=500.0 if kind == "sure" else 2.0)
    if kind in ("equal", "zero"):
        view.context.vectors.fill_(1.0 if kind == "equal" else 0.0)
        view.context.probabilities = view.context.predict(view.context.vectors)
    batch = MADE[name](StrategyOptions(name=name), view.problem).pick(view, count)
    assert len(batch.rows) == len(set(batch.rows.tolist())) == min(n, count)
    assert np.isfinite(batch.scores).all()


def test_what_they_need_is_what_the_catalogue_says() -> None:
    problem = Problem(task=Task.BINARY, classes=("a", "b"))
    for name, made in MADE.items():
        assert made(StrategyOptions(name=name), problem).needs == STRATEGIES[name].needs


@given(values=st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0]), max_size=12), count=st.integers(0, 14))
def test_the_best_rows_are_the_largest_and_of_equals_the_first(values: list[float], count: int) -> None:
    expected = sorted(range(len(values)), key=lambda row: (-values[row], row))[:count]
    assert best_rows(np.array(values), count).tolist() == expected


def test_a_subset_is_a_view_of_its_rows() -> None:
    view = view_of(Task.BINARY, count=20, seed=2)
    rows = np.array([3, 5, 19])
    subset = Subset(view, rows)
    assert len(subset) == 3
    assert subset.draws.tolist() == view.draws[rows].tolist()
    assert torch.equal(subset.at(np.array([2, 0])).vectors, view.context.vectors[[19, 3]])
    ((block, context),) = subset.blocks()
    assert (block, len(context.vectors)) == (slice(0, 3), 3)
