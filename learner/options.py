"""What a campaign chooses of the learner: its model, how the model's doubt is told, and its query strategy.

Zeros and empty strings mean the default of whoever reads them.
"""

from dataclasses import dataclass, field
from enum import Enum


class Retrain(Enum):
    """What a round's model begins from; as in the proto."""

    SCRATCH = "scratch"
    WARM = "warm"
    AT_SATURATION = "at_saturation"


class Precision(Enum):
    """What a neural model computes in; as in the proto."""

    AUTO = "auto"
    FLOAT32 = "float32"
    MIXED = "mixed"


@dataclass(frozen=True, kw_only=True, slots=True)
class UncertaintyOptions:
    """How the model's doubt is told; as UncertaintySpec in the proto."""

    estimator: str = "softmax"
    samples: int = 0
    temperature: bool = False
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class NeuralOptions:
    """How models are trained by gradient descent; as NeuralSpec in the proto. None: the model's default."""

    hidden: tuple[int, ...] = ()
    dropout: float | None = None
    epochs: int = 0
    batch_size: int = 0
    learning_rate: float = 0.0
    weight_decay: float | None = None
    label_smoothing: float = 0.0
    patience: int = 0
    max_seconds: float = 0.0
    max_gradient_norm: float = 0.0
    precision: Precision = Precision.AUTO


@dataclass(frozen=True, kw_only=True, slots=True)
class TextOptions:
    """What models that read texts are made of; as TextSpec in the proto."""

    encoder: str = ""
    max_tokens: int = 0
    vocabulary: int = 0
    embedding: int = 0
    lora_rank: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOptions:
    """A model and how it is trained; as ModelSpec in the proto."""

    name: str = "logistic_regression"
    l2: float = 0.0
    max_iterations: int = 0
    balanced: bool = False
    retrain: Retrain = Retrain.SCRATCH
    validation_share: float = 0.0
    uncertainty: UncertaintyOptions = field(default_factory=UncertaintyOptions)
    neural: NeuralOptions = field(default_factory=NeuralOptions)
    text: TextOptions = field(default_factory=TextOptions)


class DensityOver(Enum):
    """The set P whose mean direction information density takes."""

    CANDIDATES = "candidates"
    POOL = "pool"


class Aggregate(Enum):
    """How the scores of an item's labels become one, in a multi-label campaign."""

    MEAN = "mean"
    MAX = "max"
    MIN = "min"


@dataclass(frozen=True, kw_only=True, slots=True)
class StrategyOptions:
    """A query strategy, by its own name, and its parameters; as StrategySpec in the proto.

    `base` "" and numbers 0 or None mean the strategy's default.
    """

    name: str = "entropy"
    base: str = ""
    beta: float | None = None
    density_over: DensityOver = DensityOver.CANDIDATES
    positive_class: str = ""
    aggregate: Aggregate = Aggregate.MEAN
    neighbors: int = 0
    radius: float = 0.0
    clusters: int = 0
