"""The nearest candidates of one pass over a view, against all similarities at once."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner import neighbours
from learner.neighbours import nearest_candidates, unit_rows
from learner.problem import Problem, Task
from tests.support.plain_view import PlainContext, PlainView


def view_of(vectors: NDArray[np.float32], block_rows: int) -> PlainView:
    context = PlainContext(
        problem=Problem(task=Task.BINARY, classes=("no", "yes")),
        probabilities=torch.full((len(vectors), 2), 0.5),
        vectors=torch.from_numpy(vectors),
        draws=torch.linspace(0, 0.9, len(vectors), dtype=torch.float64),
    )
    return PlainView(context=context, block_rows=block_rows)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    items=st.integers(1, 60),
    queries=st.integers(1, 12),
    count=st.integers(1, 9),
    block_rows=st.integers(1, 25),
    together=st.sampled_from([1, 40, 1 << 23]),
    own=st.booleans(),
)
def test_they_are_those_of_all_similarities_sorted(
    seed: int, items: int, queries: int, count: int, block_rows: int, together: int, own: bool
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(items, 3)).astype(np.float32)
    asked = np.sort(rng.choice(items, min(queries, items), replace=False)) if own else None
    wanted = vectors[asked] if asked is not None else rng.normal(size=(queries, 3)).astype(np.float32)
    cosines = wanted @ vectors.T
    cosines = cosines / np.linalg.norm(wanted, axis=1)[:, None] / np.linalg.norm(vectors, axis=1)
    if asked is not None:
        cosines[np.arange(len(asked)), asked] = -9
    kept = min(count, items - own)
    usual = neighbours._SIMILARITIES_TOGETHER
    neighbours._SIMILARITIES_TOGETHER = together
    try:
        rows, similarities = nearest_candidates(
            view_of(vectors, block_rows), unit_rows(torch.from_numpy(wanted)), count, asked
        )
    finally:
        neighbours._SIMILARITIES_TOGETHER = usual
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :kept]
    found = np.take_along_axis(cosines, rows, axis=1)
    assert rows.shape == similarities.shape == (len(wanted), kept)
    np.testing.assert_allclose(found, np.take_along_axis(cosines, order, axis=1), atol=1e-5)
    np.testing.assert_allclose(similarities, np.maximum(found, 0), atol=1e-5)
    assert all(len(set(row)) == kept for row in rows.tolist())


def test_nothing_is_asked_of_the_view_without_queries() -> None:
    rows, similarities = nearest_candidates(view_of(np.ones((4, 3), np.float32), 2), torch.empty(0, 3), 2)
    assert rows.shape == similarities.shape == (0, 2)


def test_zero_vectors_are_like_none() -> None:
    vectors = np.array([[0, 0], [1, 0], [-1, 0]], np.float32)
    rows, similarities = nearest_candidates(view_of(vectors, 1), unit_rows(torch.from_numpy(vectors)), 1)
    assert similarities[:, 0].tolist() == [0, 1, 1]
    assert rows[1:, 0].tolist() == [1, 2]
