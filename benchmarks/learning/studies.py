"""What is tried out: for each situation the strategies, how many labels, and what is measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.learning.campaign import Arm, Round, Trial
from benchmarks.learning.texts import LabelledTexts
from learner.options import Aggregate, ModelOptions, StrategyOptions, UncertaintyOptions
from learner.problem import class_counts

_LAPLACE: Final = ModelOptions(uncertainty=UncertaintyOptions(estimator="laplace"))
_RARE_SHARES: Final = (0.002, 0.01)
_RARE_CONCEPTS: Final = 2
"""Of each seed."""
_FEW: Final = 10

Measures = dict[str, Callable[[Round], float]]


def accuracy(played: Round) -> float:
    """Return the accuracy in percent; 0 without a model."""
    return 100 * played.quality.accuracy if played.quality else 0.0


def macro_f1(played: Round) -> float:
    """Return macro-F1 in percent; 0 without a model."""
    return 100 * played.quality.macro_f1 if played.quality else 0.0


def micro_f1(played: Round) -> float:
    """Return micro-F1 in percent; 0 without a model."""
    return 100 * played.quality.micro_f1 if played.quality else 0.0


def mean_average_precision(played: Round) -> float:
    """Return the mean of the classes' average precision in percent; 0 without a model."""
    return 100 * played.quality.mean_average_precision if played.quality else 0.0


def concept_precision(played: Round) -> float:
    """Return the average precision of a binary problem's positive class in percent; 0 without a model."""
    return 100 * played.quality.classes[1].average_precision if played.quality else 0.0


def positives_found(played: Round) -> float:
    """Return how many of the labels are positives of a binary problem."""
    return float(played.counts[1])


def plain(*names: str) -> tuple[Arm, ...]:
    """Return strategies with their defaults, on logistic regression."""
    return tuple(Arm(name=name, strategy=StrategyOptions(name=name)) for name in names)


def sampled(*names: str) -> tuple[Arm, ...]:
    """Return strategies that need posterior samples, on logistic regression with a Laplace approximation."""
    return tuple(Arm(name=f"{name} (laplace)", strategy=StrategyOptions(name=name), model=_LAPLACE) for name in names)


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """Campaigns of several arms on the same trials.

    Parameters
    ----------
    multilabel
        On which kind of data.
    draw
        The trials of a seed.
    shown
        After how many batches the table shows what was measured.
    about
        What a trial is, in words.
    """

    multilabel: bool
    arms: Sequence[Arm]
    batch: int
    rounds: int
    shown: Sequence[int]
    measures: Measures
    draw: Callable[[LabelledTexts, int], list[Trial]]
    about: str

    def fits(self, texts: LabelledTexts) -> bool:
        """Whether it can be run on some data."""
        return self.multilabel == texts.problem.multilabel


def _cold(texts: LabelledTexts, seed: int) -> list[Trial]:
    return [texts.draw(seed, candidates=6_000, held_out=2_000)]


def _cold_few(texts: LabelledTexts, seed: int) -> list[Trial]:
    drawn = np.random.default_rng([seed, 1]).permutation(len(texts.problem.classes))[:_FEW]
    some = texts.only(tuple(texts.problem.classes[column] for column in sorted(drawn.tolist())))
    return [some.draw(seed, candidates=6_000, held_out=2_000)]


def _many(texts: LabelledTexts, seed: int) -> list[Trial]:
    return [texts.draw(seed, candidates=6_000, held_out=2_000, start=1_000)]


def _several(texts: LabelledTexts, seed: int) -> list[Trial]:
    return [texts.draw(seed, candidates=4_000, held_out=2_000, start=500)]


def _large(texts: LabelledTexts, seed: int) -> list[Trial]:
    return [texts.draw(seed, candidates=6_000, held_out=2_000, start=200)]


def _rare(texts: LabelledTexts, seed: int) -> list[Trial]:
    shares = class_counts(texts.problem, texts.targets) / len(texts.texts)
    rare = np.flatnonzero((shares >= _RARE_SHARES[0]) & (shares <= _RARE_SHARES[1]))
    concepts = np.random.default_rng([seed, 2]).permutation(rare)[:_RARE_CONCEPTS]
    return [
        texts.draw_rare(
            seed, texts.problem.classes[column], candidates=6_000, held_out=4_000, positives=5, negatives=95
        )
        for column in concepts.tolist()
    ]


_SEARCH: Final = (
    *plain("random", "auto", "entropy", "information_density", "most_likely_positive"),
    *plain("active_search", "galaxy", "direct"),
)
_ENTROPIES: Final = tuple(
    Arm(name=f"entropy, {how.value} over labels", strategy=StrategyOptions(name="entropy", aggregate=how))
    for how in Aggregate
)
_FOUND: Final[Measures] = {"average precision, %": concept_precision, "positives found": positives_found}
_RARE_ABOUT: Final = (
    "one class of 0.2 to 1 % against the rest, 2 a seed; 5 positives and 95 negatives labelled, of 6,000 candidates"
)

STUDIES: Final = {
    "cold_start": Study(
        multilabel=False,
        arms=plain("random", "margin", "k_center", "k_means", "typiclust", "prob_cover", "auto"),
        batch=100,
        rounds=6,
        shown=(1, 2, 4, 6),
        measures={"accuracy, %": accuracy},
        draw=_cold,
        about="no labels at first, 6,000 candidates of all classes",
    ),
    "cold_start_few_classes": Study(
        multilabel=False,
        arms=plain("random", "margin", "k_center", "k_means", "typiclust", "prob_cover", "auto"),
        batch=10,
        rounds=10,
        shown=(1, 2, 5, 10),
        measures={"accuracy, %": accuracy},
        draw=_cold_few,
        about="no labels at first, all candidates of 10 classes",
    ),
    "many_labels": Study(
        multilabel=False,
        arms=(
            *plain("random", "auto", "entropy", "margin", "least_confidence", "badge", "cluster_margin"),
            *plain("typiclust"),
        ),
        batch=200,
        rounds=3,
        shown=(0, 1, 2, 3),
        measures={"accuracy, %": accuracy},
        draw=_many,
        about="1,000 random labels at first, of 6,000 candidates of all classes",
    ),
    "posterior_samples": Study(
        multilabel=False,
        arms=(*plain("random", "margin"), *sampled("random", "bald", "power_bald")),
        batch=200,
        rounds=2,
        shown=(0, 1, 2),
        measures={"accuracy, %": accuracy},
        draw=_many,
        about="1,000 random labels at first, of 6,000 candidates of all classes",
    ),
    "large_batch": Study(
        multilabel=False,
        arms=(
            *plain("random", "margin", "cluster_margin", "badge", "k_center", "k_means", "typiclust"),
            Arm(name="stochastic_top_k", strategy=StrategyOptions(name="stochastic_top_k", base="margin")),
        ),
        batch=1_000,
        rounds=1,
        shown=(0, 1),
        measures={"accuracy, %": accuracy, "macro-F1, %": macro_f1},
        draw=_large,
        about="200 random labels at first, then 1,000 at once, of 6,000 candidates of all classes",
    ),
    "several_labels": Study(
        multilabel=True,
        arms=(
            *plain("random", "auto"),
            *_ENTROPIES,
            *plain("cvirs", "label_cardinality", "badge"),
        ),
        batch=250,
        rounds=2,
        shown=(0, 1, 2),
        measures={"mean average precision, %": mean_average_precision, "micro-F1, %": micro_f1},
        draw=_several,
        about="any number of classes a text, most of them rare; 500 random labels at first, of 4,000 candidates",
    ),
    "rare_concept": Study(
        multilabel=False,
        arms=_SEARCH,
        batch=20,
        rounds=4,
        shown=(0, 1, 2, 4),
        measures=_FOUND,
        draw=_rare,
        about=_RARE_ABOUT,
    ),
    "rare_concept_of_several_labels": Study(
        multilabel=True,
        arms=_SEARCH,
        batch=20,
        rounds=4,
        shown=(0, 1, 2, 4),
        measures=_FOUND,
        draw=_rare,
        about=_RARE_ABOUT,
    ),
}
