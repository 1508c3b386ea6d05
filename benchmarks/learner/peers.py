"""Peers as a user of theirs calls them, on the same vectors, labels and model as ours.

Models are fitted before anything is timed; predictions are made by whoever picks, as ours are.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.learner.beside import Work, peer_module
from benchmarks.learner.workbench import BATCH, CLASSES, LABELLED, Workbench
from learner.models.logistic_regression import DEFAULT_L2_SHARE
from sealpool.types import Vectors

SCIKIT_ACTIVEML = "scikit-activeml"
MODAL = "modAL"
SMALL_TEXT = "small-text"


def modal_entropy(bench: Workbench, items: int) -> Work:
    """ModAL's entropy sampling."""
    learner = peer_module("modAL.models", MODAL).ActiveLearner(
        estimator=_scikit_model(bench), query_strategy=peer_module("modAL.uncertainty", MODAL).entropy_sampling
    )
    vectors, count = bench.vectors(items), min(BATCH, items)
    return lambda _: learner.query(vectors, n_instances=count)[0]


def modal_density(bench: Workbench, items: int) -> Work:
    """ModAL's information density, times the entropy of its classifier."""
    density = peer_module("modAL.density", MODAL).information_density
    entropy = peer_module("modAL.uncertainty", MODAL).classifier_entropy
    select = peer_module("modAL.utils.selection", MODAL).multi_argmax
    vectors, model, count = bench.vectors(items), _scikit_model(bench), min(BATCH, items)
    return lambda _: select(entropy(model, vectors) * density(vectors, "cosine"), n_instances=count)


def scikit_activeml_entropy(bench: Workbench, items: int) -> Work:
    """Return scikit-activeml's uncertainty sampling by entropy."""
    pool = peer_module("skactiveml.pool", SCIKIT_ACTIVEML)
    strategy = pool.UncertaintySampling(method="entropy", random_state=0)
    vectors, classifier, count = bench.vectors(items), _scikit_activeml_model(bench), min(BATCH, items)
    labelled, targets = bench.labelled_vectors, bench.labelled_targets
    return lambda _: strategy.query(labelled, targets, classifier, fit_clf=False, candidates=vectors, batch_size=count)


def scikit_activeml_core_set(bench: Workbench, items: int) -> Work:
    """Return scikit-activeml's greedy k-center."""
    strategy = peer_module("skactiveml.pool", SCIKIT_ACTIVEML).CoreSet(random_state=0)
    vectors, targets = _with_labelled(bench, items, LABELLED)
    return lambda _: strategy.query(vectors, targets, batch_size=min(BATCH, items))


def scikit_activeml_typiclust(bench: Workbench, items: int, *, labelled: int, neighbors: int) -> Work:
    """Return scikit-activeml's TypiClust."""
    strategy = peer_module("skactiveml.pool", SCIKIT_ACTIVEML).TypiClust(random_state=0, k=neighbors)
    vectors, targets = _with_labelled(bench, items, labelled)
    return lambda _: strategy.query(vectors, targets, batch_size=min(BATCH, items))


def scikit_activeml_badge(bench: Workbench, items: int) -> Work:
    """Return scikit-activeml's BADGE."""
    strategy = peer_module("skactiveml.pool", SCIKIT_ACTIVEML).Badge(random_state=0)
    vectors, classifier, count = bench.vectors(items), _scikit_activeml_model(bench), min(BATCH, items)
    labelled, targets = bench.labelled_vectors, bench.labelled_targets.astype(np.float64)
    return lambda _: strategy.query(labelled, targets, classifier, fit_clf=False, candidates=vectors, batch_size=count)


def small_text_confidence(bench: Workbench, items: int, name: str) -> Work:
    """Return one of small-text's strategies that score by probabilities, by its class's name."""
    strategy = getattr(peer_module("small_text.query_strategies.strategies", SMALL_TEXT), name)()
    return _small_text(bench, items, strategy.query)


def small_text_badge(bench: Workbench, items: int) -> Work:
    """Return small-text's BADGE, with the vectors given as embeddings."""
    module = peer_module("small_text.integrations.pytorch.query_strategies.strategies", SMALL_TEXT)
    strategy, vectors = module.BADGE(CLASSES), bench.vectors(items)
    return _small_text(bench, items, lambda *args, n: strategy.query(*args, n=n, pbar=None, embeddings=vectors))


def _small_text(bench: Workbench, items: int, query: Callable[..., object]) -> Work:
    data = peer_module("small_text.data.datasets", SMALL_TEXT)
    classifier = peer_module("small_text.classifiers.classification", SMALL_TEXT).SklearnClassifier(
        _scikit_model(bench), CLASSES
    )
    unlabelled, none = np.arange(items), np.empty(0, np.int64)
    dataset = data.SklearnDataset(bench.vectors(items), np.zeros(items, np.int64), target_labels=np.arange(CLASSES))
    return lambda _: query(classifier, dataset, unlabelled, none, none, n=min(BATCH, items - 1))


def _scikit_model(bench: Workbench) -> Any:
    """Return scikit-learn's logistic regression of the same objective as ours, fitted to the same labels."""
    model = peer_module("sklearn.linear_model", "scikit-learn").LogisticRegression(
        C=1 / DEFAULT_L2_SHARE, tol=1e-5, max_iter=1000
    )
    return model.fit(bench.labelled_vectors, bench.labelled_targets)


def _scikit_activeml_model(bench: Workbench) -> Any:
    wrapped = peer_module("skactiveml.classifier", SCIKIT_ACTIVEML).SklearnClassifier(
        _scikit_model(bench), classes=list(range(CLASSES)), random_state=0
    )
    return wrapped.fit(bench.labelled_vectors, bench.labelled_targets)


def _with_labelled(bench: Workbench, items: int, labelled: int) -> tuple[Vectors, NDArray[np.float64]]:
    """Return candidates and labelled vectors together, and targets, NaN for the candidates."""
    targets = np.full(items + labelled, np.nan)
    targets[items:] = bench.labelled_targets[:labelled]
    return np.concatenate([bench.vectors(items), bench.labelled_vectors[:labelled]]), targets
