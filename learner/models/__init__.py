"""Models by name: one file each, and one line here."""

from collections.abc import Callable, Mapping

from learner.models.logistic_regression import LogisticRegression
from learner.ports import Classifier, ModelOptions
from learner.problem import Problem
from sealpool.errors import InvalidArgument

MODELS: Mapping[str, Callable[[ModelOptions, Problem], Classifier]] = {
    "logistic_regression": LogisticRegression,
}


def make_classifier(options: ModelOptions, problem: Problem) -> Classifier:
    """Return an unfitted model; raise InvalidArgument for `model.name` if there is none of that name."""
    make = MODELS.get(options.name)
    if make is None:
        raise InvalidArgument("header.model.name", f"{options.name!r} is none of {', '.join(sorted(MODELS))}")
    return make(options, problem)
