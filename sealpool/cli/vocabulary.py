"""`sealpool strategies` and `sealpool models`: what a campaign can choose from. Answered without any service."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from sealpool.cli.options import AsJson
from sealpool.cli.output import Json, answer_json, facts, say
from sealpool.vocabulary.models import ESTIMATORS, MODELS, EstimatorEntry, ModelEntry
from sealpool.vocabulary.strategies import EVERY_TASK, STRATEGIES, Family, Need, StrategyEntry, resolve_strategy

_NEEDS = {
    Need.MODEL: "a trained model",
    Need.SAMPLES: "posterior samples",
    Need.LABELLED: "the labelled items",
    Need.CLASSES: "the labels' classes",
}
_COMMON = frozenset.intersection(*(frozenset(one.options) for one in MODELS.values()))
_NEURAL = sorted(option for option in MODELS["mlp"].options if option.startswith("neural."))
_TASKS = ("binary", "multiclass", "multilabel")


class FamilyName(StrEnum):
    """The families of strategies, as a command line spells them."""

    BASELINE = "baseline"
    UNCERTAINTY = "uncertainty"
    DENSITY = "density"
    BAYESIAN = "bayesian"
    REPRESENTATION = "representation"
    EXPECTED_CHANGE = "expected_change"
    SEARCH = "search"

    @property
    def family(self) -> Family:
        """The family itself."""
        return Family[self.name]


def strategies(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Show one in full; another library's name will do.", show_default=False),
    ] = None,
    *,
    family: Annotated[FamilyName | None, typer.Option(help="Only those of one family.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the query strategies: what each picks, what it needs, where it is from.

    Examples: `sealpool strategies`, `sealpool strategies --family search`, `sealpool strategies BreakingTies`
    """
    if name is not None:
        _show_strategy(_strategy(name), as_json=as_json)
        return
    chosen = [one for one in STRATEGIES.values() if family is None or one.family is family.family]
    if as_json:
        answer_json({"strategies": [strategy_json(one) for one in chosen]})
        return
    for group in Family:
        listed = [one for one in chosen if one.family is group]
        if listed:
            say(_listing(group.value, [(one.name, _strategy_lines(one)) for one in listed]), "")
    say("Posterior samples come from an estimator, texts are read by models: `sealpool models` tells of both.")


def models(*, as_json: AsJson = False) -> None:
    """List the models, and the estimators of their doubt."""
    if as_json:
        answer_json(
            {
                "models": [model_json(one) for one in MODELS.values()],
                "estimators": [estimator_json(one) for one in ESTIMATORS.values()],
            }
        )
        return
    say(_listing("models", [(one.name, _model_lines(one)) for one in MODELS.values()]), "")
    say(_listing("estimators", [(one.name, _estimator_lines(one)) for one in ESTIMATORS.values()]), "")
    common = ", ".join(f"--{option.replace('_', '-')}" for option in sorted(_COMMON))
    say(f"Every model takes {common}; `sealpool campaign create --help` says how options are given.")


def needs_words(entry: StrategyEntry) -> list[str]:
    """Return what a strategy asks for beside the candidates' vectors, as users are told."""
    words = [_NEEDS[need] for need in Need if need in entry.needs]
    looks_for_one = "positive_class" in entry.options and not entry.base
    return [*words, *(["the class looked for"] if looks_for_one else [])]


def tasks_words(entry: StrategyEntry) -> str:
    """Return the tasks that a strategy has a meaning for."""
    return "every task" if entry.tasks == EVERY_TASK else f"{', '.join(_in_order(entry.tasks))} only"


def strategy_json(entry: StrategyEntry) -> dict[str, Json]:
    """Return all that is known of a strategy."""
    return {
        "name": entry.name,
        "family": entry.family.value,
        "summary": entry.summary,
        "needs": needs_words(entry),
        "tasks": _in_order(entry.tasks),
        "per_item": entry.per_item,
        "options": sorted(entry.options),
        "base": entry.base,
        "cost": entry.cost,
        "reference": entry.reference,
        "aliases": list(entry.aliases),
    }


def model_json(entry: ModelEntry) -> dict[str, Json]:
    """Return all that is known of a model."""
    return {
        "name": entry.name,
        "summary": entry.summary,
        "reads_text": entry.reads_text,
        "options": sorted(entry.options),
        "reference": entry.reference,
    }


def estimator_json(entry: EstimatorEntry) -> dict[str, Json]:
    """Return all that is known of an estimator."""
    return {
        "name": entry.name,
        "summary": entry.summary,
        "posterior_samples": entry.draws,
        "reference": entry.reference,
    }


def _strategy(name: str) -> StrategyEntry:
    own = resolve_strategy(name)
    if own is None:
        near = get_close_matches(name.lower(), STRATEGIES, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise typer.BadParameter(f"{name!r} is no query strategy{hint}", param_hint="NAME")
    return STRATEGIES[own]


def _show_strategy(entry: StrategyEntry, *, as_json: bool) -> None:
    if as_json:
        answer_json(strategy_json(entry))
        return
    options = [f"--{option.replace('_', '-')}" for option in sorted(entry.options)]
    pairs = {
        "family": entry.family.value,
        "picks": entry.summary,
        "needs": ", ".join(needs_words(entry)) or "nothing",
        "tasks": tasks_words(entry),
        "options": ", ".join(options) or "none",
        **({"default base": entry.base} if entry.base else {}),
        "scores": "each item alone: can be a base, and goes with --growth pick" if entry.per_item else "batches whole",
        "cost": entry.cost,
        "reference": entry.reference,
        "also called": ", ".join(entry.aliases) or "nothing else",
    }
    say(facts(entry.name, pairs))


def _strategy_lines(entry: StrategyEntry) -> list[str]:
    needs = f"needs {', '.join(needs_words(entry))}" if needs_words(entry) else "needs nothing"
    only = "" if entry.tasks == EVERY_TASK else f"; {tasks_words(entry)}"
    also = [f"also {', '.join(entry.aliases)}"] if entry.aliases else []
    return [entry.summary, needs + only, entry.reference, *also]


def _model_lines(entry: ModelEntry) -> list[str]:
    reads = f"reads {'texts' if entry.reads_text else 'vectors'}"
    return [entry.summary, reads, entry.reference, f"options {', '.join(model_options(entry))}"]


def model_options(entry: ModelEntry) -> list[str]:
    """Return the options of a model that not every model has, as a command line gives them."""
    missing = [option.partition(".")[2] for option in _NEURAL if option not in entry.options]
    but = f" (not {', '.join(missing)})" if missing else ""
    neural = [f"--neural{but}"] if len(missing) < len(_NEURAL) else []
    text = [option.partition(".")[2] for option in sorted(entry.options) if option.startswith("text.")]
    own = [f"--{option.replace('_', '-')}" for option in sorted(entry.options - _COMMON) if "." not in option]
    return [*own, *neural, *([f"--text ({', '.join(text)})"] if text else [])]


def _estimator_lines(entry: EstimatorEntry) -> list[str]:
    draws = "draws posterior samples" if entry.draws else "draws no posterior samples"
    return [entry.summary, draws, entry.reference]


def _listing(title: str, entries: Sequence[tuple[str, Sequence[str]]]) -> Table:
    """Return a name and its lines each, the first of them bright."""
    made = Table(
        title=Text(title, style="bold"), title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0)
    )
    made.add_column(no_wrap=True, style="bold")
    made.add_column()
    for name, lines in entries:
        text = Text(lines[0])
        for line in lines[1:]:
            text.append(f"\n{line}", style="dim")
        made.add_row(name, text)
    return made


def _in_order(tasks: AbstractSet[str]) -> list[str]:
    return [task for task in _TASKS if task in tasks]
