"""The query strategy of a campaign: checked against what the vocabulary says of it, and what it needs."""

import math
from collections.abc import Set as AbstractSet
from difflib import get_close_matches

from sealpool.errors import InvalidArgument
from sealpool.v1 import common_pb2 as c
from sealpool.v1 import scheduler_pb2 as s
from sealpool.vocabulary.checking import check_choice, check_enum, check_options, check_range, words
from sealpool.vocabulary.model_spec import estimator_of
from sealpool.vocabulary.models import ESTIMATORS
from sealpool.vocabulary.strategies import STRATEGIES, Need, StrategyEntry, resolve_strategy

DEFAULT_STRATEGY = "entropy"
FALLBACK = "typiclust"
"""What picks while the labels are too much alike to train the model that the campaign's own strategy needs: by what the
items are like alone, which suits few labels best (Hacohen, Dekel and Weinshall, ICML 2022)."""

_DENSITY = "information_density"
_TASKS = {c.TASK_KIND_BINARY: "binary", c.TASK_KIND_MULTICLASS: "multiclass", c.TASK_KIND_MULTILABEL: "multilabel"}
_DEFAULTS = frozenset({("density_over", c.DENSITY_OVER_CANDIDATES), ("aggregate", c.LABEL_AGGREGATE_MEAN)})
"""Who writes out the default of an option has not chosen it: older clients always did."""


def strategy_of(spec: s.CampaignSpec) -> StrategyEntry:
    """Return what the vocabulary says of a strategy whose name was checked."""
    return STRATEGIES[resolve_strategy(spec.strategy.name or DEFAULT_STRATEGY) or DEFAULT_STRATEGY]


def needs_of(spec: s.CampaignSpec) -> AbstractSet[Need]:
    """Return what the campaign's strategy needs, its base included."""
    entry = strategy_of(spec)
    base = _base_of(entry, spec.strategy)
    return entry.needs if base is None else entry.needs | base.needs


def needs_model(spec: s.CampaignSpec) -> bool:
    """Whether the campaign's strategy can pick with a trained model alone."""
    return Need.MODEL in needs_of(spec)


def own_names(strategy: c.StrategySpec) -> c.StrategySpec:
    """Return a strategy that was checked with its own names in place of aliases and other spellings."""
    named = c.StrategySpec()
    named.CopyFrom(strategy)
    named.name = resolve_strategy(strategy.name) or strategy.name
    named.base = resolve_strategy(strategy.base) or strategy.base
    return named


def strategy_to_ask_for(spec: s.CampaignSpec) -> c.StrategySpec:
    """Return the strategy as the learner takes it.

    Campaigns of earlier versions may have options that their strategy does not look at; the learner refuses those.
    """
    asked = own_names(spec.strategy)
    asked.name = strategy_of(spec).name
    has = strategy_of(spec).options | {"name"}
    for field, _ in spec.strategy.ListFields():
        if field.name not in has:
            asked.ClearField(field.name)  # type: ignore[arg-type]  # the stub lists the names
    return asked


def check_strategy(spec: s.CampaignSpec) -> None:
    """Check a strategy, its options and what it needs; InvalidArgument names the field."""
    strategy = spec.strategy
    _check_name("spec.strategy.name", strategy.name)
    _check_name("spec.strategy.base", strategy.base)
    check_enum("spec.strategy.density_over", strategy.density_over, values=c.DensityOver.values())
    check_enum("spec.strategy.aggregate", strategy.aggregate, values=c.LabelAggregate.values())
    entry = strategy_of(spec)
    told = {field.name for field, value in strategy.ListFields() if (field.name, value) not in _DEFAULTS} - {"name"}
    check_options("spec.strategy", entry.name, told, entry.options)
    _check_numbers(entry, strategy)
    _check_base(entry, strategy)
    _check_task(spec)
    _check_samples(spec)
    _check_positive_class(spec)
    if spec.policy.growth == c.CANDIDATE_GROWTH_PICK and not entry.per_item:
        raise InvalidArgument(
            "spec.policy.growth", f"{entry.name} picks a batch as a whole: candidates cannot grow after each pick"
        )


def _check_name(field: str, name: str) -> None:
    if not name or resolve_strategy(name):
        return
    near = get_close_matches(name.lower(), STRATEGIES, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`sealpool strategies` lists them"
    raise InvalidArgument(field, f"{name[:140]!r} is no query strategy; {hint}")


def _check_numbers(entry: StrategyEntry, strategy: c.StrategySpec) -> None:
    check_range("spec.strategy.radius", strategy.radius, 0, 2)
    if not strategy.HasField("beta"):
        return
    least_is_allowed = entry.name == _DENSITY
    if not (math.isfinite(strategy.beta) and (strategy.beta > 0 or (strategy.beta == 0 and least_is_allowed))):
        bound = "≥ 0" if least_is_allowed else "> 0"
        raise InvalidArgument("spec.strategy.beta", f"{strategy.beta} is not a finite number {bound}")


def _check_base(entry: StrategyEntry, strategy: c.StrategySpec) -> None:
    if not strategy.base:
        return
    # One that weights a base itself would need a second one; scores below zero have no power and no proportion.
    bases = {name for name, one in STRATEGIES.items() if one.per_item and one.scores_are_positive and not one.base}
    base = resolve_strategy(strategy.base)
    if base not in bases:
        raise InvalidArgument("spec.strategy.base", f"{base} cannot be the base of {entry.name}: take {words(bases)}")


def _base_of(entry: StrategyEntry, strategy: c.StrategySpec) -> StrategyEntry | None:
    name = resolve_strategy(strategy.base or entry.base) if "base" in entry.options else None
    return STRATEGIES[name] if name else None


def _check_task(spec: s.CampaignSpec) -> None:
    entry = strategy_of(spec)
    task = _TASKS[spec.task]
    base = _base_of(entry, spec.strategy)
    for field, one in (("name", entry), ("base", base)):
        if one is not None and task not in one.tasks:
            raise InvalidArgument(f"spec.strategy.{field}", f"{one.name} is for {words(one.tasks)} tasks, not {task}")
    if spec.strategy.aggregate > c.LABEL_AGGREGATE_MEAN and task != "multilabel":
        raise InvalidArgument("spec.strategy.aggregate", f"is for multilabel tasks, not {task}")


def _check_samples(spec: s.CampaignSpec) -> None:
    estimator = estimator_of(spec.model)
    if Need.SAMPLES in needs_of(spec) and not estimator.draws:
        drawing = words({name for name, one in ESTIMATORS.items() if one.draws})
        raise InvalidArgument(
            "spec.model.uncertainty.estimator",
            f"{strategy_of(spec).name} needs posterior samples, which {estimator.name} does not draw: take {drawing}",
        )


def _check_positive_class(spec: s.CampaignSpec) -> None:
    strategy = spec.strategy
    entry = strategy_of(spec)
    looks = _base_of(entry, strategy) or entry
    if strategy.positive_class:
        check_choice("spec.strategy.positive_class", strategy.positive_class, frozenset(spec.classes))
    elif "positive_class" in looks.options and spec.task != c.TASK_KIND_BINARY:
        raise InvalidArgument("spec.strategy.positive_class", f"{looks.name} must be told which class it is")
