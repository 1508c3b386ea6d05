"""From a strategy's name to the strategy, `auto` included, with the labelled items that it looks at."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields

from learner.expansion import LabelledSet
from learner.labelled import LabelledReader
from learner.options import DensityOver, StrategyOptions
from learner.ports import BatchStrategy, CancelCheck, Classifier, LabelledView, QueryStrategy
from learner.problem import Problem
from learner.strategies import make_strategy, strategy_entry
from learner.strategies.auto import REPRESENTATION, Choice, choose
from learner.weighting import no_samples
from sealpool.errors import InvalidArgument
from sealpool.v1 import index_pb2
from sealpool.vocabulary.strategies import STRATEGIES, Need

_AUTO = "auto"
_EVERYTHING = frozenset({Need.LABELLED, Need.CLASSES})


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """The strategy of a Select.

    Parameters
    ----------
    name
        Its own name.
    reason
        Why `auto` chose it; otherwise "".
    labelled
        None where it does not look at labelled items.
    """

    name: str
    reason: str
    strategy: QueryStrategy
    labelled: LabelledView | None

    @property
    def density_over(self) -> DensityOver | None:
        """Which mean direction it needs, if one."""
        return None if isinstance(self.strategy, BatchStrategy) else self.strategy.density_over


class StrategyChooser:
    """Makes strategies. Safe to share between threads."""

    def __init__(self, reader: LabelledReader) -> None:
        self._reader = reader

    def check(
        self, options: StrategyOptions, problem: Problem, classifier: Classifier | None, *, draws_samples: bool
    ) -> None:
        """Raise what `choose`, or the strategy as it picks, would raise, but for what they find out of labelled items.

        Parameters
        ----------
        draws_samples
            Whether the model's estimator gives posterior samples.

        Raises
        ------
        InvalidArgument
            As for `choose`.
        FailedPrecondition
            The strategy needs posterior samples and there are none.
        """
        if strategy_entry(options.name).name != _AUTO:
            strategy = _make(options, problem, classifier)
            if Need.SAMPLES in strategy.needs and not draws_samples:
                raise no_samples()
            return
        default = StrategyOptions(name=options.name)
        for field in fields(StrategyOptions):
            if getattr(options, field.name) != getattr(default, field.name):
                raise InvalidArgument(f"header.strategy.{field.name}", f"{_AUTO} has no such option; it has none")

    def choose(
        self,
        options: StrategyOptions,
        problem: Problem,
        classifier: Classifier | None,
        *,
        pool: index_pb2.Pool,
        labelled: LabelledSet,
        seed: int,
        cancelled: CancelCheck,
    ) -> Chosen:
        """Return the strategy that picks.

        Raises
        ------
        InvalidArgument
            It needs a model and there is none, or classes that were not given.
        FailedPrecondition
            A labelled item has no text, and the model reads texts.
        Cancelled
            The caller left.
        """
        name, reason = strategy_entry(options.name).name, ""
        if name == _AUTO:
            choice = self._weigh(problem, classifier, pool, labelled, seed, cancelled)
            name, reason = choice.name, choice.reason
            options = StrategyOptions(name=name)
        strategy = _make(options, problem, classifier)
        seen = None
        if strategy.needs & _EVERYTHING:
            seen = self._look(strategy.needs, problem, classifier, pool, labelled)
        return Chosen(name=name, reason=reason, strategy=strategy, labelled=seen)

    def _weigh(
        self,
        problem: Problem,
        classifier: Classifier | None,
        pool: index_pb2.Pool,
        labelled: LabelledSet,
        seed: int,
        cancelled: CancelCheck,
    ) -> Choice:
        if classifier is None:
            return Choice(name=REPRESENTATION, reason=f"{REPRESENTATION}: there is no model yet")
        # Without the model: strategies are tried out on vectors alone, so no texts are read.
        return choose(self._look(_EVERYTHING, problem, None, pool, labelled), problem, seed, cancelled=cancelled)

    def _look(
        self,
        needs: AbstractSet[Need],
        problem: Problem,
        classifier: Classifier | None,
        pool: index_pb2.Pool,
        labelled: LabelledSet,
    ) -> LabelledView:
        return self._reader.read(
            pool,
            problem,
            classifier,
            ids=list(labelled.expands),
            classes=labelled.classes,
            needs_classes=Need.CLASSES in needs,
        )


def _make(options: StrategyOptions, problem: Problem, classifier: Classifier | None) -> QueryStrategy:
    strategy = make_strategy(options, problem)
    if classifier is None and Need.MODEL in strategy.needs:
        name = strategy_entry(options.name).name
        without = ", ".join(sorted(entry.name for entry in STRATEGIES.values() if Need.MODEL not in entry.needs))
        raise InvalidArgument("header.strategy.name", f"{name} needs a model; without one: {without}")
    return strategy
