"""Options of `campaign create` for the model and the query strategy, and the messages that they become."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from sealpool.cli.options import UINT32_MAX
from sealpool.cli.pairs import filled
from sealpool.v1 import common_pb2

MODEL_PANEL, PICKING_PANEL = "Model", "What is picked"


class ClassWeight(StrEnum):
    """How much a label of a rare class counts."""

    NONE = "none"
    BALANCED = "balanced"


class Retrain(StrEnum):
    """What a round's model begins from."""

    SCRATCH = "scratch"
    WARM = "warm"
    AT_SATURATION = "at_saturation"


class DensityOver(StrEnum):
    """The items whose mean direction information_density takes."""

    CANDIDATES = "candidates"
    POOL = "pool"


class Aggregate(StrEnum):
    """How the scores of an item's labels become one."""

    MEAN = "mean"
    MAX = "max"
    MIN = "min"


def _model(option: str, help_: str, **more: Any) -> Any:
    return typer.Option(option, help=help_, rich_help_panel=MODEL_PANEL, **more)


def _picking(option: str, help_: str, **more: Any) -> Any:
    return typer.Option(option, help=help_, rich_help_panel=PICKING_PANEL, **more)


ModelName = Annotated[str, _model("--model", "Model of the learner; `sealpool models` tells of each.")]
L2 = Annotated[
    float,
    _model(
        "--l2",
        "logistic_regression: weight of the squared-norm penalty; more is smoother, surer with few labels. 0: the "
        "model's default.",
        min=0,
        metavar="NUMBER",
    ),
]
MaxIterations = Annotated[
    int,
    _model(
        "--max-iterations",
        "logistic_regression: of the optimiser. 0: the model's default.",
        min=0,
        max=10_000,
        metavar="N",
    ),
]
ClassWeightOption = Annotated[ClassWeight, _model("--class-weight", "balanced: a label of a rare class counts more.")]
RetrainOption = Annotated[
    Retrain,
    _model(
        "--retrain",
        "What a round's model begins from: scratch, new weights; warm, the round before's, which is faster; "
        "at_saturation, the round before's until the score on validation items stalls.",
        metavar="WAY",
    ),
]
ValidationShare = Annotated[
    float,
    _model(
        "--validation-share",
        "Share of the labels set aside from training, up to 0.5: they stop it early and fit the temperature. 0: the "
        "model's default.",
        min=0,
        max=0.5,
        metavar="SHARE",
    ),
]
Uncertainty = Annotated[
    list[str] | None,
    _model(
        "--uncertainty",
        "How the model's doubt is told: softmax (the default), mc_dropout, ensemble or laplace; and samples=N, "
        "temperature=yes, dropout=RATE. Give it once for each.",
        metavar="WORD",
    ),
]
Neural = Annotated[
    list[str] | None,
    _model(
        "--neural",
        "mlp, cnn, bilstm, transformer: hidden=256,128, dropout, epochs, batch_size, learning_rate, weight_decay, "
        "label_smoothing, patience, max_seconds, max_gradient_norm, precision=mixed. Give it once for "
        "each.",
        metavar="KEY=VALUE",
    ),
]
Text = Annotated[
    list[str] | None,
    _model(
        "--text",
        "transformer: encoder=NAME (or a directory on the learner's machine), max_tokens, lora_rank; cnn, bilstm: "
        "max_tokens, vocabulary, embedding. Give it once for each.",
        metavar="KEY=VALUE",
    ),
]
StrategyName = Annotated[
    str,
    _picking(
        "--strategy",
        "What makes an item worth a label; `sealpool strategies` tells of each. Other libraries' names will do.",
    ),
]
Base = Annotated[
    str,
    _picking("--base", "information_density, stochastic_top_k: the strategy whose score is used. Default: entropy."),
]
Beta = Annotated[
    float | None,
    _picking(
        "--beta",
        "information_density: exponent of the density. stochastic_top_k, power_bald: of the score; less is more "
        "random. Default: 1.",
        min=0,
        metavar="NUMBER",
    ),
]
DensityOverOption = Annotated[
    DensityOver | None,
    _picking("--density-over", "information_density: the items the density is of. Default: candidates."),
]
PositiveClass = Annotated[
    str,
    _picking(
        "--positive-class", "most_likely_positive, active_search: the class looked for. Default: the second of two."
    ),
]
AggregateOption = Annotated[
    Aggregate | None,
    _picking("--aggregate", "Multi-label: how the scores of an item's labels become one. Default: mean."),
]
Neighbors = Annotated[
    int,
    _picking(
        "--neighbors",
        "typiclust, graph_density, cal, active_search: neighbours looked at. 0: the strategy's default.",
        min=0,
        max=UINT32_MAX,
        metavar="N",
    ),
]
Radius = Annotated[
    float,
    _picking(
        "--radius",
        "prob_cover: cosine distance within which an item covers another. 0: estimated.",
        min=0,
        max=2,
        metavar="DISTANCE",
    ),
]
Clusters = Annotated[
    int,
    _picking(
        "--clusters",
        "typiclust, prob_cover, cluster_margin: clusters. 0: the strategy's default.",
        min=0,
        max=UINT32_MAX,
        metavar="N",
    ),
]


def uncertainty_spec(told: Sequence[str] | None) -> common_pb2.UncertaintySpec | None:
    """Return what `--uncertainty` said, None if nothing; a word alone is the estimator."""
    pairs = [one if "=" in one else f"estimator={one}" for one in told or ()]
    return filled(common_pb2.UncertaintySpec(), "--uncertainty", pairs)


def neural_spec(told: Sequence[str] | None) -> common_pb2.NeuralSpec | None:
    """Return what `--neural` said, None if nothing."""
    return filled(common_pb2.NeuralSpec(), "--neural", told or ())


def text_spec(told: Sequence[str] | None) -> common_pb2.TextSpec | None:
    """Return what `--text` said, None if nothing."""
    return filled(common_pb2.TextSpec(), "--text", told or ())
