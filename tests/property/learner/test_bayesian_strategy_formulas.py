"""Scores of posterior samples are those of their formulas, stated again in plain NumPy; draws by score are fair."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner.options import Aggregate, StrategyOptions
from learner.problem import Problem, Task
from learner.strategies.bald import Bald
from learner.strategies.consensus_kl import ConsensusKL
from learner.strategies.power_bald import PowerBald
from learner.strategies.random import Random
from learner.strategies.stochastic_top_k import StochasticTopK
from learner.strategies.variation_ratios import VariationRatios
from learner.strategies.vote_entropy import VoteEntropy
from sealpool.errors import InvalidArgument
from sealpool.vocabulary.strategies import STRATEGIES
from tests.support.plain_view import PlainContext

Floats = NDArray[np.floating]

CLASSES = {
    "bald": Bald,
    "consensus_kl": ConsensusKL,
    "variation_ratios": VariationRatios,
    "vote_entropy": VoteEntropy,
}
COMBINED = {Aggregate.MEAN: np.mean, Aggregate.MAX: np.max, Aggregate.MIN: np.min}


def entropy_of(p: Floats) -> float:
    return float(sum(-x * math.log(x) for x in p if x > 0))


def divergence(p: Floats, q: Floats) -> float:
    return float(sum(x * math.log(x / y) for x, y in zip(p, q, strict=True) if x > 0))


def plain_score(name: str, samples: Floats) -> float:
    """One item's score of its samples (K, c), float64."""
    shares = np.bincount([int(np.argmax(p)) for p in samples], minlength=samples.shape[1]) / len(samples)
    consensus = samples.mean(axis=0)
    match name:
        case "bald":
            return entropy_of(consensus) - float(np.mean([entropy_of(p) for p in samples]))
        case "consensus_kl":
            return float(np.mean([divergence(p, consensus) for p in samples]))
        case "vote_entropy":
            return entropy_of(shares)
        case "variation_ratios":
            return float(1 - shares.max())
    raise AssertionError(name)


def plain_multilabel_score(name: str, samples: Floats, aggregate: Aggregate) -> float:
    """The score of each label's p against 1 − p, the negative outcome first so that it wins a vote at ½."""
    labels = [plain_score(name, np.stack([1 - p, p], axis=1)) for p in samples.T]
    return float(COMBINED[aggregate](labels))


def context_of(samples: torch.Tensor, task: Task = Task.MULTICLASS, draws: torch.Tensor | None = None) -> PlainContext:
    _, items, classes = samples.shape
    return PlainContext(
        problem=Problem(task=task, classes=tuple(f"c{number}" for number in range(classes))),
        probabilities=samples.mean(dim=0),
        vectors=torch.ones(items, 2),
        draws=torch.linspace(0, 0.9, items, dtype=torch.float64) if draws is None else draws,
        samples=samples,
    )


@st.composite
def contexts(draw: st.DrawFn) -> PlainContext:
    multilabel = draw(st.booleans())
    classes = draw(st.integers(1 if multilabel else 2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(1, 7)), draw(st.integers(1, 9)), classes
    z = rng.normal(0, draw(st.sampled_from([1.0, 20.0, 200.0])), shape[1:])
    z = z + rng.normal(0, draw(st.sampled_from([0.0, 1e-3, 1.0, 50.0])), shape)
    e = np.exp(z - z.max(axis=2, keepdims=True))
    # tanh, because exp(-z) overflows where z is large
    p = (1 + np.tanh(z / 2)) / 2 if multilabel else e / e.sum(axis=2, keepdims=True)
    kind = draw(st.sampled_from([torch.float32, torch.float64]))
    task = Task.MULTILABEL if multilabel else Task.BINARY if classes == 2 else Task.MULTICLASS
    return context_of(torch.from_numpy(p).to(kind), task)


@pytest.mark.parametrize("name", sorted(CLASSES))
@settings(deadline=None, max_examples=60)
@given(context=contexts(), aggregate=st.sampled_from(Aggregate))
def test_scores_follow_the_formula(name: str, context: PlainContext, aggregate: Aggregate) -> None:
    assert context.samples is not None
    scores = CLASSES[name](StrategyOptions(name=name, aggregate=aggregate), context.problem).score(context)
    assert scores.dtype == context.samples.dtype
    samples = context.samples.numpy().astype(np.float64).transpose(1, 0, 2)
    if context.problem.multilabel:
        expected = [plain_multilabel_score(name, item, aggregate) for item in samples]
    else:
        expected = [plain_score(name, item) for item in samples]
    noise = 3e-6 if scores.dtype == torch.float32 else 1e-12
    np.testing.assert_allclose(scores.numpy(), expected, atol=noise)
    assert (scores >= 0).all()


@settings(deadline=None, max_examples=40)
@given(context=contexts())
def test_the_divergence_from_the_consensus_is_the_mutual_information(context: PlainContext) -> None:
    scores = [strategy(StrategyOptions(), context.problem).score(context) for strategy in (Bald, ConsensusKL)]
    assert scores[0].equal(scores[1])


@pytest.mark.parametrize("task", [Task.MULTICLASS, Task.MULTILABEL])
def test_samples_that_nearly_agree_keep_their_digits_in_float32(task: Task) -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(0, 1, (50, 4)) + rng.normal(0, 2e-3, (8, 50, 4))
    e = np.exp(z)
    p = e / e.sum(axis=2, keepdims=True) if task is Task.MULTICLASS else 1 / (1 + 1 / e)
    scores = {
        kind: Bald(StrategyOptions(), context.problem).score(context).double()
        for kind in (torch.float32, torch.float64)
        for context in [context_of(torch.from_numpy(p.astype(np.float32)).to(kind), task)]
    }
    assert scores[torch.float64].max() < 1e-5  # what the difference of two entropies in float32 is off by
    torch.testing.assert_close(scores[torch.float32], scores[torch.float64], rtol=5e-3, atol=0)


@pytest.mark.parametrize("name", sorted(CLASSES))
@pytest.mark.parametrize("task", [Task.MULTICLASS, Task.MULTILABEL])
def test_samples_that_agree_score_zero(name: str, task: Task) -> None:
    one = torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.25, 0.5], [1.0, 1e-38, 1e-45]])
    context = context_of(one.expand(5, 3, 3), task)
    scores = CLASSES[name](StrategyOptions(), context.problem).score(context)
    torch.testing.assert_close(scores, torch.zeros(3), atol=1e-7, rtol=0)


def test_a_sample_votes_for_a_label_only_where_it_is_more_likely_than_not() -> None:
    context = context_of(torch.tensor([[[0.5, 0.75]], [[0.5, 0.5]]]), Task.MULTILABEL)
    options = StrategyOptions(aggregate=Aggregate.MIN)
    assert VariationRatios(options, context.problem).score(context).tolist() == [0]
    options = StrategyOptions(aggregate=Aggregate.MAX)
    assert VariationRatios(options, context.problem).score(context).tolist() == [0.5]
    unanimous = context_of(torch.tensor([[[0.5]], [[0.25]]]), Task.MULTILABEL)
    assert VoteEntropy(options, unanimous.problem).score(unanimous).tolist() == [0]


@pytest.mark.parametrize("name", ["bald", "consensus_kl"])
def test_certain_samples_that_differ_tell_all_there_is_to_know(name: str) -> None:
    context = context_of(torch.eye(3)[:, None, :])
    assert CLASSES[name](StrategyOptions(), context.problem).score(context).item() == pytest.approx(math.log(3))


def test_a_probability_that_vanishes_beside_the_others_gives_a_finite_score() -> None:
    context = context_of(torch.tensor([[[1e-30, 1.0]], [[1.0, 1e-45]], [[0.0, 1.0]]]))
    score = Bald(StrategyOptions(), context.problem).score(context).item()
    assert score == pytest.approx(math.log(3) - 2 / 3 * math.log(2), abs=1e-6)


def gumbel(draw: float) -> float:
    return -math.log(-math.log(draw))


@settings(deadline=None, max_examples=40)
@given(context=contexts(), beta=st.sampled_from([None, 0.25, 1.0, 8.0]), seed=st.integers(0, 99))
def test_power_bald_adds_gumbel_noise_to_the_logarithm(context: PlainContext, beta: float | None, seed: int) -> None:
    context.draws = torch.from_numpy(np.random.default_rng(seed).random(len(context.vectors)))
    bald = Bald(StrategyOptions(), context.problem).score(context).double()
    scores = PowerBald(StrategyOptions(name="power_bald", beta=beta), context.problem).score(context)
    assert scores.dtype == torch.float64
    for score, information, draw in zip(scores.tolist(), bald.tolist(), context.draws.tolist(), strict=True):
        if information > 0:
            expected = math.log(information) * (1.0 if beta is None else beta) + gumbel(draw)
            assert score == pytest.approx(expected, abs=1e-9)
        else:
            assert score == -1e30


class Given:
    """A base that scores what it was given."""

    needs = STRATEGIES["bald"].needs
    density_over = None

    def __init__(self, scores: torch.Tensor) -> None:
        self._scores = scores

    def score(self, context: object) -> torch.Tensor:
        return self._scores


def drawn_context(draws: torch.Tensor) -> PlainContext:
    return context_of(torch.full((1, len(draws), 2), 0.5), draws=draws)


def test_items_are_drawn_in_proportion_to_the_power_of_their_score() -> None:
    shares, beta, times = torch.tensor([1.0, 2.0, 5.0, 0.0]), 2.0, 20_000
    draws = torch.from_numpy(np.random.default_rng(3).random(4 * times))
    scores = StochasticTopK(Given(shares.repeat(times)), beta).score(drawn_context(draws)).reshape(times, 4)
    first = torch.bincount(scores.argmax(dim=1), minlength=4) / times
    np.testing.assert_allclose(first.numpy(), (shares**2 / (shares**2).sum()).numpy(), atol=0.012)  # 4 σ


def test_after_the_first_the_next_is_drawn_in_proportion_to_what_is_left() -> None:
    times = 20_000
    draws = torch.from_numpy(np.random.default_rng(4).random(3 * times))
    scores = StochasticTopK(Given(torch.tensor([1.0, 2.0, 5.0]).repeat(times)), 1.0).score(drawn_context(draws))
    order = scores.reshape(times, 3).argsort(dim=1, descending=True)
    seconds = torch.bincount(order[order[:, 0] == 2, 1], minlength=3).double()
    np.testing.assert_allclose((seconds / seconds.sum()).numpy(), [1 / 3, 2 / 3, 0], atol=0.018)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [1e-3, 1.0, 1e300])
def test_a_score_of_zero_comes_after_the_least_score_and_is_finite(kind: torch.dtype, beta: float) -> None:
    least = float(np.nextafter(np.zeros(1, torch.empty(0, dtype=kind).numpy().dtype), 1)[0])
    scores = torch.tensor([0.0, least, 2.0, -1e-9], dtype=kind)
    draws = torch.tensor([1 - 2.0**-53, 0.0, 0.0, 1 - 2.0**-53], dtype=torch.float64)
    noisy = StochasticTopK(Given(scores), beta).score(drawn_context(draws))
    assert torch.isfinite(noisy).all()
    assert noisy[[0, 3]].max() < noisy[1] < noisy[2]
    assert noisy[0] == noisy[3]


def test_scores_and_draws_are_left_as_they_were() -> None:
    scores, draws = torch.tensor([0.0, 2.0], dtype=torch.float64), torch.tensor([0.0, 0.5], dtype=torch.float64)
    before = scores.clone(), draws.clone()
    StochasticTopK(Given(scores), 2.0).score(drawn_context(draws))
    assert scores.equal(before[0])
    assert draws.equal(before[1])


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan, math.inf])
def test_a_coldness_that_means_nothing_is_refused(beta: float) -> None:
    problem = Problem(task=Task.BINARY, classes=("a", "b"))
    with pytest.raises(InvalidArgument, match=r"^header.strategy.beta: "):
        PowerBald(StrategyOptions(beta=beta), problem)
    with pytest.raises(InvalidArgument, match=r"^header.strategy.beta: "):
        StochasticTopK(Random(StrategyOptions(), problem), beta)


@pytest.mark.parametrize("name", [*sorted(CLASSES), "power_bald"])
def test_a_strategy_asks_for_what_the_catalogue_says(name: str) -> None:
    problem = Problem(task=Task.BINARY, classes=("a", "b"))
    strategy = (CLASSES | {"power_bald": PowerBald})[name](StrategyOptions(name=name), problem)
    assert strategy.needs == STRATEGIES[name].needs
    assert strategy.density_over is None


def test_drawing_by_a_score_asks_for_what_the_score_does() -> None:
    assert StochasticTopK(Given(torch.ones(1)), 1.0).needs == STRATEGIES["bald"].needs
    problem = Problem(task=Task.BINARY, classes=("a", "b"))
    assert StochasticTopK(Random(StrategyOptions(), problem), 1.0).needs == frozenset()


@pytest.mark.parametrize("name", sorted(CLASSES))
@pytest.mark.parametrize("task", [Task.MULTICLASS, Task.MULTILABEL])
def test_no_candidates_have_no_scores(name: str, task: Task) -> None:
    context = context_of(torch.empty(3, 0, 4), task)
    assert CLASSES[name](StrategyOptions(), context.problem).score(context).shape == (0,)
