"""Models by name: one file each, and one line here; around each, the estimator of its doubt."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from learner.models.logistic_regression import LogisticRegression
from learner.models.mlp import MultilayerPerceptron
from learner.options import ModelOptions
from learner.ports import Classifier
from learner.problem import Problem
from learner.uncertainty.base import DEFAULT_MEMBERS, DEFAULT_SAMPLES, Linear
from learner.uncertainty.ensemble import Ensemble
from learner.uncertainty.laplace import Laplace
from learner.uncertainty.mc_dropout import MonteCarloDropout
from learner.uncertainty.temperature import TemperatureScaled
from sealpool.errors import InvalidArgument

_RATE_WHERE_NONE = 0.5


def _cnn(options: ModelOptions, problem: Problem) -> Linear:
    from learner.models.cnn import ConvolutionalClassifier

    return ConvolutionalClassifier(options, problem)


def _bilstm(options: ModelOptions, problem: Problem) -> Linear:
    from learner.models.bilstm import RecurrentClassifier

    return RecurrentClassifier(options, problem)


def _transformer(options: ModelOptions, problem: Problem, *, allow_download: bool = False) -> Linear:
    from learner.models.text.tokens import loader
    from learner.models.transformer import TransformerClassifier

    return TransformerClassifier(options, problem, load=loader(allow_download=allow_download))


MODELS: Mapping[str, Callable[[ModelOptions, Problem], Linear]] = {
    "logistic_regression": LogisticRegression,
    "mlp": MultilayerPerceptron,
    # Imported where they are made: what they read texts with takes seconds to import, and is an extra.
    "cnn": _cnn,
    "bilstm": _bilstm,
    "transformer": _transformer,
}


_Make = Callable[[ModelOptions], Linear]


def _softmax(options: ModelOptions, problem: Problem, make: _Make) -> Classifier:  # noqa: ARG001 - as its like
    return make(options)


def _mc_dropout(options: ModelOptions, problem: Problem, make: _Make) -> Classifier:  # noqa: ARG001
    rate, own = options.uncertainty.dropout or None, options.neural.dropout
    if rate is None and own == 0:
        rate = _RATE_WHERE_NONE
    # The samples are of the model that was trained with that dropout.
    trained = replace(options, neural=replace(options.neural, dropout=rate if own is None else own))
    return MonteCarloDropout(make(trained), samples=options.uncertainty.samples or DEFAULT_SAMPLES, rate=rate)


def _ensemble(options: ModelOptions, problem: Problem, make: _Make) -> Classifier:  # noqa: ARG001
    return Ensemble(
        lambda: make(options),
        members=options.uncertainty.samples or DEFAULT_MEMBERS,
        bagging=options.name == "logistic_regression",
    )


def _laplace(options: ModelOptions, problem: Problem, make: _Make) -> Classifier:
    samples = options.uncertainty.samples or DEFAULT_SAMPLES
    return Laplace(make(options), problem, samples=samples, balanced=options.balanced)


ESTIMATORS: Mapping[str, Callable[[ModelOptions, Problem, _Make], Classifier]] = {
    "softmax": _softmax,
    "mc_dropout": _mc_dropout,
    "ensemble": _ensemble,
    "laplace": _laplace,
}


def make_classifier(options: ModelOptions, problem: Problem, *, allow_download: bool = False) -> Classifier:
    """Return an unfitted model with its estimator around it.

    Parameters
    ----------
    allow_download
        Whether an encoder that is not on this machine is fetched from the Hugging Face hub.

    Raises
    ------
    InvalidArgument
        For `header.model.name` or `header.model.uncertainty.estimator` if there is none of that name.
    """
    if options.name not in MODELS:
        raise InvalidArgument("header.model.name", f"{options.name!r} is none of {', '.join(sorted(MODELS))}")
    estimator = options.uncertainty.estimator
    if estimator not in ESTIMATORS:
        raise InvalidArgument(
            "header.model.uncertainty.estimator", f"{estimator!r} is none of {', '.join(sorted(ESTIMATORS))}"
        )

    def make(of: ModelOptions) -> Linear:
        if of.name == "transformer":
            return _transformer(of, problem, allow_download=allow_download)
        return MODELS[of.name](of, problem)

    classifier = ESTIMATORS[estimator](options, problem, make)
    return TemperatureScaled(classifier, problem) if options.uncertainty.temperature else classifier
