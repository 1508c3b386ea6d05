"""BatchBALD against joint entropies written out over every labelling of a batch."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner.options import StrategyOptions
from learner.problem import Problem, Task
from learner.strategies import batch_bald
from learner.strategies.batch_bald import BatchBald
from learner.strategies.joint_entropy import JointEntropy
from tests.support.plain_view import PlainContext, PlainView


def view_of(samples: NDArray[np.float32], *, seed: int = 0, block_rows: int = 7) -> PlainView:
    """`samples` (K, n, c)."""
    _, items, classes = samples.shape
    problem = Problem(task=Task.MULTICLASS, classes=tuple(f"c{number}" for number in range(classes)))
    tensor = torch.from_numpy(samples)
    context = PlainContext(
        problem=problem,
        probabilities=tensor.mean(dim=0),
        vectors=torch.zeros(items, 1),
        draws=torch.linspace(0, 0.9, items, dtype=torch.float64),
        samples=tensor,
    )
    return PlainView(context=context, seed=seed, block_rows=block_rows)


def random_samples(seed: int, count: int, items: int, classes: int, sharpness: float = 2.0) -> NDArray[np.float32]:
    z = np.random.default_rng(seed).normal(0, sharpness, (count, items, classes))
    p = np.exp(z - z.max(axis=2, keepdims=True))
    return (p / p.sum(axis=2, keepdims=True)).astype(np.float32)


def entropy(p: NDArray[np.float64]) -> float:
    return float(sum(-x * math.log(x) for x in p.ravel() if x > 0))


def information(samples: NDArray[np.float32], batch: list[int]) -> float:
    """H(y_1 … y_b) − Σ_i E_k[H(y_i | k)], over all c^b labellings."""
    p = samples.astype(np.float64)
    count, _, classes = p.shape
    joint = [
        np.mean([math.prod(p[k, item, label] for item, label in zip(batch, labels, strict=True)) for k in range(count)])
        for labels in itertools.product(range(classes), repeat=len(batch))
    ]
    return entropy(np.array(joint)) - sum(np.mean([entropy(p[k, item]) for k in range(count)]) for item in batch)


def plain_greedy(samples: NDArray[np.float32], count: int) -> tuple[list[int], list[float], float]:
    """Return the picks, what each added, and the narrowest lead of one."""
    batch: list[int] = []
    lead = 1.0
    totals = [0.0]
    for _ in range(min(count, samples.shape[1])):
        found = {item: information(samples, [*batch, item]) for item in range(samples.shape[1]) if item not in batch}
        best = next(item for item, value in found.items() if value >= max(found.values()) - 1e-9)
        lead = min([lead, *(found[best] - value for item, value in found.items() if item != best)])
        batch.append(best)
        totals.append(found[best])
    return batch, np.diff(totals).tolist(), lead


def pick(view: PlainView, count: int) -> tuple[list[int], list[float]]:
    batch = BatchBald(StrategyOptions(name="batch_bald"), view.problem).pick(view, count)
    return batch.rows.tolist(), batch.scores.tolist()


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    items=st.integers(1, 9),
    classes=st.integers(2, 4),
    count=st.integers(1, 4),
    sharpness=st.sampled_from([0.3, 2.0, 30.0]),
)
def test_picks_and_scores_are_those_of_the_joint_entropies_written_out(
    seed: int, items: int, classes: int, count: int, sharpness: float
) -> None:
    samples = random_samples(seed, 5, items, classes, sharpness)
    rows, scores = pick(view_of(samples), count)
    expected_rows, expected_scores, lead = plain_greedy(samples, count)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-7)
    if lead > 1e-6:  # float32 probabilities do not sum to 1 exactly
        assert rows == expected_rows


@pytest.mark.parametrize("seed", range(5))
def test_looking_at_bounds_first_changes_no_pick(seed: int) -> None:
    samples = random_samples(seed, 20, 150, 3)
    probabilities = torch.from_numpy(samples)
    rows, scores = pick(view_of(samples, seed=seed), 6)
    joint, left = JointEntropy(20, seed=seed, device=torch.device("cpu")), list(range(150))
    for row, score in zip(rows, scores, strict=True):
        gains = joint.gains(probabilities)
        assert row == max(left, key=lambda item: gains[item].item())
        assert score == pytest.approx(gains[row].item(), abs=1e-12)
        left.remove(row)
        joint.add(probabilities[:, row])
    assert joint.exact


def test_bounds_are_never_below_what_they_bound() -> None:
    probabilities = torch.from_numpy(random_samples(3, 12, 60, 4))
    joint = JointEntropy(12, seed=0, device=torch.device("cpu"), most=100, sampled=80)
    for item in range(8):
        gains = joint.gains(probabilities)
        coarse, fine = (joint.bounds(probabilities, likeliest) for likeliest in (1, 2))
        assert (coarse >= fine - 1e-12).all()
        assert (fine >= gains - 1e-12).all()
        joint.add(probabilities[:, item])
    assert not joint.exact
    assert len(joint) == 80


def test_sampled_configurations_estimate_what_all_of_them_say() -> None:
    probabilities = torch.from_numpy(random_samples(5, 10, 40, 3, 1.0))
    exact = JointEntropy(10, seed=0, device=torch.device("cpu"))
    estimates = [JointEntropy(10, seed=seed, device=torch.device("cpu"), most=50, sampled=200) for seed in range(30)]
    for item in range(6):
        exact.add(probabilities[:, item])
        for estimate in estimates:
            estimate.add(probabilities[:, item])
    expected = exact.gains(probabilities[:, 6:])
    found = torch.stack([estimate.gains(probabilities[:, 6:]) for estimate in estimates])
    assert exact.exact
    assert not estimates[0].exact
    np.testing.assert_allclose(found.mean(dim=0), expected, rtol=0.02)
    np.testing.assert_allclose(found, expected.expand_as(found), rtol=0.3)


def test_a_batch_says_no_more_than_which_sample_it_is() -> None:
    samples = random_samples(1, 6, 40, 5)
    rows, scores = pick(view_of(samples), 40)
    assert sorted(rows) == list(range(40))
    assert sum(scores) <= math.log(6) + 0.05
    assert np.isfinite(scores).all()


def test_picks_do_not_depend_on_blocks_nor_on_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = random_samples(2, 8, 90, 3)
    expected = pick(view_of(samples, block_rows=90), 7)
    assert pick(view_of(samples, block_rows=11), 7)[0] == expected[0]
    monkeypatch.setattr(batch_bald, "_HELD_NUMBERS", 8 * 3 * 10)
    assert pick(view_of(samples, block_rows=11), 7)[0] == expected[0]


def test_the_same_item_again_tells_less_than_another() -> None:
    samples = random_samples(4, 8, 3, 4)
    twice = np.concatenate([samples[:, :1], samples[:, :1], samples[:, 1:]], axis=1)
    rows, _ = pick(view_of(twice), 2)
    assert set(rows) != {0, 1}


@pytest.mark.parametrize("items", [0, 1, 5])
def test_items_that_tell_nothing_are_picked_in_order(items: int) -> None:
    samples = np.full((4, items, 3), 1 / 3, np.float32)
    rows, scores = pick(view_of(samples), 9)
    assert rows == list(range(items))
    assert scores == pytest.approx([0.0] * items, abs=1e-6)


def test_certain_samples_that_disagree_are_told_apart() -> None:
    samples = np.zeros((2, 4, 2), np.float32)
    samples[0, :, 0] = samples[1, :, 1] = 1
    rows, scores = pick(view_of(samples), 3)
    assert rows == [0, 1, 2]
    assert scores == pytest.approx([math.log(2), 0, 0])
