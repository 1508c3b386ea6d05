"""Options of `campaign create` for who labels, what comes first, and when it is enough; and their messages."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from sealpool.cli.pairs import filled
from sealpool.errors import InvalidArgument
from sealpool.v1 import scheduler_pb2

LABELS_PANEL, STOP_PANEL = "Who labels", "Quality, and when it is enough"

StringList = list[str] | None


def _labels(option: str, help_: str, **more: Any) -> Any:
    return typer.Option(option, help=help_, rich_help_panel=LABELS_PANEL, **more)


def _stop(option: str, help_: str, **more: Any) -> Any:
    return typer.Option(option, help=help_, rich_help_panel=STOP_PANEL, **more)


Seeding = Annotated[
    StringList,
    typer.Option(
        "--seeding",
        help="How the first batch is chosen: random (the default), examples, queries, strategy or concept; and "
        "item_ids=ID, queries=TEXT, encoder=NAME, strategy=typiclust, positives=5. Give it once for each.",
        metavar="WORD",
        rich_help_panel="Rounds",
    ),
]
OpenRounds = Annotated[
    int,
    typer.Option(
        "--open-rounds",
        min=0,
        help="Rounds whose tasks may wait at once; older tasks that nobody holds are withdrawn. 0: they wait until "
        "they are labelled.",
        rich_help_panel="Rounds",
    ),
]
Annotation = Annotated[
    StringList,
    _labels(
        "--annotation",
        "Several people an item: annotations=3, max_annotations=5, agreement=majority or dawid_skene; and "
        'give_up_after=2, the "cannot tell" after which an item is given up. Give it once for each.',
        metavar="KEY=VALUE",
    ),
]
OtherClass = Annotated[
    str,
    _labels(
        "--other-class",
        "dataset: the class of items that have none of the others, so that one of many can be asked for.",
    ),
]
Llm = Annotated[
    StringList,
    _labels(
        "--llm",
        "llm: model=NAME, endpoint (of the scheduler's llm_endpoints), instructions=TEXT or @FILE, examples, samples, "
        "temperature, min_confidence, audit_share, max_tokens, max_cost, max_text_characters, template=@FILE. Give it "
        "once for each.",
        metavar="KEY=VALUE",
    ),
]
Define = Annotated[
    StringList,
    _labels("--define", "llm: what a class means, in words. Give it once for each.", metavar="CLASS=TEXT"),
]
Stream = Annotated[
    StringList,
    _labels(
        "--stream",
        "Decide of items as they come (`sealpool stream`): threshold=fixed, variable or budgeted, uncertainty, step, "
        "budget_share, horizon, random_share, join_pool=yes, encoder=NAME. Give it once for each.",
        metavar="KEY=VALUE",
    ),
]
ExcludeSynthetic = Annotated[
    bool,
    typer.Option(
        "--exclude-synthetic",
        help="Never train on items that were made (`sealpool synthesize`), labelled or not.",
        rich_help_panel="Rounds",
    ),
]
Evaluation = Annotated[
    StringList,
    _stop(
        "--evaluation",
        "Held-out items out of the pool itself, within the budget: items=300 drawn at random; or, chosen by the "
        "model's doubt, test_points=10 a round out of test_pool=2000. Give it once for each.",
        metavar="KEY=VALUE",
    ),
]
Stopping = Annotated[
    StringList,
    _stop(
        "--stopping",
        "Say when labels no longer help: target_score, target_measure=macro_f1, kappa=0.99, overall_uncertainty, "
        "classification_change, stop_set=1000, patience=3; complete=yes ends the campaign then. Give it once for each.",
        metavar="KEY=VALUE",
    ),
]


def seeding_spec(told: Sequence[str] | None) -> scheduler_pb2.SeedingSpec | None:
    """Return what `--seeding` said, None if nothing; a word alone is the kind."""
    pairs = [one if "=" in one else f"kind={one}" for one in told or ()]
    return filled(scheduler_pb2.SeedingSpec(), "--seeding", pairs)


def annotation_spec(told: Sequence[str] | None) -> scheduler_pb2.AnnotationSpec | None:
    """Return what `--annotation` said, None if nothing."""
    return filled(scheduler_pb2.AnnotationSpec(), "--annotation", told or ())


def evaluation_spec(told: Sequence[str] | None) -> scheduler_pb2.EvaluationSpec | None:
    """Return what `--evaluation` said, None if nothing."""
    return filled(scheduler_pb2.EvaluationSpec(), "--evaluation", told or ())


def stopping_spec(told: Sequence[str] | None) -> scheduler_pb2.StoppingSpec | None:
    """Return what `--stopping` said, None if nothing."""
    return filled(scheduler_pb2.StoppingSpec(), "--stopping", told or ())


def stream_spec(told: Sequence[str] | None) -> scheduler_pb2.StreamSpec | None:
    """Return what `--stream` said, None if nothing."""
    return filled(scheduler_pb2.StreamSpec(), "--stream", told or ())


def llm_spec(told: Sequence[str] | None, definitions: Sequence[str] | None) -> scheduler_pb2.LlmSpec | None:
    """Return what `--llm` and `--define` said, None if nothing."""
    spec = filled(scheduler_pb2.LlmSpec(), "--llm", told or ())
    if not definitions:
        return spec
    spec = spec or scheduler_pb2.LlmSpec()
    for one in definitions:
        name, equals, text = one.partition("=")
        if not (name and equals and text):
            raise InvalidArgument("--define", f"{one!r} is not CLASS=TEXT")
        spec.definitions.add(name=name, definition=text)
    return spec
