"""`sealpool tasks …` and `sealpool labels …`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from sealpool.cli.options import SCHEDULER, AsJson, Scheduler, scheduler_client
from sealpool.cli.output import answer_json, count, note, plain, quality, say, table
from sealpool.cli.records import bad_row, read_chunks
from sealpool.v1 import scheduler_pb2

tasks_app = typer.Typer(help="Tasks: items that wait for a label.", no_args_is_help=True)
labels_app = typer.Typer(help="Labels that people or systems hand in.", no_args_is_help=True)

_LABELS_A_CALL = 1_000

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
    scheduler: Scheduler = SCHEDULER,
    as_json: AsJson = False,
) -> None:
    """Take the tasks that are wanted most; they are yours until the lease runs out.

    Example: `sealpool tasks next spam -n 10 --json > tasks.json`
    """
    with scheduler_client(scheduler) as client:
        answer = client.lease_tasks(campaign, annotator=_who(annotator), max_tasks=number, lease_s=lease)
    if as_json:
        answer_json(plain(answer))
        return
    if not answer.tasks:
        note("no task is open")
        return
    say(table("", ["item", ">round", ">score", "why", "text"], [_task_row(task) for task in answer.tasks]))
    say(f"label them with: sealpool labels submit {campaign} ITEM=CLASS …   ({count(answer.open_tasks)} more are open)")


def _task_row(task: scheduler_pb2.Task) -> list[str]:
    return [task.item_id, str(task.round), quality(task.score), str(plain(task)["origin"]), task.text or task.uri]


@labels_app.command()
def submit(
    campaign: CampaignName,
    labels: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ITEM=CLASS]…",
            help="Several classes of one item: repeat it. No class at all (multi-label): ITEM=",
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
    scheduler: Scheduler = SCHEDULER,
    as_json: AsJson = False,
) -> None:
    """Hand in labels; what was acknowledged is on disk.

    A file is sent in calls of 1,000 labels, each applied whole or not at all.

    Examples: `sealpool labels submit spam mail-17=spam mail-18=ham`, `sealpool labels submit spam -f labels.csv`
    """
    if bool(labels) == (file is not None):
        raise typer.BadParameter("give ITEM=CLASS … or --file FILE")
    pairs = _from_file(file) if file is not None else _from_words(labels or [])
    total = scheduler_pb2.SubmitLabelsResponse()
    items = list(pairs.items())
    with scheduler_client(scheduler) as client:
        for start in range(0, len(items), _LABELS_A_CALL):
            some = dict(items[start : start + _LABELS_A_CALL])
            answer = client.submit_labels(campaign, some, annotator=_who(annotator), held_out=held_out)
            total.accepted += answer.accepted
            total.unsolicited += answer.unsolicited
            total.corrections += answer.corrections
            total.labels = answer.labels
    if as_json:
        answer_json(plain(total))
        return
    say(
        f"{count(total.accepted)} labels taken ({count(total.corrections)} corrections, {count(total.unsolicited)} not "
        f"asked for); {campaign} has {count(total.labels)}"
    )


def _from_words(words: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in words:
        item, equals, name = word.rpartition("=")
        if not equals or not item:
            raise typer.BadParameter(f"{word!r} is not ITEM=CLASS")
        classes = found.setdefault(item, [])
        if name:
            classes.append(name)
    return found


def _from_file(file: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for chunk in read_chunks(file):
        for record in chunk.records:
            if record.labels is None:
                raise bad_row(file, record.line, "labels", "is missing")
            if record.id in found:
                raise bad_row(file, record.line, "id", f"{record.id!r} is there twice")
            found[record.id] = list(record.labels)
    return found


def _who(annotator: str) -> str:
    return annotator or os.environ.get("USER") or "cli"
