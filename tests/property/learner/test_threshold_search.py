"""GALAXY and DIRECT against plain restatements on lists."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.options import StrategyOptions
from learner.ports import Batch
from learner.problem import Problem, Task
from learner.strategies import class_lines
from learner.strategies.direct import Direct
from learner.strategies.galaxy import Galaxy
from tests.support.plain_view import PlainContext, PlainLabelled, PlainView


def random_case(seed: int, task: Task, items: int, known: int, *, block_rows: int = 7) -> PlainView:
    rng = np.random.default_rng(seed)
    classes = 2 if task is Task.BINARY else 3
    z = rng.normal(0, 2, (items + known, classes))
    p = 1 / (1 + np.exp(-z)) if task is Task.MULTILABEL else np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    truth = z + rng.normal(0, 1.5, z.shape)
    targets = truth[items:] > 0 if task is Task.MULTILABEL else truth[items:].argmax(axis=1)
    probabilities = torch.from_numpy(p.astype(np.float32))
    context = PlainContext(
        problem=Problem(task=task, classes=tuple("abc"[:classes])),
        probabilities=probabilities[:items],
        vectors=torch.zeros(items, 1),
        draws=torch.linspace(0, 0.9, items, dtype=torch.float64),
        labelled=PlainLabelled(vectors=torch.zeros(known, 1), targets=targets, probabilities=probabilities[items:]),
    )
    return PlainView(context=context, block_rows=block_rows)


def margins(view: PlainView, probabilities: torch.Tensor) -> list[list[float]]:
    """One list a line: each item's margin."""
    lines = [1] if view.problem.task is Task.BINARY else range(len(view.problem.classes))
    found = []
    for line in lines:
        if view.problem.multilabel:
            found.append([float(np.float32(2) * p[line] - np.float32(1)) for p in probabilities.numpy()])
        else:
            found.append([float(p[line] - np.delete(p, line).max()) for p in probabilities.numpy()])
    return found


def truths(view: PlainView) -> list[list[bool]]:
    targets = view.labelled.targets
    lines = [1] if view.problem.task is Task.BINARY else range(len(view.problem.classes))
    if view.problem.multilabel:
        return [[bool(row[line]) for row in targets] for line in lines]
    return [[bool(label == line) for label in targets] for line in lines]


def plain_direct(view: PlainView, count: int) -> list[int]:
    known, truth = margins(view, view.labelled.probabilities), truths(view)
    offers = []
    for line, scores in enumerate(margins(view, view.context.probabilities)):
        low = high = 0.0
        if any(truth[line]) and not all(truth[line]):
            edges = [-np.inf, *sorted(set(known[line])), np.inf]
            gaps = []
            for below, above in pairwise(edges):
                pairs = zip(known[line], truth[line], strict=True)
                errors = sum((score >= above) != label for score, label in pairs)
                gaps.append((errors, max(0.0, below, -above), below, above))
            _, _, low, high = min(gaps)
        order = sorted(range(len(scores)), key=lambda row: scores[row])
        middle = (sum(score <= low for score in scores) + sum(score < high for score in scores)) // 2
        above, below, offer = order[middle:], order[:middle][::-1], []
        while above or below:
            offer += above[:1] + below[:1] if above and below else above + below
            above, below = (above[1:], below[1:]) if above and below else ([], [])
        offers.append((sum(truth[line]), line, offer))
    picks: list[int] = []
    while len(picks) < min(count, len(view)):
        for _, _, offer in sorted(offers):
            while offer and offer[0] in picks:
                offer.pop(0)
            if offer and len(picks) < min(count, len(view)):
                picks.append(offer.pop(0))
    return picks


def plain_galaxy(view: PlainView, count: int) -> list[int]:
    """Lines as lists of [score, row or None, label or None], walked anew for every pick."""
    known, truth = margins(view, view.labelled.probabilities), truths(view)
    lines = []
    for line, scores in enumerate(margins(view, view.context.probabilities)):
        items = [[score, row, None] for row, score in enumerate(scores)]
        items += [[score, None, label] for score, label in zip(known[line], truth[line], strict=True)]
        lines.append(sorted(items, key=lambda item: item[0]))
    picks: list[int] = []
    cuts: list[list[int]] | None = None
    while len(picks) < min(count, len(view)):
        stretches = []
        found_cuts: list[list[int]] = []
        for number, items in enumerate(lines):
            labelled = [place for place, item in enumerate(items) if item[2] is not None]
            opposite = [(a, b) for a, b in pairwise(labelled) if items[a][2] != items[b][2]]
            stretches += [(b - a - 1, number, a) for a, b in opposite if b - a > 1]
            found_cuts.append([b for _, b in opposite] or [sum(item[0] <= 0 for item in items)])
        if stretches and cuts is None:
            length, number, start = min(stretches)
            row = lines[number][start + (length + 1) // 2][1]
        else:
            cuts = cuts or found_cuts
            options = []
            for number, items in enumerate(lines):
                for cut in cuts[number]:
                    for step, start in ((-1, cut - 1), (1, cut)):
                        places = range(start, len(items)) if step > 0 else range(start, -1, -1)
                        free = [place for place in places if items[place][2] is None]
                        options += [(abs(place - start), number, start, step, items[place][1]) for place in free[:1]]
            row = min(options)[-1]
        picks.append(row)
        for items in lines:
            for item in items:
                if item[1] == row:
                    item[2] = item[0] > 0
    return picks


def pick(strategy: type[Galaxy | Direct], view: PlainView, count: int) -> Batch:
    return strategy(StrategyOptions(), view.problem).pick(view, count)


@pytest.mark.parametrize(("strategy", "plain"), [(Galaxy, plain_galaxy), (Direct, plain_direct)])
@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 2**32 - 1),
    task=st.sampled_from(list(Task)),
    items=st.integers(1, 25),
    known=st.integers(0, 12),
    count=st.integers(1, 12),
)
def test_picks_are_those_of_the_lines_walked_one_by_one(
    strategy: type[Galaxy | Direct], plain, seed: int, task: Task, items: int, known: int, count: int
) -> None:
    view = random_case(seed, task, items, known)
    batch = pick(strategy, view, count)
    assert batch.rows.tolist() == plain(view, count)
    assert len(set(batch.rows.tolist())) == min(count, items)
    assert ((batch.scores >= 0) & (batch.scores <= 1)).all()


def one_line(scores: list[float], known: list[float], labels: list[int]) -> PlainView:
    """A binary case from margins."""
    p = [torch.tensor([[(1 - x) / 2, (1 + x) / 2] for x in some]).reshape(-1, 2) for some in (scores, known)]
    context = PlainContext(
        problem=Problem(task=Task.BINARY, classes=("no", "yes")),
        probabilities=p[0],
        vectors=torch.zeros(len(scores), 1),
        draws=torch.linspace(0, 0.9, len(scores), dtype=torch.float64),
        labelled=PlainLabelled(vectors=torch.zeros(len(known), 1), targets=np.array(labels), probabilities=p[1]),
    )
    return PlainView(context=context)


def test_galaxy_halves_the_stretch_between_opposite_labels() -> None:
    view = one_line([-0.7, -0.6, -0.5, -0.4, -0.3, 0.9], [-0.8, -0.2], [0, 1])
    assert pick(Galaxy, view, 1).rows.tolist() == [2]


def test_direct_goes_where_labels_turn_not_where_the_prediction_does() -> None:
    view = one_line([-0.55, -0.5, -0.45, 0.0, 0.1], [-0.7, -0.6, -0.4, -0.3, 0.5], [0, 0, 1, 1, 1])
    assert set(pick(Direct, view, 3).rows.tolist()) == {0, 1, 2}


def test_direct_is_not_moved_by_one_wrong_label() -> None:
    known, labels = [-0.9, -0.8, -0.6, -0.5, 0.5, 0.6, 0.7], [0, 1, 0, 0, 1, 1, 1]
    view = one_line([-0.85, -0.82, 0.0, 0.1, -0.1], known, labels)
    assert set(pick(Direct, view, 3).rows.tolist()) == {2, 3, 4}


@pytest.mark.parametrize("strategy", [Galaxy, Direct])
@pytest.mark.parametrize("labels", [[], [0, 0], [1, 1]])
def test_labels_of_one_kind_leave_the_models_own_threshold(strategy: type[Galaxy | Direct], labels: list[int]) -> None:
    view = one_line([-0.9, 0.8, -0.1, 0.05, -0.5], [0.95, -0.95][: len(labels)], labels)
    assert set(pick(strategy, view, 2).rows.tolist()) == {2, 3}


@pytest.mark.parametrize("strategy", [Galaxy, Direct])
@pytest.mark.parametrize("items", [0, 1, 5])
def test_items_that_are_all_alike_are_all_picked(strategy: type[Galaxy | Direct], items: int) -> None:
    for known, labels in (([], []), ([0.3, 0.3], [0, 1])):
        batch = pick(strategy, one_line([0.3] * items, known, labels), 9)
        assert sorted(batch.rows.tolist()) == list(range(items))
        assert np.isfinite(batch.scores).all()


@pytest.mark.parametrize("strategy", [Galaxy, Direct])
def test_past_what_is_held_the_first_rows_are_looked_at(
    strategy: type[Galaxy | Direct], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_lines, "MOST_NUMBERS", 30)
    view = random_case(4, Task.MULTICLASS, 50, 6)
    expected = PlainView(context=view.context.rows(slice(0, 10)))
    assert pick(strategy, view, 5).rows.tolist() == pick(strategy, expected, 5).rows.tolist()
