"""`sealpool labels history|review` and `sealpool campaign oracles`: what annotators said, and how far to trust it."""

import math
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from sealpool.cli.options import SCHEDULER, AsJson, CampaignName, Scheduler, scheduler_client
from sealpool.cli.output import answer_json, count, note, plain, quality, say, share, shorten, table
from sealpool.v1 import scheduler_pb2


def history(
    campaign: CampaignName,
    item: Annotated[
        str, typer.Argument(metavar="[ITEM]", help="Only what was said of this item.", show_default=False)
    ] = "",
    *,
    annotator: Annotated[str, typer.Option("--annotator", "-a", help="Only what this one said.")] = "",
    scheduler: Scheduler = SCHEDULER,
    as_json: AsJson = False,
) -> None:
    """Show what annotators said, in its order: labels, corrections, skips, "cannot tell". With --json, one a line.

    Example: `sealpool labels history spam mail-17`
    """
    rows = []
    with scheduler_client(scheduler) as client:
        for one in client.list_annotations(campaign, item_id=item, annotator=annotator):
            if as_json:
                answer_json(plain(one))
            else:
                rows.append(_annotation_row(one))
    if rows:
        columns = ["when (UTC)", "item", "annotator", "said", ">sure", "for", "comment"]
        # Columns that say nothing here take room from those that do: the item that was asked for, and empty ones.
        kept = [n for n, name in enumerate(columns) if any(row[n] for row in rows) and not (item and name == "item")]
        say(table("", [columns[n] for n in kept], [[row[n] for n in kept] for row in rows]))
    elif not as_json:
        note("nothing was said yet")


def review(
    campaign: CampaignName,
    *,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="Labels to doubt at most.")] = 50,
    folds: Annotated[
        int, typer.Option(min=0, max=20, help="Parts of the labelled set; each is judged by the others. 0: 5.")
    ] = 0,
    show_only: Annotated[bool, typer.Option("--show-only", help="Hand nothing out.")] = False,
    scheduler: Scheduler = SCHEDULER,
    as_json: AsJson = False,
) -> None:
    """Look for labels that are likely wrong, and hand the worst out to people once more.

    The answers correct the labels; both are kept.

    Example: `sealpool labels review spam --number 20 --show-only`
    """
    with scheduler_client(scheduler) as client:
        answer = client.review_labels(campaign, max_items=number, folds=folds, show_only=show_only)
    if as_json:
        answer_json(plain(answer))
        return
    if not answer.suspects:
        say("no label looks wrong")
        return
    rows = [
        [one.item_id, ", ".join(one.classes) or "none", guess_words(one.predictions, most=3), quality(one.quality)]
        for one in answer.suspects
    ]
    say(table("", ["item", "label", "the model would say", ">trust"], rows))
    if not show_only:
        say(f"{count(answer.tasks)} tasks made: label them with sealpool label {campaign}")


def oracles(name: CampaignName, *, scheduler: Scheduler = SCHEDULER, as_json: AsJson = False) -> None:
    """Show who labelled how much, how well annotators agree, and what a language model cost.

    Example: `sealpool campaign oracles spam`
    """
    with scheduler_client(scheduler) as client:
        report = client.get_oracle_report(name)
    if as_json:
        answer_json(plain(report))
        return
    say(_annotators(report.annotators))
    if report.several:
        say(f"agreement on {count(report.several)} items with several annotations: alpha {quality(report.agreement)}")
    if report.HasField("llm"):
        say(*_llm_lines(report.llm))


def guess_words(predictions: Sequence[scheduler_pb2.ClassProbability], *, most: int) -> str:
    """Return the likeliest classes with their probabilities, "" without any."""
    return ", ".join(f"{one.name} {one.probability:.2f}" for one in predictions[:most])


def _annotation_row(one: scheduler_pb2.Annotation) -> list[str]:
    outcome = str(plain(one)["outcome"])
    labelled = one.outcome == scheduler_pb2.ANNOTATION_OUTCOME_LABEL
    said = (", ".join(one.classes) or "no class") if labelled else outcome.replace("_", " ")
    return [
        f"{one.committed_at.ToDatetime():%Y-%m-%d %H:%M:%S}",
        one.item_id,
        one.annotator,
        said,
        quality(one.confidence) if one.HasField("confidence") else "",
        str(plain(one)["purpose"]),
        shorten(one.comment, 60),
    ]


def _annotators(reports: Sequence[scheduler_pb2.AnnotatorReport]) -> Table:
    rows = [
        [
            one.annotator,
            count(one.labels),
            count(one.skipped),
            count(one.cannot_tell),
            share(one.agreed / one.compared) + f" of {count(one.compared)}" if one.compared else "–",
        ]
        for one in reports
    ]
    return table("", ["annotator", ">labels", ">skipped", ">cannot tell", ">with the final label"], rows)


def _llm_lines(llm: scheduler_pb2.LlmReport) -> list[str]:
    lines = [
        f"language model: {count(llm.requests)} requests, {count(llm.tokens_in)} tokens in, {count(llm.tokens_out)} "
        f"out, cost {llm.cost:,.2f}; {count(llm.labelled)} labels, {count(llm.abstained)} left to people"
    ]
    if math.isnan(llm.error_rate):
        return [*lines, "its error rate is not known: no label of it was audited"]
    return [
        *lines,
        f"its error rate: {share(llm.error_rate)} ({share(llm.error_low)} to {share(llm.error_high)}, 95 %): "
        f"{count(llm.errors)} of {count(llm.audited)} labels that people gave too",
    ]
