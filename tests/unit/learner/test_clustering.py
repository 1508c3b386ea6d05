"""k-means finds what is there, whatever the data."""

import numpy as np
import pytest
import torch

from learner.clustering import cluster_view, k_means
from learner.problem import Problem, Task
from sealpool.errors import Cancelled
from tests.support.plain_view import PlainContext, PlainView


def view_of(vectors: torch.Tensor) -> PlainView:
    context = PlainContext(
        problem=Problem(task=Task.BINARY, classes=("a", "b")),
        probabilities=torch.empty(len(vectors), 0),
        vectors=vectors,
        draws=torch.linspace(0, 0.9, len(vectors), dtype=torch.float64),
    )
    return PlainView(context=context, block_rows=100)


@pytest.fixture
def groups() -> tuple[torch.Tensor, np.ndarray]:
    """(vectors, the group of each): six groups far apart."""
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 6, 1000)
    centres = np.linalg.qr(rng.normal(0, 1, (8, 8)))[0][:6]
    return torch.from_numpy((3 * centres[truth] + 0.1 * rng.normal(0, 1, (1000, 8))).astype(np.float32)), truth


def same_partition(found: np.ndarray, truth: np.ndarray) -> bool:
    pairs = set(zip(found.tolist(), truth.tolist(), strict=True))
    return len(pairs) == len(set(found.tolist())) == len(set(truth.tolist()))


def test_groups_far_apart_are_found(groups: tuple[torch.Tensor, np.ndarray]) -> None:
    vectors, truth = groups
    assert same_partition(k_means(vectors, 6, seed=1).assignment, truth)
    assert same_partition(cluster_view(view_of(vectors), 6, seed=1).assignment, truth)


def test_each_vector_is_with_its_nearest_centre_and_each_centre_is_a_mean(groups: tuple) -> None:
    vectors = groups[0][:300]
    found = k_means(vectors, 40, seed=2)
    away = ((vectors[:, None].double() - found.centres.double()) ** 2).sum(dim=2).numpy()
    np.testing.assert_allclose(found.squared_distances, away.min(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(found.assignment, away.argmin(axis=1))
    means = [vectors.numpy()[found.assignment == cluster].mean(axis=0) for cluster in range(40)]
    assert np.abs(found.centres.numpy() - means).mean() < 0.02


def test_the_same_seed_gives_the_same_clusters(groups: tuple[torch.Tensor, np.ndarray]) -> None:
    once, again = (k_means(groups[0], 9, seed=7) for _ in range(2))
    assert torch.equal(once.centres, again.centres)
    assert not torch.equal(once.centres, k_means(groups[0], 9, seed=8).centres)


def test_the_view_is_clustered_by_direction_alone() -> None:
    directions = torch.eye(3).repeat(50, 1) * torch.linspace(0.1, 100, 150)[:, None]
    found = cluster_view(view_of(directions), 3, seed=0)
    assert same_partition(found.assignment, np.arange(150) % 3)
    assert found.squared_distances.max() < 1e-6


@pytest.mark.parametrize("vectors", [torch.zeros(30, 4), torch.ones(30, 4), torch.ones(1, 4), torch.zeros(0, 4)])
def test_items_all_equal_one_or_none_are_clustered(vectors: torch.Tensor) -> None:
    for found in (k_means(vectors, 5, seed=0), cluster_view(view_of(vectors), 5, seed=0)):
        assert len(found.assignment) == len(vectors)
        assert len(found.centres) == min(5, len(vectors))
        assert bool(found.centres.isfinite().all())
        assert (found.squared_distances < 1e-6).all()


def test_a_centre_that_nothing_is_nearest_to_moves_to_the_farthest_vector() -> None:
    # Two distinct outliers among copies: seeding by chance or not, three clusters hold three distinct vectors.
    vectors = torch.zeros(200, 2)
    vectors[7], vectors[9] = torch.tensor([5.0, 0.0]), torch.tensor([0.0, 9.0])
    for seed in range(5):
        found = k_means(vectors, 3, seed=seed)
        assert len(set(found.assignment[[0, 7, 9]].tolist())) == 3


def test_clustering_ends_when_the_caller_has_left(groups: tuple[torch.Tensor, np.ndarray]) -> None:
    def leave() -> None:
        raise Cancelled("the caller left")

    with pytest.raises(Cancelled):
        k_means(groups[0], 4, seed=0, heartbeat=leave)
