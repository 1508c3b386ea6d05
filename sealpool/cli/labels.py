"""`sealpool tasks …` and `sealpool labels …`."""

import getpass
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from sealpool.cli.label_history import guess_words, history, review
from sealpool.cli.label_import import Imported, import_labels
from sealpool.cli.options import SCHEDULER, AsJson, Scheduler, scheduler_client
from sealpool.cli.output import answer_json, count, note, plain, quality, say, shorten, table
from sealpool.cli.records import bad_row, missing, read_chunks
from sealpool.v1 import scheduler_pb2

tasks_app = typer.Typer(help="Tasks: items that wait for a label.", no_args_is_help=True)
labels_app = typer.Typer(help="Labels that people or systems hand in.", no_args_is_help=True)
labels_app.command()(history)
labels_app.command()(review)

CampaignName = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="Name of the campaign.", show_default=False)]
Annotator = Annotated[
    str,
    typer.Option(
        "--annotator", "-a", envvar="SEALPOOL_ANNOTATOR", help="Who labels. Default: the name you are logged in by."
    ),
]


@tasks_app.command("next")
def next_(
    campaign: CampaignName,
    *,
    annotator: Annotator = "",
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="How many tasks to take.")] = 1,
    lease: Annotated[
        float, typer.Option(min=0, max=604_800, metavar="SECONDS", help="How long they stay yours. 0: the campaign's.")
    ] = 0.0,
    guess: Annotated[bool, typer.Option("--guess", help="Tell what the last model makes of them.")] = False,
    scheduler: Scheduler = SCHEDULER,
    as_json: AsJson = False,
) -> None:
    """Take the tasks that are wanted most; they are yours until the lease runs out.

    `sealpool label` does so and asks for their labels in the terminal.

    Example: `sealpool tasks next spam -n 10 --json > tasks.json`
    """
    with scheduler_client(scheduler) as client:
        answer = client.lease_tasks(
            campaign, annotator=who(annotator), max_tasks=number, lease_s=lease, include_predictions=guess
        )
        about = None if as_json else client.get_campaign(campaign)
    if about is None:
        answer_json(plain(answer))
        return
    if not answer.tasks:
        note(_why_none(about))
        return
    columns = ["item", ">round", ">score", "why", *(["guess"] if guess else []), "text"]
    say(table("", columns, [_task_row(task, guess=guess) for task in answer.tasks]))
    say(f"classes: {', '.join(about.spec.classes)}")
    say(f"label them with: sealpool labels submit {campaign} ITEM=CLASS …   ({count(answer.open_tasks)} more are open)")


def _why_none(campaign: scheduler_pb2.Campaign) -> str:
    if not campaign.leased_tasks:
        return "no task is open"
    words = "is with an annotator, and opens" if campaign.leased_tasks == 1 else "are with annotators, and open"
    return f"no task is open; {count(campaign.leased_tasks)} {words} again when the lease runs out"


def _task_row(task: scheduler_pb2.Task, *, guess: bool) -> list[str]:
    return [
        task.item_id,
        str(task.round),
        quality(task.score),
        str(plain(task)["origin"]),
        *([guess_words(task.predictions, most=1)] if guess else []),
        shorten(task.text or task.uri),
    ]


@tasks_app.command()
def release(
    campaign: CampaignName, *, annotator: Annotator = "", scheduler: Scheduler = SCHEDULER, as_json: AsJson = False
) -> None:
    """Give all tasks that are yours back: they are open again at once."""
    with scheduler_client(scheduler) as client:
        released = client.release_tasks(campaign, annotator=who(annotator))
    if as_json:
        answer_json({"campaign": campaign, "released": released})
    else:
        say(f"{count(released)} tasks given back")


@labels_app.command()
def submit(
    campaign: CampaignName,
    labels: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ITEM=CLASS]…",
            help="Several classes of one item: repeat it. No class at all (multi-label): ITEM= . Of several =, the "
            "first that one of the campaign's classes follows parts the two, else the last.",
            show_default=False,
        ),
    ] = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            "-f",
            exists=True,
            dir_okay=False,
            help="JSON Lines, CSV or Parquet with columns id and labels, instead.",
        ),
    ] = None,
    annotator: Annotator = "",
    held_out: Annotated[
        bool, typer.Option("--held-out", help="For evaluation: the items lie in the evaluation pool; costs no budget.")
    ] = False,
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going",
            help="Take what can be taken, and tell of each other label why not (exit code 1). Otherwise the first call "
            "that is refused ends it.",
        ),
    ] = False,
    scheduler: Scheduler = SCHEDULER,
    as_json: AsJson = False,
) -> None:
    """Hand in labels; what was acknowledged is on disk.

    A file is sent in calls of 1,000 labels, each applied whole or not at all. So labels that exist already are taken
    over: with `--file` and `--keep-going`.

    Examples: `sealpool labels submit spam mail-17=spam mail-18=ham`, `sealpool labels submit spam -f labels.csv`
    """
    if bool(labels) == (file is not None):
        raise typer.BadParameter("give ITEM=CLASS … or --file FILE")
    words = [_checked(word) for word in labels or []]
    purpose = scheduler_pb2.LABEL_PURPOSE_EVALUATION if held_out else scheduler_pb2.LABEL_PURPOSE_UNSPECIFIED
    with scheduler_client(scheduler) as client:
        if file is not None:
            pairs = _from_file(file)
        else:
            ambiguous = any(word.count("=") > 1 for word in words)
            pairs = _from_words(words, client.get_campaign(campaign).spec.classes if ambiguous else ())

        def hand_in(some: Mapping[str, Sequence[str]]) -> scheduler_pb2.SubmitLabelsResponse:
            return client.submit_labels(campaign, some, annotator=who(annotator), purpose=purpose)

        done = import_labels(pairs, hand_in, keep_going=keep_going)
    _tell(campaign, done, as_json=as_json)


def _tell(campaign: str, done: Imported, *, as_json: bool) -> None:
    total = done.total
    refused = [{"item_id": one.item_id, "classes": list(one.classes), "reason": one.reason} for one in done.refused]
    if as_json:
        answer_json({**plain(total), **({"refused": refused} if refused else {})})
    else:
        waiting = f", {count(total.waiting)} wait for more annotations" if total.waiting else ""
        say(
            f"{count(total.accepted)} labels taken ({count(total.corrections)} corrections, {count(total.unsolicited)} "
            f"not asked for{waiting}); {campaign} has {count(total.labels)}"
        )
        if refused:
            rows = [[one.item_id, ", ".join(one.classes), one.reason] for one in done.refused]
            say(table("not taken", ["item", "classes", "why"], rows))
    if refused:
        raise typer.Exit(1)


def _checked(word: str) -> str:
    if "=" not in word[1:]:
        raise typer.BadParameter(f"{word!r} is not ITEM=CLASS")
    return word


def _from_words(words: Sequence[str], classes_known: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in words:
        item, name = _parted(word, classes_known)
        classes = found.setdefault(item, [])
        if name:
            classes.append(name)
    return found


def _parted(word: str, classes: Sequence[str]) -> tuple[str, str]:
    """Return item and class: an id may hold "=", and so may a class."""
    places = [place for place, letter in enumerate(word) if letter == "=" and place > 0]
    place = next((place for place in places if word[place + 1 :] in classes), places[-1])
    return word[:place], word[place + 1 :]


def _from_file(file: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for chunk in read_chunks(file):
        for record in chunk.records:
            if record.labels is None:
                raise bad_row(file, record.line, "labels", missing(file, "labels"))
            if record.id in found:
                raise bad_row(file, record.line, "id", f"{record.id!r} is there twice")
            found[record.id] = list(record.labels)
    return found


def who(annotator: str) -> str:
    """Return who labels: the name given, or the one that the user is logged in by."""
    if annotator:
        return annotator
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # no variable, and a user id without a name, as in some containers
        return "cli"
