"""Query strategies by name: one file each, and one line here. What each needs is in sealpool.vocabulary.strategies."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace

from learner.options import StrategyOptions
from learner.ports import BatchStrategy, QueryStrategy, ScoringStrategy
from learner.problem import Problem
from learner.strategies.active_search import ActiveSearch
from learner.strategies.badge import Badge
from learner.strategies.bait import Bait
from learner.strategies.bald import Bald
from learner.strategies.batch_bald import BatchBald
from learner.strategies.cal import Cal
from learner.strategies.cluster_margin import ClusterMargin
from learner.strategies.consensus_kl import ConsensusKL
from learner.strategies.cvirs import Cvirs
from learner.strategies.direct import Direct
from learner.strategies.discriminative import Discriminative
from learner.strategies.drop_query import DropQuery
from learner.strategies.entropy import Entropy
from learner.strategies.expected_gradient_length import ExpectedGradientLength
from learner.strategies.galaxy import Galaxy
from learner.strategies.graph_density import GraphDensity
from learner.strategies.information_density import InformationDensity
from learner.strategies.k_center import KCenter
from learner.strategies.k_means import KMeans
from learner.strategies.label_cardinality import LabelCardinality
from learner.strategies.least_confidence import LeastConfidence
from learner.strategies.margin import Margin
from learner.strategies.most_likely_positive import MostLikelyPositive
from learner.strategies.power_bald import PowerBald
from learner.strategies.prob_cover import ProbCover
from learner.strategies.random import Random
from learner.strategies.ratio import Ratio
from learner.strategies.stochastic_top_k import StochasticTopK
from learner.strategies.typiclust import TypiClust
from learner.strategies.variation_ratios import VariationRatios
from learner.strategies.vote_entropy import VoteEntropy
from sealpool.errors import InvalidArgument
from sealpool.vocabulary.strategies import STRATEGIES, StrategyEntry, resolve_strategy

_FIELD = "header.strategy"

_SCORING: Mapping[str, Callable[[StrategyOptions, Problem], ScoringStrategy]] = {
    "random": Random,
    "least_confidence": LeastConfidence,
    "margin": Margin,
    "ratio": Ratio,
    "entropy": Entropy,
    "label_cardinality": LabelCardinality,
    "vote_entropy": VoteEntropy,
    "consensus_kl": ConsensusKL,
    "variation_ratios": VariationRatios,
    "bald": Bald,
    "power_bald": PowerBald,
    "cal": Cal,
    "expected_gradient_length": ExpectedGradientLength,
    "most_likely_positive": MostLikelyPositive,
}

_WEIGHTING: Mapping[str, Callable[[StrategyOptions, ScoringStrategy], ScoringStrategy]] = {
    "information_density": lambda options, base: InformationDensity(base, options.beta, options.density_over),
    "stochastic_top_k": lambda options, base: StochasticTopK(base, options.beta),
}
"""Those that make another strategy's score their own."""

_BATCH: Mapping[str, Callable[[StrategyOptions, Problem], BatchStrategy]] = {
    "cvirs": Cvirs,
    "batch_bald": BatchBald,
    "k_center": KCenter,
    "k_means": KMeans,
    "typiclust": TypiClust,
    "prob_cover": ProbCover,
    "graph_density": GraphDensity,
    "discriminative": Discriminative,
    "badge": Badge,
    "bait": Bait,
    "cluster_margin": ClusterMargin,
    "drop_query": DropQuery,
    "active_search": ActiveSearch,
    "galaxy": Galaxy,
    "direct": Direct,
}

REGISTERED = frozenset({*_SCORING, *_WEIGHTING, *_BATCH, "auto"})
"""Every name that the learner serves; `auto` is one of the others, chosen by learner.choosing."""


def make_strategy(options: StrategyOptions, problem: Problem) -> QueryStrategy:
    """Return a strategy for a problem, by its own name or an alias. `auto` must have been chosen for before.

    Raises
    ------
    InvalidArgument
        There is none of that name, it has no meaning for the task, or an option does not fit.
    """
    entry = strategy_entry(options.name)
    _check(entry, options, problem)
    if entry.name in _WEIGHTING:
        return _WEIGHTING[entry.name](options, _make_base(entry, options, problem))
    if entry.name in _SCORING:
        return _SCORING[entry.name](options, problem)
    return _BATCH[entry.name](options, problem)


def strategy_entry(name: str, field: str = f"{_FIELD}.name") -> StrategyEntry:
    """Return what is known of a strategy by its own name or an alias; InvalidArgument if there is none."""
    own = resolve_strategy(name)
    if own is None:
        raise InvalidArgument(field, f"{name[:140]!r} is none of {', '.join(sorted(STRATEGIES))}")
    return STRATEGIES[own]


def _make_base(entry: StrategyEntry, options: StrategyOptions, problem: Problem) -> ScoringStrategy:
    field = f"{_FIELD}.base"
    base = strategy_entry(options.base or entry.base, field)
    if base.name not in _SCORING or not base.scores_are_positive:
        raise InvalidArgument(field, f"{base.name} cannot be the base of {entry.name}")
    _check_task(base, problem, field)
    return _SCORING[base.name](replace(options, name=base.name, base=""), problem)


def _check(entry: StrategyEntry, options: StrategyOptions, problem: Problem) -> None:
    _check_task(entry, problem, f"{_FIELD}.name")
    default = StrategyOptions()
    for field in fields(StrategyOptions):
        given = getattr(options, field.name)
        if field.name != "name" and given != getattr(default, field.name) and field.name not in entry.options:
            has = ", ".join(sorted(entry.options)) or "none"
            raise InvalidArgument(f"{_FIELD}.{field.name}", f"{entry.name} has no such option; it has {has}")


def _check_task(entry: StrategyEntry, problem: Problem, field: str) -> None:
    if problem.task.value not in entry.tasks:
        raise InvalidArgument(field, f"{entry.name} has no meaning in a {problem.task.value} campaign")
