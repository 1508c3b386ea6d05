"""k_means and typiclust pick what their formulas say of the clusters found."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner.clustering import cluster_view
from learner.options import StrategyOptions
from learner.problem import Problem, Task
from learner.strategies.k_means import KMeans
from learner.strategies.typiclust import TypiClust
from tests.support.plain_view import PlainContext, PlainLabelled, PlainView

PROBLEM = Problem(task=Task.BINARY, classes=("a", "b"))
Case = tuple[NDArray[np.float32], NDArray[np.float32], int]


def view_of(vectors: NDArray[np.float32], labelled: NDArray[np.float32]) -> PlainView:
    context = PlainContext(
        problem=PROBLEM,
        probabilities=torch.empty(len(vectors), 0),
        vectors=torch.from_numpy(vectors),
        draws=torch.linspace(0, 0.9, len(vectors), dtype=torch.float64),
        labelled=PlainLabelled(vectors=torch.from_numpy(labelled), targets=np.zeros(len(labelled), np.int64)),
    )
    return PlainView(context=context, seed=3)


def units_of(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    x = vectors.astype(np.float64)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, lengths, out=np.zeros_like(x), where=lengths > 0)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    items, labelled = draw(st.integers(1, 60)), draw(st.integers(0, 5))
    vectors = rng.normal(0, 1, (items + labelled, 4))
    kind = draw(st.sampled_from(["normal", "zeros", "copies"]))
    if kind == "zeros":
        vectors[rng.integers(0, len(vectors), 3)] = 0
    if kind == "copies":
        vectors[:] = vectors[rng.integers(0, min(3, len(vectors)), len(vectors))]
    vectors = vectors.astype(np.float32)
    return vectors[labelled:], vectors[:labelled], draw(st.integers(1, items + 2))


@settings(deadline=None, max_examples=50)
@given(case=cases())
def test_k_means_picks_the_item_nearest_to_each_centre(case: Case) -> None:
    vectors, labelled, count = case
    view = view_of(vectors, labelled)
    batch = KMeans(StrategyOptions(name="k_means"), PROBLEM).pick(view, count)
    assert len(set(batch.rows.tolist())) == len(batch.rows) == min(count, len(vectors))
    assert (np.diff(batch.scores) <= 0).all()
    assert np.isfinite(batch.scores).all()
    found = cluster_view(view, min(count, len(vectors)), seed=view.seed)
    centres, units = found.centres.numpy().astype(np.float64), units_of(vectors)
    for row, score in zip(batch.rows, batch.scores, strict=True):
        if score > 0:
            members = np.flatnonzero(found.assignment == found.assignment[row])
            away = np.linalg.norm(units[members] - centres[found.assignment[row]], axis=1)
            assert score == pytest.approx(len(members) / len(vectors))
            assert np.linalg.norm(units[row] - centres[found.assignment[row]]) <= away.min() + 1e-6
    picked = [found.assignment[row] for row, score in zip(batch.rows, batch.scores, strict=True) if score > 0]
    assert sorted(picked) == sorted(set(found.assignment.tolist()))


def plain_typicality(units: NDArray[np.float64], row: int, members: NDArray[np.int64], neighbors: int) -> float:
    away = sorted(float(np.linalg.norm(units[row] - units[other])) for other in members if other != row)[:neighbors]
    return 1 / (1e-5 + (sum(away) / len(away) if away else 0.0))


@pytest.mark.parametrize(("neighbors", "clusters"), [(0, 0), (2, 0), (3, 4)])
@settings(deadline=None, max_examples=40)
@given(case=cases())
def test_typiclust_picks_the_most_typical_of_the_least_covered_largest_cluster(
    neighbors: int, clusters: int, case: Case
) -> None:
    vectors, labelled, count = case
    view = view_of(vectors, labelled)
    options = StrategyOptions(name="typiclust", neighbors=neighbors, clusters=clusters)
    batch = TypiClust(options, PROBLEM).pick(view, count)
    count = min(count, len(vectors))
    assert len(set(batch.rows.tolist())) == len(batch.rows) == count
    found = cluster_view(view, clusters or len(labelled) + count, seed=view.seed)
    centres, units = found.centres.numpy().astype(np.float64), units_of(vectors)
    homes = [int(np.linalg.norm(centres - unit, axis=1).argmin()) for unit in units_of(labelled)]
    members = {home: np.flatnonzero(found.assignment == home) for home in range(len(centres))}
    covered = {home: homes.count(home) for home in members}
    taken: set[int] = set()
    for row, score in zip(batch.rows.tolist(), batch.scores, strict=True):
        left = {home: [r for r in rows if r not in taken] for home, rows in members.items()}
        keys = {home: (len(members[home]) < 5, covered[home], -len(members[home])) for home in left if left[home]}
        home = int(found.assignment[row])
        if not any(len(set(map(tuple, units[rows].round(6)))) < len(rows) for rows in members.values() if len(rows)):
            assert keys[home] == min(keys.values())
        typical = {r: plain_typicality(units, r, members[home], neighbors or 20) for r in left[home]}
        assert score == pytest.approx(typical[row], rel=2e-2 if typical[row] > 1e4 else 1e-3)
        assert typical[row] >= max(typical.values()) * (1 - 2e-2)
        taken.add(row)
        covered[home] += 1


def test_clusters_with_labels_wait_until_every_other_has_one() -> None:
    corners = np.repeat(np.eye(5, dtype=np.float32), [30, 25, 20, 15, 10], axis=0)
    vectors = corners + np.random.default_rng(0).normal(0, 0.01, corners.shape).astype(np.float32)
    view = view_of(vectors, np.eye(5, dtype=np.float32)[[0, 2]])
    batch = TypiClust(StrategyOptions(name="typiclust", clusters=5), PROBLEM).pick(view, 5)
    assert corners[batch.rows].argmax(axis=1).tolist() == [1, 3, 4, 0, 1]


def test_nothing_is_picked_of_nothing() -> None:
    empty = np.empty((0, 4), np.float32)
    for make in (KMeans, TypiClust):
        strategy = make(StrategyOptions(), PROBLEM)
        assert len(strategy.pick(view_of(empty, empty), 3).rows) == 0
        assert len(strategy.pick(view_of(np.ones((3, 4), np.float32), empty), 0).rows) == 0
