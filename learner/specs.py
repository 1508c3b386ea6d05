"""What a campaign chooses of the learner, from messages: models and strategies, each field checked."""

import math
from collections.abc import Mapping
from typing import TypeVar

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
from sealpool.errors import InvalidArgument
from sealpool.v1 import common_pb2
from sealpool.vocabulary.models import ESTIMATORS, MODELS

MAX_ITERATIONS = 10_000
MAX_SAMPLES = 1_000
MAX_LAYERS = 16
MAX_UNITS = 65_536
MAX_EPOCHS = 100_000

_MODEL = "header.model"
_CLASS_WEIGHTS = {
    common_pb2.CLASS_WEIGHT_UNSPECIFIED: False,
    common_pb2.CLASS_WEIGHT_NONE: False,
    common_pb2.CLASS_WEIGHT_BALANCED: True,
}
_RETRAINS = {
    common_pb2.RETRAIN_UNSPECIFIED: Retrain.SCRATCH,
    common_pb2.RETRAIN_SCRATCH: Retrain.SCRATCH,
    common_pb2.RETRAIN_WARM: Retrain.WARM,
    common_pb2.RETRAIN_AT_SATURATION: Retrain.AT_SATURATION,
}
_PRECISIONS = {
    common_pb2.PRECISION_UNSPECIFIED: Precision.AUTO,
    common_pb2.PRECISION_AUTO: Precision.AUTO,
    common_pb2.PRECISION_FLOAT32: Precision.FLOAT32,
    common_pb2.PRECISION_MIXED: Precision.MIXED,
}
_AGGREGATES = {
    common_pb2.LABEL_AGGREGATE_UNSPECIFIED: Aggregate.MEAN,
    common_pb2.LABEL_AGGREGATE_MEAN: Aggregate.MEAN,
    common_pb2.LABEL_AGGREGATE_MAX: Aggregate.MAX,
    common_pb2.LABEL_AGGREGATE_MIN: Aggregate.MIN,
}
_DENSITIES = {
    common_pb2.DENSITY_OVER_UNSPECIFIED: DensityOver.CANDIDATES,
    common_pb2.DENSITY_OVER_CANDIDATES: DensityOver.CANDIDATES,
    common_pb2.DENSITY_OVER_POOL: DensityOver.POOL,
}

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def look_up(table: Mapping[_Key, _Value], key: _Key, field: str) -> _Value:
    """Return what an enum's value means; InvalidArgument for `field` where it is none of them."""
    if key not in table:
        raise InvalidArgument(field, f"{key} is not one of its values")
    return table[key]


def read_model(spec: common_pb2.ModelSpec) -> ModelOptions:
    """Check a model; InvalidArgument where a field does not fit the model or its range. Defaults stay the model's."""
    name = spec.name or ModelOptions().name
    if name not in MODELS:
        raise InvalidArgument(f"{_MODEL}.name", f"{name[:140]!r} is none of {', '.join(sorted(MODELS))}")
    _check_number("l2", spec.l2, low=0)
    _check_count("max_iterations", spec.max_iterations, MAX_ITERATIONS)
    _check_number("validation_share", spec.validation_share, low=0, high=0.5)
    options = ModelOptions(
        name=name,
        l2=spec.l2,
        max_iterations=spec.max_iterations,
        balanced=look_up(_CLASS_WEIGHTS, spec.class_weight, f"{_MODEL}.class_weight"),
        retrain=look_up(_RETRAINS, spec.retrain, f"{_MODEL}.retrain"),
        validation_share=spec.validation_share,
        uncertainty=_read_uncertainty(spec.uncertainty),
        neural=_read_neural(spec.neural),
        text=_read_text(spec.text),
    )
    _check_options(name, spec)
    if name == "transformer" and not options.text.encoder:
        raise InvalidArgument(f"{_MODEL}.text.encoder", "is required by the model transformer")
    return options


def _read_uncertainty(spec: common_pb2.UncertaintySpec) -> UncertaintyOptions:
    default = UncertaintyOptions()
    name = spec.estimator or default.estimator
    if name not in ESTIMATORS:
        raise InvalidArgument(
            f"{_MODEL}.uncertainty.estimator", f"{name[:140]!r} is none of {', '.join(sorted(ESTIMATORS))}"
        )
    if spec.samples and not 2 <= spec.samples <= MAX_SAMPLES:
        raise InvalidArgument(f"{_MODEL}.uncertainty.samples", f"{spec.samples:,} is not 2 to {MAX_SAMPLES:,}")
    if spec.dropout and not 0 < spec.dropout < 1:
        raise InvalidArgument(f"{_MODEL}.uncertainty.dropout", f"{spec.dropout} is not between 0 and 1")
    return UncertaintyOptions(estimator=name, samples=spec.samples, temperature=spec.temperature, dropout=spec.dropout)


def _read_neural(spec: common_pb2.NeuralSpec) -> NeuralOptions:
    if len(spec.hidden) > MAX_LAYERS or any(not 1 <= units <= MAX_UNITS for units in spec.hidden):
        raise InvalidArgument(f"{_MODEL}.neural.hidden", f"is not up to {MAX_LAYERS} numbers of 1 to {MAX_UNITS:,}")
    _check_count("neural.epochs", spec.epochs, MAX_EPOCHS)
    _check_count("neural.batch_size", spec.batch_size, MAX_UNITS)
    _check_count("neural.patience", spec.patience, MAX_EPOCHS)
    for name in ("learning_rate", "weight_decay", "max_seconds", "max_gradient_norm"):
        _check_number(f"neural.{name}", getattr(spec, name), low=0)
    for name in ("dropout", "label_smoothing"):
        if not 0 <= getattr(spec, name) < 1:
            raise InvalidArgument(f"{_MODEL}.neural.{name}", f"{getattr(spec, name)} is not 0 to below 1")
    return NeuralOptions(
        hidden=tuple(spec.hidden),
        dropout=spec.dropout if spec.HasField("dropout") else None,
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        learning_rate=spec.learning_rate,
        weight_decay=spec.weight_decay if spec.HasField("weight_decay") else None,
        label_smoothing=spec.label_smoothing,
        patience=spec.patience,
        max_seconds=spec.max_seconds,
        max_gradient_norm=spec.max_gradient_norm,
        precision=look_up(_PRECISIONS, spec.precision, f"{_MODEL}.neural.precision"),
    )


def _read_text(spec: common_pb2.TextSpec) -> TextOptions:
    for name in ("max_tokens", "embedding", "lora_rank"):
        _check_count(f"text.{name}", getattr(spec, name), MAX_UNITS)
    _check_count("text.vocabulary", spec.vocabulary, 10_000_000)
    return TextOptions(
        encoder=spec.encoder,
        max_tokens=spec.max_tokens,
        vocabulary=spec.vocabulary,
        embedding=spec.embedding,
        lora_rank=spec.lora_rank,
    )


def _check_options(name: str, spec: common_pb2.ModelSpec) -> None:
    """Refuse what the model would not look at: whoever sets it believes that it does something."""
    has = MODELS[name].options
    given = {field.name for field, _ in spec.ListFields()} - {"name", "neural", "text"}
    for part in ("neural", "text"):
        given |= {f"{part}.{field.name}" for field, _ in getattr(spec, part).ListFields()}
    for field in sorted(given - has):
        raise InvalidArgument(f"{_MODEL}.{field}", f"{name} has no such option; it has {', '.join(sorted(has))}")


def _check_number(name: str, value: float, *, low: float, high: float = math.inf) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        bounds = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
        raise InvalidArgument(f"{_MODEL}.{name}", f"{value} is not a finite number of {bounds}")


def _check_count(name: str, value: int, limit: int) -> None:
    if value > limit:
        raise InvalidArgument(f"{_MODEL}.{name}", f"{value:,} is over {limit:,}")


def read_strategy(spec: common_pb2.StrategySpec) -> StrategyOptions:
    """Check a strategy's parameters; whether the strategy has them is checked where it is made."""
    if not 0 <= spec.radius <= 2:
        raise InvalidArgument("header.strategy.radius", f"{spec.radius} is not 0 to 2")
    return StrategyOptions(
        name=spec.name or StrategyOptions().name,
        base=spec.base,
        beta=spec.beta if spec.HasField("beta") else None,
        density_over=look_up(_DENSITIES, spec.density_over, "header.strategy.density_over"),
        positive_class=spec.positive_class,
        aggregate=look_up(_AGGREGATES, spec.aggregate, "header.strategy.aggregate"),
        neighbors=spec.neighbors,
        radius=spec.radius,
        clusters=spec.clusters,
    )
