"""Every model and every estimator of its doubt, by name."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelEntry:
    """A model as users know it.

    Parameters
    ----------
    reads_text
        Whether it reads the items' texts; the others take their vectors.
    options
        The fields of ModelSpec, beside the name, that it looks at; "neural.*" for fields of a part.
    """

    name: str
    summary: str
    reference: str
    reads_text: bool
    options: AbstractSet[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimatorEntry:
    """A way to tell a model's doubt. `draws` is whether it gives posterior samples."""

    name: str
    summary: str
    reference: str
    draws: bool


_COMMON = frozenset({"class_weight", "retrain", "validation_share", "uncertainty"})
_NEURAL = frozenset(
    f"neural.{name}"
    for name in (
        "hidden",
        "dropout",
        "epochs",
        "batch_size",
        "learning_rate",
        "weight_decay",
        "label_smoothing",
        "patience",
        "max_seconds",
        "max_gradient_norm",
        "precision",
    )
)
_WORDS = frozenset({"text.max_tokens", "text.vocabulary", "text.embedding"})

MODELS: Mapping[str, ModelEntry] = {
    entry.name: entry
    for entry in (
        ModelEntry(
            name="logistic_regression",
            summary="linear on the items' vectors; to its optimum in milliseconds",
            reference="Cox, JRSS B 20 (1958)",
            reads_text=False,
            options=_COMMON | {"l2", "max_iterations"},
        ),
        ModelEntry(
            name="mlp",
            summary="hidden layers on the items' vectors",
            reference="Rumelhart, Hinton and Williams, Nature 323 (1986)",
            reads_text=False,
            options=_COMMON | _NEURAL,
        ),
        ModelEntry(
            name="cnn",
            summary="1-D convolutions over words",
            reference="Kim, EMNLP 2014",
            reads_text=True,
            options=_COMMON | _NEURAL | _WORDS,
        ),
        ModelEntry(
            name="bilstm",
            summary="a recurrent network over words, both ways",
            reference="Graves and Schmidhuber, Neural Networks 18 (2005)",
            reads_text=True,
            options=_COMMON | _NEURAL | _WORDS,
        ),
        ModelEntry(
            name="transformer",
            summary="any Hugging Face encoder with a head, fine-tuned whole or by LoRA",
            reference="Devlin et al., NAACL 2019; Hu et al., ICLR 2022",
            reads_text=True,
            options=_COMMON | _NEURAL - {"neural.hidden"} | {"text.encoder", "text.max_tokens", "text.lora_rank"},
        ),
    )
}

ESTIMATORS: Mapping[str, EstimatorEntry] = {
    entry.name: entry
    for entry in (
        EstimatorEntry(
            name="softmax",
            summary="the model's own probabilities",
            reference="Hendrycks and Gimpel, ICLR 2017",
            draws=False,
        ),
        EstimatorEntry(
            name="mc_dropout",
            summary="dropout left on, one set of masks for all items",
            reference="Gal and Ghahramani, ICML 2016",
            draws=True,
        ),
        EstimatorEntry(
            name="ensemble",
            summary="models trained independently",
            reference="Lakshminarayanan, Pritzel and Blundell, NeurIPS 2017",
            draws=True,
        ),
        EstimatorEntry(
            name="laplace",
            summary="a Gaussian around the last layer's weights",
            reference="Daxberger et al., NeurIPS 2021",
            draws=True,
        ),
    )
}
