"""k-center picks what the plain greedy search over all distances picks, and looks at far fewer candidates."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner.options import StrategyOptions
from learner.ports import Batch
from learner.problem import Problem, Task
from learner.strategies import k_center
from learner.strategies.k_center import KCenter
from tests.support.plain_view import PlainContext, PlainLabelled, PlainView

Case = tuple[NDArray[np.float32], NDArray[np.float32], int]
PROBLEM = Problem(task=Task.BINARY, classes=("a", "b"))


@dataclass(kw_only=True)
class CountingView(PlainView):
    passes: int = 0
    fetched: int = 0

    def blocks(self) -> Iterator[tuple[slice, PlainContext]]:
        self.passes += 1
        return super().blocks()

    def at(self, rows: NDArray[np.int64]) -> PlainContext:
        self.fetched += len(rows)
        return super().at(rows)


def view_of(vectors: NDArray[np.float32], labelled: NDArray[np.float32], block_rows: int = 7) -> CountingView:
    context = PlainContext(
        problem=PROBLEM,
        probabilities=torch.empty(len(vectors), 0),
        vectors=torch.from_numpy(vectors),
        draws=torch.linspace(0, 0.9, len(vectors), dtype=torch.float64),
        labelled=PlainLabelled(vectors=torch.from_numpy(labelled), targets=np.zeros(len(labelled), np.int64)),
    )
    return CountingView(context=context, block_rows=block_rows)


def pick(view: CountingView, count: int) -> Batch:
    return KCenter(StrategyOptions(name="k_center"), PROBLEM).pick(view, count)


def plain_greedy(
    vectors: NDArray[np.float32], labelled: NDArray[np.float32], count: int
) -> tuple[list[int], list[float]]:
    """All distances in float64, the first of the farthest each time; squared distances closer than 1e-6 are equal."""
    x, centres = vectors.astype(np.float64), [c.astype(np.float64) for c in labelled]
    rows: list[int] = []
    scores: list[float] = []
    for _ in range(min(count, len(x))):
        if not centres:
            rows.append(0)
            centres.append(x[0])
            continue
        squares = np.array([min(float(((row - c) ** 2).sum()) for c in centres) for row in x])
        squares[rows] = -1
        farthest = squares.max()
        rows.append(int(np.flatnonzero(squares >= farthest * (1 - 1e-6))[0]))
        scores.append(float(np.sqrt(farthest)))
        centres.append(x[rows[-1]])
    if len(scores) < len(rows):
        squares = np.array([min(float(((row - c) ** 2).sum()) for c in centres[:1]) for row in x])
        scores.insert(0, float(np.sqrt(squares.max())))
    return rows, scores


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    items, dimension, labelled = draw(st.integers(1, 40)), draw(st.integers(1, 6)), draw(st.integers(0, 4))
    kind = draw(st.sampled_from(["normal", "grid", "far from zero", "one item"]))
    vectors = rng.normal(0, 1, (items + labelled, dimension))
    if kind == "grid":
        vectors = rng.integers(-1, 2, vectors.shape).astype(np.float64)
    if kind == "far from zero":
        vectors += 300
    if kind == "one item":
        vectors[:] = vectors[0]
    if draw(st.booleans()):
        vectors[rng.integers(0, len(vectors), 2)] = 0
    if draw(st.booleans()):
        vectors[rng.integers(0, len(vectors), 3)] = vectors[0]
    as_given = vectors.astype(np.float32)
    return as_given[labelled:], as_given[:labelled], draw(st.integers(1, items + 2))


@pytest.mark.parametrize("working_set", [1, 3, 1024])
@settings(deadline=None, max_examples=30)
@given(case=cases())
def test_picks_are_those_of_the_plain_greedy_search(working_set: int, case: Case) -> None:
    vectors, labelled, count = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(k_center, "_LEAST_SET", working_set)
        view = view_of(vectors, labelled)
        batch = pick(view, count)
    rows, scores = plain_greedy(vectors, labelled, count)
    assert batch.rows.tolist() == rows
    np.testing.assert_allclose(batch.scores, scores, rtol=1e-4, atol=1e-4)
    assert view.passes <= 1 + len(rows)


def test_few_candidates_are_looked_at_in_a_mixture() -> None:
    rng = np.random.default_rng(5)
    centres = rng.normal(0, 1, (20, 16))
    vectors = (centres[rng.integers(0, 20, 20_000)] + 0.4 * rng.normal(0, 1, (20_000, 16))).astype(np.float32)
    view = view_of(vectors, vectors[:5].copy(), block_rows=4096)
    batch = pick(view, 50)
    assert batch.rows.tolist() == plain_fast(vectors, vectors[:5], 50)
    assert view.passes <= 5
    assert view.fetched < 3 * len(vectors)


def plain_fast(vectors: NDArray[np.float32], labelled: NDArray[np.float32], count: int) -> list[int]:
    x = vectors.astype(np.float64)
    squares = np.min([((x - c) ** 2).sum(axis=1) for c in labelled.astype(np.float64)], axis=0)
    rows = []
    for _ in range(count):
        rows.append(int(squares.argmax()))
        squares = np.minimum(squares, ((x - x[rows[-1]]) ** 2).sum(axis=1))
        squares[rows] = -1
    return rows


def test_each_pass_is_paid_for_by_a_pick_where_every_distance_keeps_falling() -> None:
    # On a line each pick halves the gap that it lies in: bounds outside the working set are soon out of date.
    vectors = np.linspace(0, 1, 5000, dtype=np.float32)[np.random.default_rng(0).permutation(5000)][:, None]
    view = view_of(vectors, vectors[:1].copy(), block_rows=1000)
    batch = pick(view, 60)
    assert len(set(batch.rows.tolist())) == 60
    assert view.passes <= 61
    assert (np.diff(batch.scores) <= 0).all()


def test_copies_of_one_item_are_picked_in_the_order_of_their_draws() -> None:
    vectors = np.tile(np.random.default_rng(1).normal(0, 1, 33).astype(np.float32), (3000, 1))
    batch = pick(view_of(vectors, vectors[:2].copy(), block_rows=999), 40)
    assert batch.rows.tolist() == list(range(40))
    assert (batch.scores == 0).all()


def test_equally_far_items_are_picked_in_the_order_of_their_draws_from_beyond_the_working_set() -> None:
    # 3,000 items at distance sqrt(2) of each other and of the labelled one, in two copies.
    corners = np.eye(61, dtype=np.float32)
    vectors = np.concatenate([corners[1:]] * 50)
    batch = pick(view_of(vectors, corners[:1].copy(), block_rows=500), 62)
    assert batch.rows.tolist() == [*range(60), 60, 61]
    np.testing.assert_allclose(batch.scores[:60], np.sqrt(2), rtol=1e-5)
    assert (batch.scores[60:] == 0).all()


def test_nothing_is_picked_of_nothing() -> None:
    empty = np.empty((0, 3), np.float32)
    assert len(pick(view_of(empty, empty), 5).rows) == 0
    assert len(pick(view_of(np.ones((4, 3), np.float32), empty), 0).rows) == 0
