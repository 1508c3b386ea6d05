"""Which way of picking would have served best on the labels so far: trials on a linear model, by successive halving."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learner.ports import CancelCheck
from sealpool.errors import Cancelled

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

_TEST_SHARE = 0.3
_START_SHARE = 0.5
_PICKED_SHARE = 0.4
_L2_SHARE = 0.3
"""The penalty as a share of the centred vectors' mean squared length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A split of the labelled items, as an arm sees it.

    Parameters
    ----------
    products
        (m, m) inner products of all labelled vectors, less their mean.
    start, pool
        The items that count as labelled, and those to pick from.
    outputs
        (p, c) of a linear model of `start`, for `pool`: near 1 where the item has the class, near 0 where not.
    draws
        (p,) uniform.
    """

    products: Floats
    start: Rows
    pool: Rows
    outputs: Floats
    draws: Floats


Arm = Callable[[Trial, int], Rows]
"""Picks as many positions of a trial's pool as it is told."""

Loss = Callable[[Floats, Floats], float]
"""How wrong outputs (t, c) are of targets (t, c)."""


class Trials:
    """Trials of arms on labelled items: trial number t is the same split for every arm. `fits` counts the models.

    Of the items 30 % test, 35 % count as labelled and 35 % as the pool, of which an arm picks 40 %. The model is ridge
    regression of the targets on the vectors, solved for in the m × m inner products, so that its cost does not grow
    with the dimension.

    Parameters
    ----------
    vectors
        (m, d)
    targets
        (m, c), 1 where the item has the class, else 0.
    """

    def __init__(self, vectors: Floats, targets: Floats, loss: Loss, *, seed: int, cancelled: CancelCheck) -> None:
        centred = vectors - vectors.mean(axis=0)
        self._products = centred @ centred.T
        self._penalty = _L2_SHARE * float(self._products.diagonal().mean()) + 1e-12
        self._targets = targets
        self._loss = loss
        self._seed = seed
        self._cancelled = cancelled
        self.fits = 0

    def errors(self, arms: Sequence[Arm], number: int) -> Floats:
        """Return (a,) the loss that each arm leaves in trial `number`."""
        if self._cancelled():
            raise Cancelled("the caller left while strategies were compared")
        generator = np.random.default_rng([self._seed, number])
        order = generator.permutation(len(self._targets))
        tested = max(1, int(_TEST_SHARE * len(order)))
        test, learnt = order[:tested], order[tested:]
        start, pool = np.split(learnt, [int(_START_SHARE * len(learnt))])
        outputs, draws = self._outputs(start, pool), generator.random(len(pool))
        trial = Trial(products=self._products, start=start, pool=pool, outputs=outputs, draws=draws)
        count = max(1, int(_PICKED_SHARE * len(pool)))
        return np.array([self._error(np.concatenate([start, pool[arm(trial, count)]]), test) for arm in arms])

    def _error(self, training: Rows, test: Rows) -> float:
        return self._loss(self._outputs(training, test), self._targets[test])

    def _outputs(self, training: Rows, rows: Rows) -> Floats:
        self.fits += 1
        mean = self._targets[training].mean(axis=0)
        square = self._products[np.ix_(training, training)]
        square[np.diag_indices(len(training))] += self._penalty
        weights = np.linalg.solve(square, self._targets[training] - mean)
        outputs: Floats = self._products[np.ix_(rows, training)] @ weights + mean
        return outputs


def halve(trials: Trials, arms: Mapping[str, Arm], *, first: int) -> Mapping[str, Floats]:
    """Give every arm `first` trials, the better half of them twice as many more, and so on, until two or one are left.

    Successive halving: Jamieson and Talwalkar, Non-stochastic best arm identification and hyperparameter optimization,
    AISTATS 2016. Of equals the first stays.

    Returns
    -------
    The arms by name, each with its errors by trial: those of the last are of all trials, so they compare in pairs.
    """
    errors: dict[str, Floats] = {name: np.empty(0) for name in arms}
    staying, done, more = list(arms), 0, first
    while more:
        runs = np.array([trials.errors([arms[name] for name in staying], done + number) for number in range(more)])
        for name, new in zip(staying, runs.T, strict=True):
            errors[name] = np.concatenate([errors[name], new])
        done, more = done + more, 2 * more if len(staying) > 2 else 0
        if more:
            staying = sorted(staying, key=lambda name: float(errors[name].mean()))[: (len(staying) + 1) // 2]
    return errors


def most_representative(trial: Trial, count: int) -> Rows:
    """Pick what most lowers the summed distance of all items to their nearest labelled or picked one, greedily."""
    items = np.concatenate([trial.start, trial.pool])
    squares = trial.products.diagonal()
    products = trial.products[np.ix_(items, items)]
    distances = np.sqrt(np.maximum(squares[items][:, None] + squares[items] - 2 * products, 0)).astype(np.float32)
    begun = len(trial.start)
    nearest = distances[:begun].min(axis=0)
    to_pool = distances[begun:]
    picked = np.empty(count, np.int64)
    left = np.ones(len(trial.pool), np.bool_)
    for place in range(count):
        gains = np.where(left, np.maximum(nearest - to_pool, 0).sum(axis=1), -1)
        best = int(gains.argmax())
        picked[place], left[best] = best, False
        nearest = np.minimum(nearest, to_pool[best])
    return picked


def least_certain(trial: Trial, count: int) -> Rows:
    """Pick the smallest differences of the two largest outputs."""
    ordered = np.sort(trial.outputs, axis=1)
    return np.lexsort((trial.draws, ordered[:, -1] - ordered[:, -2]))[:count]


def nearest_to_even(trial: Trial, count: int) -> Rows:
    """Pick the outputs that are nearest to ½ in the mean of all classes."""
    return np.lexsort((trial.draws, np.abs(np.clip(trial.outputs, 0, 1) - 0.5).mean(axis=1)))[:count]


def any_at_all(trial: Trial, count: int) -> Rows:
    """Pick by draw."""
    return np.argsort(trial.draws)[:count]


def misclassified(outputs: Floats, targets: Floats) -> float:
    """Return the share of items whose largest output is of a class that is not theirs."""
    return float((outputs.argmax(axis=1) != targets.argmax(axis=1)).mean())


def misordered(outputs: Floats, targets: Floats) -> float:
    """Return the share of pairs of an item with and one without a class that are in the wrong order, ½ where none is.

    1 − the area under the ROC curve, the mean over classes; that is of use where positives are rare.
    """
    shares = []
    for column, has in zip(outputs.T, targets.T > 0, strict=True):
        with_it, without = column[has], np.sort(column[~has])
        if len(with_it) and len(without):
            below, at_most = (np.searchsorted(without, with_it, side=side) for side in ("left", "right"))
            shares.append(1 - float((below + at_most).mean()) / 2 / len(without))
    return float(np.mean(shares)) if shares else 0.5
