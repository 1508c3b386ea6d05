"""Efficient non-myopic search against the expected utility written out, item by item."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner.options import StrategyOptions
from learner.problem import Problem, Task
from learner.strategies import active_search
from learner.strategies.active_search import HORIZON, PRIOR, ActiveSearch
from sealpool.errors import InvalidArgument
from tests.support.plain_view import PlainContext, PlainLabelled, PlainView

CLASSES = ("a", "b", "c")


def view_of(
    vectors: NDArray[np.float32], known: NDArray[np.float32], labels: list[int], *, task: Task = Task.MULTICLASS
) -> PlainView:
    classes = CLASSES[:2] if task is Task.BINARY else CLASSES
    targets = np.array(labels, np.int64)
    problem = Problem(task=task, classes=classes)
    context = PlainContext(
        problem=problem,
        probabilities=torch.empty(len(vectors), 0),
        vectors=torch.from_numpy(vectors),
        draws=torch.linspace(0, 0.9, len(vectors), dtype=torch.float64),
        labelled=PlainLabelled(
            vectors=torch.from_numpy(known),
            targets=np.eye(len(classes), dtype=np.bool_)[targets] if problem.multilabel else targets,
        ),
    )
    return PlainView(context=context)


def random_case(seed: int, items: int, known: int, *, task: Task = Task.MULTICLASS) -> PlainView:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(0.3, 1, (items + known, 4)).astype(np.float32)
    labels = rng.integers(0, 2 if task is Task.BINARY else 3, known).tolist()
    return view_of(vectors[:items], vectors[items:], labels, task=task)


def similarity(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return max(0.0, float(first @ second) / lengths) if lengths else 0.0


class Plain:
    """The model and the search with everything looked up anew."""

    def __init__(self, view: PlainView, neighbors: int) -> None:
        self.vectors = view.context.vectors.double().numpy()
        labels = view.labelled.targets
        positive = labels[:, 1] if labels.ndim == 2 else labels == 1
        self.observed = [
            (self.reach(vector, None, neighbors), bool(label))
            for vector, label in zip(view.labelled.vectors.double().numpy(), positive, strict=True)
        ]
        self.neighbors = neighbors
        self.left = list(range(len(self.vectors)))

    def reach(self, vector: NDArray[np.float64], own: int | None, neighbors: int) -> dict[int, float]:
        lengths = np.linalg.norm(self.vectors, axis=1) * np.linalg.norm(vector)
        cosines = self.vectors @ vector / np.where(lengths > 0, lengths, 1)
        order = sorted((row for row in range(len(self.vectors)) if row != own), key=lambda row: -cosines[row])
        return {row: similarity(vector, self.vectors[row]) for row in order[:neighbors]}

    def chance(self, row: int, observed: list[tuple[dict[int, float], bool]]) -> float:
        hits = sum(reach[row] for reach, label in observed if label and row in reach)
        weights = sum(reach[row] for reach, _ in observed if row in reach)
        return (PRIOR + hits) / (1 + weights)

    def utility(self, row: int, budget: int) -> float:
        own = self.chance(row, self.observed)
        reach = self.reach(self.vectors[row], row, self.neighbors)
        total = own
        for label, share in ((True, own), (False, 1 - own)):
            after = [self.chance(other, [*self.observed, (reach, label)]) for other in self.left if other != row]
            total += share * sum(sorted(after, reverse=True)[: budget - 1])
        return total

    def pick(self, count: int) -> tuple[list[int], list[float]]:
        picks, scores = [], []
        for place in range(min(count, len(self.vectors))):
            utilities = {row: self.utility(row, HORIZON * min(count, len(self.vectors)) - place) for row in self.left}
            best = next(row for row in self.left if utilities[row] >= max(utilities.values()) - 1e-7)
            picks.append(best)
            scores.append(utilities[best])
            self.left.remove(best)
            self.observed.append((self.reach(self.vectors[best], best, self.neighbors), False))
        return picks, scores


def pick(view: PlainView, count: int, neighbors: int = 0, positive: str = "b") -> tuple[list[int], list[float]]:
    options = StrategyOptions(name="active_search", positive_class=positive, neighbors=neighbors)
    batch = ActiveSearch(options, view.problem).pick(view, count)
    return batch.rows.tolist(), batch.scores.tolist()


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    task=st.sampled_from(list(Task)),
    items=st.integers(1, 30),
    known=st.integers(0, 8),
    neighbors=st.integers(1, 6),
    count=st.integers(1, 4),
)
def test_picks_maximise_the_expected_utility_written_out(
    seed: int, task: Task, items: int, known: int, neighbors: int, count: int
) -> None:
    view = random_case(seed, items, known, task=task)
    rows, scores = pick(view, count, neighbors)
    expected_rows, expected_scores = Plain(view, neighbors).pick(count)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)
    # Picks may part where two utilities differ by less than float32 similarities tell.
    if rows != expected_rows:
        apart = next(place for place, row in enumerate(rows) if row != expected_rows[place])
        plain = Plain(view, neighbors)
        for row in rows[:apart]:
            plain.left.remove(row)
            plain.observed.append((plain.reach(plain.vectors[row], row, neighbors), False))
        budget = HORIZON * min(count, items) - apart
        chosen, other = (plain.utility(found[apart], budget) for found in (rows, expected_rows))
        assert chosen == pytest.approx(other, abs=1e-5)


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), items=st.integers(1, 12), size=st.integers(0, 14), exchanged=st.integers(1, 5))
def test_sums_after_an_exchange_are_those_of_sorting_anew(seed: int, items: int, size: int, exchanged: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.choice([-1.0, 0.1, 0.25, 0.5, rng.random()], items)
    exchanged = min(exchanged, items)
    changed = np.array([rng.permutation(items)[:exchanged] for _ in range(3)])
    after = rng.choice([0.0, 0.3, 0.6], (3, exchanged - 1))
    found = active_search._Top(values, size, exchanged).sum_after(changed, after)
    for row in range(3):
        kept = np.delete(np.maximum(values, 0), changed[row])
        expected = np.sort(np.concatenate([kept, after[row]]))[::-1][:size].sum()
        assert found[row] == pytest.approx(expected)


def test_a_cluster_around_a_positive_is_searched_before_one_around_a_negative() -> None:
    rng = np.random.default_rng(0)
    near = np.eye(4)[0] + rng.normal(0, 0.05, (20, 4))
    far = np.eye(4)[1] + rng.normal(0, 0.05, (20, 4))
    known = np.eye(4)[:2].astype(np.float32)
    view = view_of(np.concatenate([far, near]).astype(np.float32), known, [1, 0])
    assert all(row >= 20 for row in pick(view, 2, neighbors=15)[0])


def test_without_a_label_the_item_that_tells_about_most_others_comes_first() -> None:
    lonely = np.eye(8)[1:8]
    crowd = np.eye(8)[0] + np.random.default_rng(0).normal(0, 0.05, (6, 8))
    view = view_of(np.concatenate([lonely, crowd]).astype(np.float32), np.empty((0, 8), np.float32), [])
    rows, scores = pick(view, 2, neighbors=5)
    assert rows[0] >= 7
    assert np.isfinite(scores).all()


def test_the_last_pick_of_a_batch_is_the_likeliest_positive() -> None:
    view = random_case(3, 30, 10)
    plain = Plain(view, 6)
    rows, scores = pick(view, 1, neighbors=6)
    assert scores[0] == pytest.approx(max(plain.chance(row, plain.observed) for row in plain.left), rel=1e-5)
    assert scores[0] == pytest.approx(plain.chance(rows[0], plain.observed), rel=1e-5)


def test_considering_only_the_most_probable_ranks_those_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    view = random_case(5, 40, 10)
    full = pick(view, 1, neighbors=8)
    monkeypatch.setattr(active_search, "_MOST_SIMILARITIES", 1)
    monkeypatch.setattr(active_search, "_FEWEST_CONSIDERED", 30)
    assert pick(view, 1, neighbors=8) == full


@pytest.mark.parametrize("items", [0, 1, 5])
def test_items_that_are_all_alike_or_zero_are_all_picked(items: int) -> None:
    for value in (0, 1):
        vectors = np.full((items, 3), value, np.float32)
        rows, scores = pick(view_of(vectors, np.full((2, 3), value, np.float32), [1, 0]), 9)
        assert sorted(rows) == list(range(items))
        assert np.isfinite(scores).all()


def test_an_unknown_class_a_missing_one_and_negative_neighbors_are_refused() -> None:
    problem = Problem(task=Task.MULTICLASS, classes=CLASSES)
    for options, field in (
        (StrategyOptions(positive_class="x"), "positive_class"),
        (StrategyOptions(), "positive_class"),
        (StrategyOptions(positive_class="a", neighbors=-1), "neighbors"),
    ):
        with pytest.raises(InvalidArgument, match=f"header.strategy.{field}"):
            ActiveSearch(options, problem)
    ActiveSearch(StrategyOptions(), Problem(task=Task.BINARY, classes=("no", "yes")))
