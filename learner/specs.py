"""What a campaign chooses of the learner, from messages: models and strategies, each field checked."""

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
from sealpool.vocabulary.model_spec import check_model

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
    check_model(spec, "header.model")
    return ModelOptions(
        name=spec.name or ModelOptions().name,
        l2=spec.l2,
        max_iterations=spec.max_iterations,
        balanced=spec.class_weight == common_pb2.CLASS_WEIGHT_BALANCED,
        retrain=_RETRAINS[spec.retrain],
        validation_share=spec.validation_share,
        uncertainty=UncertaintyOptions(
            estimator=spec.uncertainty.estimator or UncertaintyOptions().estimator,
            samples=spec.uncertainty.samples,
            temperature=spec.uncertainty.temperature,
            dropout=spec.uncertainty.dropout,
        ),
        neural=_neural_options(spec.neural),
        text=TextOptions(
            encoder=spec.text.encoder,
            max_tokens=spec.text.max_tokens,
            vocabulary=spec.text.vocabulary,
            embedding=spec.text.embedding,
            lora_rank=spec.text.lora_rank,
        ),
    )


def _neural_options(spec: common_pb2.NeuralSpec) -> NeuralOptions:
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
        precision=_PRECISIONS[spec.precision],
    )


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
