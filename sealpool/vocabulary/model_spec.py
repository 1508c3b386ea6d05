"""A model as a message: every field checked against what the vocabulary says of the model."""

from sealpool.errors import InvalidArgument
from sealpool.v1 import common_pb2 as c
from sealpool.vocabulary.checking import (
    check_choice,
    check_enum,
    check_not_negative,
    check_options,
    check_range,
    check_share,
)
from sealpool.vocabulary.models import ESTIMATORS, MODELS, EstimatorEntry, ModelEntry

DEFAULT_MODEL = "logistic_regression"
DEFAULT_ESTIMATOR = "softmax"
TRANSFORMER = "transformer"

MAX_ITERATIONS = 10_000
MAX_SAMPLES = 1_000
MAX_LAYERS = 16
MAX_UNITS = 65_536
MAX_EPOCHS = 100_000
MAX_VOCABULARY = 10_000_000
MAX_TRANSFORMER_TOKENS = 512
MAX_ENCODER_BYTES = 4_096


def model_of(model: c.ModelSpec) -> ModelEntry:
    """Return what the vocabulary says of a model whose name was checked."""
    return MODELS[model.name or DEFAULT_MODEL]


def estimator_of(model: c.ModelSpec) -> EstimatorEntry:
    """Return what the vocabulary says of the estimator of a model, which was checked."""
    return ESTIMATORS[model.uncertainty.estimator or DEFAULT_ESTIMATOR]


def check_model(model: c.ModelSpec, field: str) -> None:
    """Check a model and its options; InvalidArgument names the part at fault: `field` + ".neural.epochs", say."""
    check_choice(f"{field}.name", model.name, MODELS.keys() | {""})
    entry = model_of(model)
    check_not_negative(f"{field}.l2", model.l2)
    if model.max_iterations > MAX_ITERATIONS:
        raise InvalidArgument(f"{field}.max_iterations", f"{model.max_iterations:,} is over {MAX_ITERATIONS:,}")
    check_enum(f"{field}.class_weight", model.class_weight, values=c.ClassWeight.values())
    check_enum(f"{field}.retrain", model.retrain, values=c.Retrain.values())
    check_range(f"{field}.validation_share", model.validation_share, 0, 0.5)
    _check_uncertainty(model.uncertainty, f"{field}.uncertainty")
    _check_neural(model.neural, f"{field}.neural")
    _check_text(entry, model.text, f"{field}.text")
    check_options(field, entry.name, _told(model), entry.options)


def _check_uncertainty(uncertainty: c.UncertaintySpec, field: str) -> None:
    name = uncertainty.estimator or DEFAULT_ESTIMATOR
    check_choice(f"{field}.estimator", uncertainty.estimator, ESTIMATORS.keys() | {""})
    if uncertainty.samples:
        if not ESTIMATORS[name].draws:
            raise InvalidArgument(f"{field}.samples", f"{name} draws no posterior samples")
        check_range(f"{field}.samples", uncertainty.samples, 2, MAX_SAMPLES)
    if uncertainty.dropout != 0:
        if name != "mc_dropout":
            raise InvalidArgument(f"{field}.dropout", f"is of mc_dropout, not of {name}")
        if not 0 < uncertainty.dropout < 1:
            raise InvalidArgument(f"{field}.dropout", f"{uncertainty.dropout} is not above 0 and below 1")


def _check_neural(neural: c.NeuralSpec, field: str) -> None:
    if len(neural.hidden) > MAX_LAYERS:
        raise InvalidArgument(f"{field}.hidden", f"has {len(neural.hidden):,} layers, over {MAX_LAYERS}")
    for units in neural.hidden:
        check_range(f"{field}.hidden", units, 1, MAX_UNITS)
    check_range(f"{field}.epochs", neural.epochs, 0, MAX_EPOCHS)
    check_range(f"{field}.patience", neural.patience, 0, MAX_EPOCHS)
    check_range(f"{field}.batch_size", neural.batch_size, 0, MAX_UNITS)
    check_share(f"{field}.dropout", neural.dropout)
    check_share(f"{field}.label_smoothing", neural.label_smoothing)
    for name in ("learning_rate", "weight_decay", "max_seconds", "max_gradient_norm"):
        check_not_negative(f"{field}.{name}", getattr(neural, name))
    check_enum(f"{field}.precision", neural.precision, values=c.Precision.values())


def _check_text(entry: ModelEntry, text: c.TextSpec, field: str) -> None:
    if len(text.encoder.encode()) > MAX_ENCODER_BYTES or "\0" in text.encoder:
        raise InvalidArgument(f"{field}.encoder", f"holds a NUL character or over {MAX_ENCODER_BYTES:,} bytes")
    for name in ("max_tokens", "embedding", "lora_rank"):
        check_range(f"{field}.{name}", getattr(text, name), 0, MAX_UNITS)
    check_range(f"{field}.vocabulary", text.vocabulary, 0, MAX_VOCABULARY)
    if entry.name != TRANSFORMER:
        return
    if not text.encoder:
        raise InvalidArgument(
            f"{field}.encoder", "is required: a directory on the learner's machine, or a model name that its cache has"
        )
    check_range(f"{field}.max_tokens", text.max_tokens, 0, MAX_TRANSFORMER_TOKENS)


def _told(model: c.ModelSpec) -> set[str]:
    """Return the options that were given, as the vocabulary writes them: "l2", "neural.epochs"."""
    told = {field.name for field, _ in model.ListFields() if field.name not in ("name", "neural", "text")}
    for part in ("neural", "text"):
        told.update(f"{part}.{field.name}" for field, _ in getattr(model, part).ListFields())
    return told
