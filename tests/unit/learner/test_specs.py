"""What a campaign may ask of models and strategies: each field is checked, and refused by its name."""

import math
from collections.abc import Callable

import pytest

from learner.options import (
    Aggregate,
    DensityOver,
    ModelOptions,
    NeuralOptions,
    Precision,
    Retrain,
    StrategyOptions,
    TextOptions,
    UncertaintyOptions,
)
from learner.problem import Problem, Task
from learner.specs import read_model, read_strategy
from learner.strategies import make_strategy
from sealpool.errors import InvalidArgument
from sealpool.v1 import common_pb2 as c
from sealpool.vocabulary.models import ESTIMATORS, MODELS
from sealpool.vocabulary.strategies import STRATEGIES

NAN, INF = math.nan, math.inf

RANGES: dict[str, tuple[list[float], list[float]]] = {
    # field: what is taken, what is refused
    "l2": ([1e-9, 0.5, 1e9], [-1e-9, NAN, INF]),
    "max_iterations": ([1, 10_000], [10_001]),
    "class_weight": ([1, 2], [3]),
    "retrain": ([1, 2, 3], [4]),
    "validation_share": ([0.01, 0.5], [-0.1, 0.51, NAN, INF]),
    "neural.epochs": ([1, 100_000], [100_001]),
    "neural.batch_size": ([1, 65_536], [65_537]),
    "neural.patience": ([1, 100_000], [100_001]),
    "neural.dropout": ([0, 0.99], [-0.1, 1, NAN, INF]),
    "neural.label_smoothing": ([0.1, 0.99], [-0.1, 1, NAN, INF]),
    "neural.learning_rate": ([1e-9, 1], [-1e-9, NAN, INF]),
    "neural.weight_decay": ([0, 1], [-1e-9, NAN, INF]),
    "neural.max_seconds": ([1e-3, 1e6], [-1, NAN, INF]),
    "neural.max_gradient_norm": ([1e-3, 1e6], [-1, NAN, INF]),
    "neural.precision": ([1, 2, 3], [4]),
    "text.max_tokens": ([1, 512], [65_537]),
    "text.vocabulary": ([1, 10_000_000], [10_000_001]),
    "text.embedding": ([1, 65_536], [65_537]),
    "text.lora_rank": ([1, 65_536], [65_537]),
}
"""Every option of a model that is one number."""


def spec_of(name: str, **fields: object) -> c.ModelSpec:
    spec = c.ModelSpec(name=name, **fields)  # type: ignore[arg-type]
    if name == "transformer":
        spec.text.encoder = spec.text.encoder or "encoder"
    return spec


def put(spec: c.ModelSpec, field: str, value: float) -> c.ModelSpec:
    *parts, name = field.split(".")
    message = getattr(spec, parts[0]) if parts else spec
    setattr(message, name, value)
    return spec


def has(field: str) -> str:
    """Return a model that has an option."""
    return next(name for name, entry in sorted(MODELS.items()) if field in entry.options)


def field_refused(call: Callable[[], object]) -> str:
    with pytest.raises(InvalidArgument) as refused:
        call()
    return refused.value.field


@pytest.mark.parametrize("name", ["", *sorted(MODELS)])
def test_a_model_without_options_is_the_model_of_all_defaults(name: str) -> None:
    text = TextOptions(encoder="encoder") if name == "transformer" else TextOptions()
    assert read_model(spec_of(name)) == ModelOptions(name=name or "logistic_regression", text=text)


def test_what_is_given_is_read() -> None:
    spec = c.ModelSpec(
        name="mlp",
        class_weight=c.CLASS_WEIGHT_BALANCED,
        retrain=c.RETRAIN_AT_SATURATION,
        validation_share=0.2,
        uncertainty=c.UncertaintySpec(estimator="mc_dropout", samples=7, temperature=True, dropout=0.3),
        neural=c.NeuralSpec(
            hidden=[8, 4],
            dropout=0,
            epochs=3,
            batch_size=5,
            learning_rate=0.1,
            weight_decay=0,
            label_smoothing=0.2,
            patience=9,
            max_seconds=11,
            max_gradient_norm=2,
            precision=c.PRECISION_MIXED,
        ),
    )
    assert read_model(spec) == ModelOptions(
        name="mlp",
        balanced=True,
        retrain=Retrain.AT_SATURATION,
        validation_share=0.2,
        uncertainty=UncertaintyOptions(estimator="mc_dropout", samples=7, temperature=True, dropout=0.3),
        neural=NeuralOptions(
            hidden=(8, 4),
            dropout=0,
            epochs=3,
            batch_size=5,
            learning_rate=0.1,
            weight_decay=0,
            label_smoothing=0.2,
            patience=9,
            max_seconds=11,
            max_gradient_norm=2,
            precision=Precision.MIXED,
        ),
    )
    text = c.TextSpec(encoder="e", max_tokens=5, lora_rank=4)
    assert read_model(c.ModelSpec(name="transformer", text=text)).text == TextOptions(
        encoder="e", max_tokens=5, lora_rank=4
    )
    words = c.ModelSpec(name="cnn", text=c.TextSpec(max_tokens=5, vocabulary=6, embedding=7))
    assert read_model(words).text == TextOptions(max_tokens=5, vocabulary=6, embedding=7)
    linear = read_model(c.ModelSpec(l2=0.5, max_iterations=9, class_weight=c.CLASS_WEIGHT_NONE, retrain=c.RETRAIN_WARM))
    assert linear == ModelOptions(l2=0.5, max_iterations=9, retrain=Retrain.WARM)


def test_every_option_of_every_model_has_its_range_tried_here() -> None:
    numbers = {*RANGES, "uncertainty", "neural.hidden", "text.encoder"}
    assert set().union(*(entry.options for entry in MODELS.values())) == numbers


@pytest.mark.parametrize("field", sorted(RANGES))
def test_an_option_is_taken_within_its_range_and_refused_by_name_beyond(field: str) -> None:
    taken, refused = RANGES[field]
    for value in taken:
        read_model(put(spec_of(has(field)), field, value))
    for value in refused:
        assert field_refused(lambda value=value: read_model(put(spec_of(has(field)), field, value))) == (
            f"header.model.{field}"
        )


@pytest.mark.parametrize("name", sorted(MODELS))
def test_an_option_that_the_model_does_not_have_is_refused_by_name(name: str) -> None:
    for field, (taken, _) in RANGES.items():
        spec = put(spec_of(name), field, taken[-1])
        if field in MODELS[name].options:
            read_model(spec)
        else:
            assert field_refused(lambda spec=spec: read_model(spec)) == f"header.model.{field}"


@pytest.mark.parametrize("name", sorted(MODELS))
def test_hidden_layers_and_encoders_are_of_the_models_that_have_them(name: str) -> None:
    hidden = spec_of(name, neural=c.NeuralSpec(hidden=[8]))
    if "neural.hidden" in MODELS[name].options:
        assert read_model(hidden).neural.hidden == (8,)
    else:
        assert field_refused(lambda: read_model(hidden)) == "header.model.neural.hidden"
    encoder = c.ModelSpec(name=name, text=c.TextSpec(encoder="somewhere"))
    if name == "transformer":
        assert read_model(encoder).text.encoder == "somewhere"
        assert field_refused(lambda: read_model(c.ModelSpec(name=name))) == "header.model.text.encoder"
    else:
        assert field_refused(lambda: read_model(encoder)) == "header.model.text.encoder"


@pytest.mark.parametrize("hidden", [[0], [8, 0], [65_537], [1] * 17])
def test_layers_without_units_or_with_too_many_are_refused(hidden: list[int]) -> None:
    assert field_refused(lambda: read_model(spec_of("mlp", neural=c.NeuralSpec(hidden=hidden)))) == (
        "header.model.neural.hidden"
    )


@pytest.mark.parametrize("name", ["oracle", "MLP", " mlp", "x" * 10_000])
def test_a_model_that_there_is_not_is_refused_and_the_answer_stays_short(name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read_model(c.ModelSpec(name=name))
    assert refused.value.field == "header.model.name"
    assert len(refused.value.message) < 1_000


class TestUncertainty:
    @pytest.mark.parametrize("name", ["", *sorted(ESTIMATORS)])
    def test_every_estimator_goes_by_its_name(self, name: str) -> None:
        spec = spec_of("mlp", uncertainty=c.UncertaintySpec(estimator=name))
        assert read_model(spec).uncertainty == UncertaintyOptions(estimator=name or "softmax")

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"estimator": "dropout"}, "estimator"),
            ({"estimator": "ensemble", "samples": 1}, "samples"),
            ({"estimator": "ensemble", "samples": 1_001}, "samples"),
            ({"estimator": "mc_dropout", "dropout": 1}, "dropout"),
            ({"estimator": "mc_dropout", "dropout": -0.1}, "dropout"),
            ({"estimator": "mc_dropout", "dropout": NAN}, "dropout"),
            # what the estimator would not look at
            ({"samples": 20}, "samples"),
            ({"estimator": "softmax", "samples": 20}, "samples"),
            ({"estimator": "softmax", "dropout": 0.5}, "dropout"),
            ({"estimator": "laplace", "dropout": 0.5}, "dropout"),
            ({"estimator": "ensemble", "dropout": 0.5}, "dropout"),
        ],
    )
    def test_what_an_estimator_cannot_have_is_refused_by_name(self, fields: dict[str, object], field: str) -> None:
        spec = spec_of("mlp", uncertainty=c.UncertaintySpec(**fields))  # type: ignore[arg-type]
        assert field_refused(lambda: read_model(spec)) == f"header.model.uncertainty.{field}"

    @pytest.mark.parametrize("samples", [2, 1_000])
    def test_the_ends_of_its_ranges_are_taken(self, samples: int) -> None:
        spec = c.UncertaintySpec(estimator="mc_dropout", samples=samples, dropout=0.999)
        assert read_model(spec_of("mlp", uncertainty=spec)).uncertainty.samples == samples


class TestStrategy:
    def test_defaults_stay_the_strategys(self) -> None:
        assert read_strategy(c.StrategySpec()) == StrategyOptions()
        assert read_strategy(c.StrategySpec(name="badge")) == StrategyOptions(name="badge")

    def test_what_is_given_is_read(self) -> None:
        spec = c.StrategySpec(
            name="information_density",
            base="margin",
            beta=0,
            density_over=c.DENSITY_OVER_POOL,
            positive_class="yes",
            aggregate=c.LABEL_AGGREGATE_MIN,
            neighbors=3,
            radius=2,
            clusters=5,
        )
        assert read_strategy(spec) == StrategyOptions(
            name="information_density",
            base="margin",
            beta=0.0,
            density_over=DensityOver.POOL,
            positive_class="yes",
            aggregate=Aggregate.MIN,
            neighbors=3,
            radius=2,
            clusters=5,
        )
        assert read_strategy(c.StrategySpec(aggregate=c.LABEL_AGGREGATE_MAX)).aggregate is Aggregate.MAX

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"radius": -0.1}, "radius"),
            ({"radius": 2.1}, "radius"),
            ({"radius": NAN}, "radius"),
            ({"density_over": 7}, "density_over"),
            ({"aggregate": 7}, "aggregate"),
        ],
    )
    def test_a_field_beyond_its_range_is_refused_by_name(self, fields: dict[str, object], field: str) -> None:
        assert field_refused(lambda: read_strategy(c.StrategySpec(**fields))) == f"header.strategy.{field}"  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", sorted(STRATEGIES.keys() - {"auto"}))
    def test_an_option_that_the_strategy_does_not_have_is_refused_by_name(self, name: str) -> None:
        entry = STRATEGIES[name]
        problem = Problem(task=Task.BINARY if "binary" in entry.tasks else Task.MULTILABEL, classes=("no", "yes"))
        given = {
            "base": "margin",
            "beta": 0.5,
            "density_over": c.DENSITY_OVER_POOL,
            "positive_class": "yes",
            "aggregate": c.LABEL_AGGREGATE_MAX,
            "neighbors": 3,
            "radius": 0.5,
            "clusters": 3,
        }
        assert entry.options <= given.keys()
        make_strategy(read_strategy(c.StrategySpec(name=name)), problem)
        for field, value in given.items():
            options = read_strategy(c.StrategySpec(name=name, **{field: value}))  # type: ignore[arg-type]
            if field in entry.options:
                make_strategy(options, problem)
            else:
                refused = field_refused(lambda options=options: make_strategy(options, problem))
                assert refused == f"header.strategy.{field}"
