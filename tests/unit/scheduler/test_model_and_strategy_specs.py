"""Models and strategies of a campaign's spec against the vocabulary: options, tasks, needs, ranges."""

from typing import Any

import pytest

from scheduler.domain.spec import check_spec
from scheduler.domain.strategy_spec import needs_model, strategy_of, strategy_to_ask_for
from sealpool.errors import InvalidArgument
from sealpool.v1 import common_pb2 as c
from sealpool.v1 import scheduler_pb2 as s
from sealpool.vocabulary.models import ESTIMATORS, MODELS
from sealpool.vocabulary.strategies import MULTILABEL, STRATEGIES, Need
from tests.unit.scheduler.world import make_spec

NAN, INFINITY = float("nan"), float("inf")
DRAWING = c.UncertaintySpec(estimator="mc_dropout")
THREE = {"task": c.TASK_KIND_MULTICLASS, "classes": ["a", "b", "c"]}
SEVERAL = {"task": c.TASK_KIND_MULTILABEL, "classes": ["a", "b", "c"]}
NON_NEGATIVE = (
    "random", "least_confidence", "margin", "ratio", "entropy", "most_likely_positive", "vote_entropy", "consensus_kl",
    "variation_ratios", "bald", "expected_gradient_length", "cal",
)  # fmt: skip


def strategy_spec(name: str, **options: Any) -> s.CampaignSpec:
    """Return a right campaign of a strategy: the task, estimator and class that it asks for are there."""
    entry = STRATEGIES[name]
    return make_spec(
        **({} if "binary" in entry.tasks else SEVERAL),
        strategy=c.StrategySpec(name=name, **options),
        model=c.ModelSpec(uncertainty=DRAWING if Need.SAMPLES in entry.needs else None),
    )


def refused(spec: s.CampaignSpec) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        check_spec(spec, oracles=frozenset({"external"}))
    return caught.value


def accept(spec: s.CampaignSpec) -> None:
    check_spec(spec, oracles=frozenset({"external"}))


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_of_the_vocabulary_begins_a_campaign_under_any_of_its_names(name: str) -> None:
    for alias in (name, name.upper(), name.replace("_", "-"), *STRATEGIES[name].aliases):
        spec = strategy_spec(name)
        spec.strategy.name = alias
        accept(spec)
        assert strategy_of(spec).name == name


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_option_that_a_strategy_does_not_have_is_refused_by_its_name(name: str) -> None:
    told: dict[str, Any] = {
        "base": "margin",
        "beta": 0.5,
        "density_over": c.DENSITY_OVER_POOL,
        "positive_class": "a",
        "aggregate": c.LABEL_AGGREGATE_MAX,
        "neighbors": 3,
        "radius": 0.5,
        "clusters": 3,
    }
    assert STRATEGIES[name].options <= told.keys()
    for option in told.keys() - STRATEGIES[name].options:
        error = refused(strategy_spec(name, **{option: told[option]}))
        assert error.field == f"spec.strategy.{option}"
        assert f"{name} has no such option; it has" in error.message
    for option in STRATEGIES[name].options - {"aggregate"}:
        accept(strategy_spec(name, **{option: told[option]}))


def test_a_written_out_default_is_no_option() -> None:
    accept(strategy_spec("k_center", density_over=c.DENSITY_OVER_CANDIDATES, aggregate=c.LABEL_AGGREGATE_MEAN))


@pytest.mark.parametrize("base", STRATEGIES)
def test_what_can_be_weighted_by_density_scores_items_one_by_one_and_never_below_zero(base: str) -> None:
    spec = strategy_spec("information_density", base=base)
    spec.model.uncertainty.CopyFrom(DRAWING)
    if base in NON_NEGATIVE:
        accept(spec)
    elif base == "label_cardinality":
        error = refused(spec)
        assert (error.field, "is for multilabel tasks, not binary" in error.message) == ("spec.strategy.base", True)
    else:
        assert "cannot be the base of information_density" in refused(spec).message


def test_neither_draws_nor_what_has_a_base_itself_are_the_base_of_draws() -> None:
    for base in ("stochastic_top_k", "power_bald", "GumbelTopK", "k_center", "information_density"):
        assert refused(strategy_spec("stochastic_top_k", base=base)).field == "spec.strategy.base"
    accept(strategy_spec("stochastic_top_k", base="margin"))


@pytest.mark.parametrize(
    ("name", "beta", "fits"),
    [
        ("information_density", 0, True),
        ("information_density", -0.1, False),
        ("information_density", NAN, False),
        ("stochastic_top_k", 0, False),
        ("stochastic_top_k", 0.1, True),
        ("power_bald", INFINITY, False),
    ],
)
def test_exponents_are_finite_and_within_their_bounds(name: str, beta: float, fits: bool) -> None:
    spec = strategy_spec(name, beta=beta)
    if fits:
        accept(spec)
    else:
        assert refused(spec).field == "spec.strategy.beta"


@pytest.mark.parametrize("radius", [-0.1, 2.1, NAN])
def test_a_radius_is_a_cosine_distance(radius: float) -> None:
    assert refused(strategy_spec("prob_cover", radius=radius)).field == "spec.strategy.radius"


def test_an_unknown_strategy_is_told_what_was_meant() -> None:
    error = refused(make_spec(strategy=c.StrategySpec(name="margn")))
    assert "'margn' is no query strategy; did you mean margin?" in error.message
    assert "`sealpool strategies`" in refused(make_spec(strategy=c.StrategySpec(name="zzzzzz"))).message


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_goes_with_the_tasks_that_it_has_a_meaning_for(name: str) -> None:
    for changes, task in (({}, "binary"), (THREE, "multiclass"), (SEVERAL, MULTILABEL)):
        spec = strategy_spec(name)
        right = make_spec(**changes, strategy=spec.strategy, model=spec.model)
        if "positive_class" in STRATEGIES[name].options and not STRATEGIES[name].base:
            right.strategy.positive_class = "a"
        if task in STRATEGIES[name].tasks:
            accept(right)
        else:
            error = refused(right)
            assert (error.field, f"not {task}" in error.message) == ("spec.strategy.name", True)


def test_what_looks_for_a_class_must_be_told_which() -> None:
    for name in ("most_likely_positive", "active_search", "GreedySearch"):
        accept(make_spec(strategy=c.StrategySpec(name=name)))
        error = refused(make_spec(**THREE, strategy=c.StrategySpec(name=name)))
        assert (error.field, "must be told" in error.message) == ("spec.strategy.positive_class", True)
    density = c.StrategySpec(name="information_density", base="RelevanceSampling")
    assert refused(make_spec(**THREE, strategy=density)).field == "spec.strategy.positive_class"
    for base in ("", "margin"):
        accept(make_spec(**THREE, strategy=c.StrategySpec(name="information_density", base=base)))


def test_an_aggregate_is_of_several_labels() -> None:
    max_of_labels = c.StrategySpec(name="margin", aggregate=c.LABEL_AGGREGATE_MAX)
    accept(make_spec(**SEVERAL, strategy=max_of_labels))
    assert refused(make_spec(strategy=max_of_labels)).field == "spec.strategy.aggregate"


@pytest.mark.parametrize(
    "strategy",
    [c.StrategySpec(name="bald"), c.StrategySpec(name="information_density", base="vote_entropy")],
    ids=lambda one: one.name,
)
def test_what_needs_posterior_samples_needs_an_estimator_that_draws_them(strategy: c.StrategySpec) -> None:
    error = refused(make_spec(strategy=strategy))
    assert error.field == "spec.model.uncertainty.estimator"
    assert "which softmax does not draw: take ensemble, laplace, mc_dropout" in error.message
    for name, entry in ESTIMATORS.items():
        if entry.draws:
            model = c.ModelSpec(uncertainty=c.UncertaintySpec(estimator=name))
            accept(make_spec(strategy=strategy, model=model))


def test_candidates_grow_after_each_pick_only_of_what_scores_them_one_by_one() -> None:
    by_pick = c.PolicySpec(growth=c.CANDIDATE_GROWTH_PICK)
    for name, entry in STRATEGIES.items():
        spec = strategy_spec(name)
        spec.policy.CopyFrom(by_pick)
        if entry.per_item:
            accept(spec)
        else:
            assert refused(spec).field == "spec.policy.growth"


MODEL_OPTIONS: dict[str, Any] = {
    "l2": 2.0,
    "max_iterations": 5,
    "class_weight": c.CLASS_WEIGHT_BALANCED,
    "retrain": c.RETRAIN_AT_SATURATION,
    "validation_share": 0.5,
    "uncertainty": c.UncertaintySpec(estimator="ensemble", samples=2, temperature=True),
    "neural.hidden": [1, 65_536],
    "neural.dropout": 0.0,
    "neural.epochs": 1,
    "neural.batch_size": 1,
    "neural.learning_rate": 0.1,
    "neural.weight_decay": 0.0,
    "neural.label_smoothing": 0.5,
    "neural.patience": 1,
    "neural.max_seconds": 1.0,
    "neural.max_gradient_norm": 1.0,
    "neural.precision": c.PRECISION_MIXED,
    "text.encoder": "/models/a",
    "text.max_tokens": 512,
    "text.vocabulary": 9,
    "text.embedding": 9,
    "text.lora_rank": 9,
}


def model_spec(name: str, **options: Any) -> s.CampaignSpec:
    """Return a campaign of a model; "neural.epochs" is an option of its part."""
    model = c.ModelSpec(name=name)
    if name == "transformer":
        model.text.encoder = "/models/a"
    for option, value in options.items():
        part, _, field = option.rpartition(".")
        model.MergeFrom(c.ModelSpec(**({part: {field: value}} if part else {field: value})))
    return make_spec(model=model)


@pytest.mark.parametrize("name", MODELS)
def test_an_option_that_a_model_does_not_have_is_refused_by_its_name(name: str) -> None:
    assert MODELS[name].options <= MODEL_OPTIONS.keys()
    accept(model_spec(name, **{option: MODEL_OPTIONS[option] for option in MODELS[name].options}))
    for option in MODEL_OPTIONS.keys() - MODELS[name].options:
        error = refused(model_spec(name, **{option: MODEL_OPTIONS[option]}))
        assert error.field == f"spec.model.{option}"
        assert f"{name} has no such option; it has" in error.message


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("", "retrain", 9),
        ("", "validation_share", 0.51),
        ("", "validation_share", NAN),
        ("", "uncertainty.estimator", "guess"),
        ("", "uncertainty.samples", 20),
        ("mlp", "neural.hidden", [5, 0]),
        ("mlp", "neural.hidden", [65_537]),
        ("mlp", "neural.hidden", [1] * 17),
        ("mlp", "neural.dropout", 1),
        ("mlp", "neural.dropout", -0.1),
        ("mlp", "neural.dropout", NAN),
        ("mlp", "neural.learning_rate", INFINITY),
        ("mlp", "neural.learning_rate", -1),
        ("mlp", "neural.weight_decay", -1),
        ("mlp", "neural.label_smoothing", 1),
        ("mlp", "neural.max_seconds", NAN),
        ("mlp", "neural.max_gradient_norm", -1),
        ("mlp", "neural.precision", 9),
        ("mlp", "neural.epochs", 100_001),
        ("mlp", "neural.patience", 100_001),
        ("mlp", "neural.batch_size", 65_537),
        ("cnn", "text.max_tokens", 65_537),
        ("cnn", "text.vocabulary", 10_000_001),
        ("transformer", "text.lora_rank", 65_537),
        ("transformer", "text.max_tokens", 513),
        ("transformer", "text.encoder", "a" * 4_097),
        ("transformer", "text.encoder", "a\0"),
        ("cnn", "text.embedding", 65_537),
    ],
)
def test_a_models_numbers_stay_within_their_ranges(name: str, option: str, value: Any) -> None:
    assert refused(model_spec(name, **{option: value})).field == f"spec.model.{option}"


@pytest.mark.parametrize(
    ("estimator", "option", "value", "fits"),
    [
        ("mc_dropout", "samples", 1, False),
        ("mc_dropout", "samples", 1_001, False),
        ("laplace", "samples", 2, True),
        ("mc_dropout", "dropout", 0.5, True),
        ("mc_dropout", "dropout", 1, False),
        ("mc_dropout", "dropout", -0.5, False),
        ("mc_dropout", "dropout", NAN, False),
        ("ensemble", "dropout", 0.5, False),
        ("softmax", "temperature", True, True),
    ],
)
def test_an_estimators_numbers_are_its_own(estimator: str, option: str, value: float, fits: bool) -> None:
    spec = make_spec(model=c.ModelSpec(uncertainty=c.UncertaintySpec(**{"estimator": estimator, option: value})))
    if fits:
        accept(spec)
    else:
        assert refused(spec).field == f"spec.model.uncertainty.{option}"


def test_a_transformer_says_which_encoder_it_begins_from() -> None:
    error = refused(make_spec(model=c.ModelSpec(name="transformer")))
    assert (error.field, "is required" in error.message) == ("spec.model.text.encoder", True)


def test_a_base_that_needs_a_model_makes_its_owner_need_one() -> None:
    assert needs_model(make_spec())
    assert needs_model(make_spec(strategy=c.StrategySpec(name="information_density", base="random")))
    free = {name for name in STRATEGIES if not needs_model(strategy_spec(name))}
    assert free == {
        *("random", "auto", "k_center", "k_means", "typiclust", "prob_cover", "graph_density"),
        *("discriminative", "active_search"),
    }


def test_options_that_an_earlier_version_let_pass_are_not_sent_to_the_learner() -> None:
    old = make_spec(strategy=c.StrategySpec(name="entropy", base="margin", beta=2, positive_class="b"))
    assert strategy_to_ask_for(old) == c.StrategySpec(name="entropy")
    assert strategy_to_ask_for(make_spec()) == c.StrategySpec(name="entropy")
    kept = c.StrategySpec(name="information_density", base="margin", beta=2)
    assert strategy_to_ask_for(make_spec(strategy=kept)) == kept
