"""`sealpool stream …` and `sealpool synthesize`."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sealpool.cli.options import SCHEDULER, AsJson, CampaignName, Scheduler, client_options
from sealpool.cli.output import answer_json, count, facts, plain, quality, say, share, shorten, table
from sealpool.cli.records import Chunk, read_chunks
from sealpool.client import StreamClient, stream_item
from sealpool.v1 import learner_pb2, stream_pb2

app = typer.Typer(help="Items that come one by one: which of them are worth a label.", no_args_is_help=True)

_ITEMS_A_CALL = 250


class Method(StrEnum):
    """How items are made."""

    INTERPOLATE = "interpolate"
    BOUNDARY = "boundary"
    AUGMENT = "augment"
    PARAPHRASE = "paraphrase"


@app.command()
def consider(
    campaign: CampaignName,
    *,
    file: Annotated[
        Path,
        typer.Option(
            "--file",
            "-f",
            exists=True,
            dir_okay=False,
            help="JSON Lines, CSV or Parquet with columns id and text or vector, in the order they came.",
            show_default=False,
        ),
    ],
    show: Annotated[bool, typer.Option("--show", help="Print what was decided of each item.")] = False,
    scheduler: Scheduler = SCHEDULER,
    as_json: AsJson = False,
) -> None:
    """Decide of each item whether the oracle is asked; the others get the model's label.

    Items are sent in calls of 250, each applied whole or not at all. The same file again changes nothing. With --json,
    one decision a line.

    Example: `sealpool stream consider papers -f new.jsonl --show`
    """
    seen = asked = repeated = 0
    with StreamClient(scheduler, options=client_options()) as client:
        for chunk in read_chunks(file, chunk_rows=_ITEMS_A_CALL):
            decisions = client.consider_batch(campaign, list(_items(chunk)))
            for decision in decisions:
                if as_json:
                    answer_json(plain(decision))
                elif show:
                    say(_line(decision))
            seen += len(decisions)
            asked += sum(decision.asked and not decision.repeated_id for decision in decisions)
            repeated += sum(decision.repeated_id for decision in decisions)
    if not as_json:
        again = f"; {count(repeated)} had been decided of before" if repeated else ""
        say(f"{count(seen)} items, {count(asked)} of them sent to the oracle{again}")


def _items(chunk: Chunk) -> Iterator[stream_pb2.StreamItem]:
    for row, record in enumerate(chunk.records):
        yield stream_item(
            record.id,
            text=record.text,
            vector=None if chunk.vectors is None else chunk.vectors[row],
            uri=record.uri,
            metadata=record.metadata,
        )


def _line(decision: stream_pb2.StreamDecision) -> str:
    verdict = "asked" if decision.asked else "model"
    why = " at random" if decision.at_random else ""
    classes = ", ".join(decision.classes) or "none"
    return (
        f"{decision.item_id}  {verdict}{why}  {classes}  uncertainty {quality(decision.uncertainty)}, threshold "
        f"{quality(decision.threshold)}"
    )


@app.command("show")
def show_stream(campaign: CampaignName, *, scheduler: Scheduler = SCHEDULER, as_json: AsJson = False) -> None:
    """Show how a campaign's stream stands."""
    with StreamClient(scheduler, options=client_options()) as client:
        stream = client.get_stream(campaign)
    if as_json:
        answer_json(plain(stream))
        return
    drifts = f"{count(stream.drifts)}, the last after {count(stream.last_drift_at)} items" if stream.drifts else "none"
    say(
        facts(
            campaign,
            {
                "seen": count(stream.seen),
                "asked": f"{count(stream.asked)} (lately {share(stream.asked_share)})",
                "threshold": quality(stream.threshold),
                "mean uncertainty": quality(stream.mean_uncertainty),
                "drifts": drifts,
            },
        )
    )


def synthesize(
    campaign: CampaignName,
    *,
    method: Annotated[Method, typer.Option(help="How items are made; see docs/streams.md.", show_default=False)],
    number: Annotated[int, typer.Option("--count", "-n", min=1, help="How many items.")] = 20,
    keep_label: Annotated[
        bool, typer.Option("--keep-label", help="augment, paraphrase: take over the source's label, ask nobody.")
    ] = False,
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Make them from items of this class; may be repeated.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help='augment, paraphrase: the encoder that the pool was embedded with. "": the stream\'s.')
    ] = "",
    endpoint: Annotated[str, typer.Option(help="paraphrase: one of the scheduler's. \"\": the campaign's.")] = "",
    model: Annotated[str, typer.Option(help='paraphrase: the language model. "": the campaign\'s.')] = "",
    scheduler: Scheduler = SCHEDULER,
    as_json: AsJson = False,
) -> None:
    """Make items from labelled ones, or find the real ones nearest to made points, and have them labelled.

    They are tasks of the campaign, within its budget.

    Example: `sealpool synthesize papers --method boundary --count 20`
    """
    header = learner_pb2.EmbedHeader(encoder=encoder, normalize=True) if encoder else None
    with StreamClient(scheduler, options=client_options()) as client:
        items = client.synthesize(
            campaign,
            stream_pb2.SynthesisMethod.Value(f"SYNTHESIS_METHOD_{method.name}"),
            number,
            keep_label=keep_label,
            classes=classes or (),
            encoder=header,
            endpoint=endpoint,
            model=model,
        )
    if as_json:
        answer_json({"items": [plain(item) for item in items]})
        return
    if items:
        say(table("", ["item", "from", ">distance", "text"], [_row(item) for item in items]))
    fewer = f" (of {count(number)}: no more could be made, or the budget has no room)" if len(items) < number else ""
    say(f"{count(len(items))} items {'labelled as their sources' if keep_label else 'wait for a label'}{fewer}")


def _row(item: stream_pb2.SyntheticItem) -> list[str]:
    distance = quality(item.distance) if item.real else "–"
    return [item.item_id, ", ".join(item.sources), distance, shorten(item.text, 60)]
