"""Scores are those of other libraries, where those are right. Each check runs where the library is installed.

Not compared, because they are not what their papers say: small-text's expected gradient length adds the gradient's
absolute values, and its CategoryVectorInconsistencyAndRanking takes the Hamming distance for the entropy distance and
positions in the sorted order for ranks.
"""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from learner.options import StrategyOptions
from learner.problem import Problem, Task
from learner.strategies.bald import Bald
from learner.strategies.consensus_kl import ConsensusKL
from learner.strategies.entropy import Entropy
from learner.strategies.least_confidence import LeastConfidence
from learner.strategies.margin import Margin
from learner.strategies.variation_ratios import VariationRatios
from learner.strategies.vote_entropy import VoteEntropy
from tests.support.plain_view import PlainContext

ITEMS, CLASSES, SAMPLES = 200, 5, 8
PROBLEM = Problem(task=Task.MULTICLASS, classes=tuple(f"c{number}" for number in range(CLASSES)))

Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def samples() -> Floats:
    """(K, n, c) probabilities of a committee, some of them nearly 0 or 1."""
    rng = np.random.default_rng(7)
    z = rng.normal(0, 3, (ITEMS, CLASSES)) + rng.normal(0, 1, (SAMPLES, ITEMS, CLASSES))
    e = np.exp(z)
    return e / e.sum(axis=2, keepdims=True)


def our_scores(strategy: type, samples: Floats) -> Floats:
    context = PlainContext(
        problem=PROBLEM,
        probabilities=torch.from_numpy(samples[0]),
        vectors=torch.ones(ITEMS, 2),
        draws=torch.linspace(0, 0.9, ITEMS, dtype=torch.float64),
        samples=torch.from_numpy(samples),
    )
    return strategy(StrategyOptions(), PROBLEM).score(context).numpy()


class GivenClassifier:
    """What modAL and small-text ask for probabilities: each item is its own place."""

    def __init__(self, probabilities: Floats) -> None:
        self._probabilities = probabilities

    def predict_proba(self, places: NDArray[np.int64]) -> Floats:
        return self._probabilities[places]


class GivenSampler:
    """What small-text asks for samples."""

    def __init__(self, samples: Floats) -> None:
        self._samples = samples

    def predict_proba(self, places: NDArray[np.int64], dropout_sampling: int) -> Floats:
        return self._samples[:dropout_sampling, places].transpose(1, 0, 2)


class GivenCommittee:
    """What modAL asks for votes."""

    classes_ = np.arange(CLASSES)

    def __init__(self, samples: Floats) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def vote(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._samples[:, places].argmax(axis=2).T


def test_uncertainty_is_that_of_modal(samples: Floats) -> None:
    modal = pytest.importorskip("modAL.uncertainty", reason="modAL-python is not installed")
    classifier, places = GivenClassifier(samples[0]), np.arange(ITEMS)
    pairs = {
        LeastConfidence: modal.classifier_uncertainty(classifier, places),
        Margin: 1 - modal.classifier_margin(classifier, places),
        Entropy: modal.classifier_entropy(classifier, places),
    }
    for strategy, theirs in pairs.items():
        np.testing.assert_allclose(our_scores(strategy, samples), theirs, atol=1e-12)


def test_vote_entropy_is_that_of_modal(samples: Floats) -> None:
    modal = pytest.importorskip("modAL.disagreement", reason="modAL-python is not installed")
    theirs = modal.vote_entropy(GivenCommittee(samples), np.arange(ITEMS))
    np.testing.assert_allclose(our_scores(VoteEntropy, samples), theirs, atol=1e-12)


@pytest.mark.parametrize(
    ("strategy", "method"),
    [(LeastConfidence, "least_confident"), (Margin, "margin_sampling"), (Entropy, "entropy")],
)
def test_uncertainty_is_that_of_scikit_activeml(samples: Floats, strategy: type, method: str) -> None:
    pool = pytest.importorskip("skactiveml.pool", reason="scikit-activeml is not installed")
    theirs = pool.uncertainty_scores(samples[0], method=method)
    np.testing.assert_allclose(our_scores(strategy, samples), theirs, atol=1e-12)


def test_disagreement_is_that_of_scikit_activeml(samples: Floats) -> None:
    pool = pytest.importorskip("skactiveml.pool", reason="scikit-activeml is not installed")
    votes = samples.argmax(axis=2).T
    pairs = {
        ConsensusKL: pool.average_kl_divergence(samples.copy(), eps=1e-12),  # it writes to what it is given
        VoteEntropy: pool.vote_entropy(votes, np.arange(CLASSES)),
        VariationRatios: pool.variation_ratios(votes),
    }
    for strategy, theirs in pairs.items():
        np.testing.assert_allclose(our_scores(strategy, samples), theirs, atol=1e-9)


@pytest.mark.parametrize(
    ("strategy", "name", "sign"),
    [(LeastConfidence, "LeastConfidence", -1), (Margin, "BreakingTies", -1), (Entropy, "PredictionEntropy", 1)],
)
def test_uncertainty_orders_items_as_small_text_does(samples: Floats, strategy: type, name: str, sign: int) -> None:
    query_strategies = pytest.importorskip("small_text.query_strategies", reason="small-text is not installed")
    confidence = getattr(query_strategies, name)().get_confidence
    theirs = sign * confidence(GivenClassifier(samples[0]), np.arange(ITEMS), None, None, None)
    offset = our_scores(strategy, samples) - theirs
    np.testing.assert_allclose(offset, offset[0], atol=1e-12)


def test_bald_picks_what_small_text_does(samples: Floats) -> None:
    query_strategies = pytest.importorskip("small_text.query_strategies", reason="small-text is not installed")
    everything = np.arange(ITEMS)
    bald = query_strategies.BALD(dropout_samples=SAMPLES)
    theirs = bald.query(GivenSampler(samples), everything, everything, everything[:0], None, 20)
    ours = np.argsort(-our_scores(Bald, samples))[:20]
    assert sorted(theirs.tolist()) == sorted(ours.tolist())


def test_bald_is_that_of_batchbald_redux(samples: Floats) -> None:
    batchbald = pytest.importorskip("batchbald_redux.batchbald", reason="batchbald_redux is not installed")
    logarithms = torch.from_numpy(samples).permute(1, 0, 2).log()
    theirs = batchbald.get_bald_batch(logarithms, ITEMS)
    ours = our_scores(Bald, samples)
    np.testing.assert_allclose(ours[theirs.indices], theirs.scores, atol=1e-12)
    assert math.isclose(ours.max(), theirs.scores[0], abs_tol=1e-12)
