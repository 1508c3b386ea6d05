"""`sealpool export`: labels, what annotators said, and predictions, into files that other tools read."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from sealpool.cli.export_files import Kind, kind_of, write_data_set, write_rows
from sealpool.cli.options import INDEX, SCHEDULER, AsJson, CampaignName, Index, Scheduler, index_client, need
from sealpool.cli.options import scheduler_client as connect
from sealpool.cli.output import Json, answer_json, count, note, plain
from sealpool.client import IndexClient, SchedulerClient
from sealpool.types import Payload
from sealpool.v1 import scheduler_pb2

_NAMES = {"item_id": "id", "classes": "labels"}
"""What `pool ingest` and `labels submit --file` read, where the contract has another name."""
_ROWS_TOGETHER = 1_000
_PREDICTED = ("source", "confidence", "probabilities")
_PAYLOAD = ("text", "uri", "metadata")

Row = Mapping[str, Json]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    history: bool
    held_out: bool
    annotations: bool
    payloads: bool
    predictions: Path | None

    @property
    def columns(self) -> list[str]:
        """What a row has."""
        message = scheduler_pb2.Annotation if self.annotations else scheduler_pb2.Label
        found = [_NAMES.get(field.name, field.name) for field in message.DESCRIPTOR.fields]
        found += _PREDICTED if self.predictions is not None else ()
        return found + list(_PAYLOAD if self.payloads else ())


def export(
    name: CampaignName,
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "--out", "-o", metavar="PATH", help="Where to write. Default: stdout."),
    ] = None,
    kind: Annotated[
        Kind | None,
        typer.Option(
            "--format", help="Default: by the name of PATH; JSON Lines otherwise. hugging-face is a directory."
        ),
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Labels that were corrected since, too; in the order they came.")
    ] = False,
    held_out: Annotated[bool, typer.Option("--held-out", help="The labels for evaluation instead.")] = False,
    annotations: Annotated[
        bool, typer.Option("--annotations", help="What each annotator said instead: votes, skips, comments.")
    ] = False,
    payloads: Annotated[bool, typer.Option("--payloads", help="With the items' text, uri and metadata.")] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, exists=True, help="With the labels that label-rest wrote to DIR."),
    ] = None,
    index: Index = INDEX,
    scheduler: Scheduler = SCHEDULER,
    as_json: AsJson = False,
) -> None:
    """Write a campaign's labels: id, labels (the classes), who labelled, when.

    `labels submit --file` reads such files. `hugging-face` writes a directory that `datasets.load_dataset` reads, with
    the texts: split `train`, `test` where there are labels for evaluation, `predicted` with --predictions.

    Examples: `sealpool export spam -o labels.csv`, `sealpool export spam -o spam-set --format hugging-face`
    """
    wanted = _Wanted(
        history=history,
        held_out=held_out,
        annotations=annotations,
        payloads=payloads,
        predictions=predictions,
    )
    chosen = kind_of(output, kind)
    _check(wanted, chosen, output, as_json)
    with connect(scheduler) as campaigns, index_client(index) as pools:
        if chosen is Kind.HUGGING_FACE and output is not None:
            written = _write_data_set(name, output, wanted, campaigns, pools)
        else:
            rows = _labelled_rows(name, wanted, campaigns)
            if payloads:
                rows = _with_payloads(rows, _pool_of(name, wanted, campaigns), pools)
            written = write_rows(rows, output, chosen, wanted.columns)
    if as_json:
        answer_json({"campaign": name, "labels": written, "file": str(output)})
    elif output is not None:
        note(f"{count(written)} labels of {name} in {output}")


def _check(wanted: _Wanted, kind: Kind, output: Path | None, as_json: bool) -> None:
    if as_json and output is None:
        raise typer.BadParameter("--json needs --output: without it, stdout holds the labels")
    if kind in (Kind.PARQUET, Kind.HUGGING_FACE):
        if output is None:
            raise typer.BadParameter(f"{kind} needs --output")
        need("pyarrow.parquet", extra="cli")
    if wanted.annotations and (wanted.history or wanted.held_out or wanted.predictions or kind is Kind.HUGGING_FACE):
        raise typer.BadParameter(
            "--annotations are all that was said: leave out --history, --held-out, --predictions and hugging-face"
        )
    if kind is Kind.HUGGING_FACE and (wanted.history or wanted.held_out):
        raise typer.BadParameter("hugging-face has the effective labels of both kinds: leave out --history, --held-out")
    if wanted.predictions is not None and wanted.held_out:
        raise typer.BadParameter("--predictions go with the labels, not with --held-out")
    if wanted.predictions is not None:
        need("pyarrow.parquet", extra="cli")


def _pool_of(name: str, wanted: _Wanted, campaigns: SchedulerClient) -> str:
    spec = campaigns.get_campaign(name).spec
    return spec.evaluation_pool if wanted.held_out and spec.evaluation_pool else spec.pool


def _labelled_rows(name: str, wanted: _Wanted, campaigns: SchedulerClient) -> Iterator[Row]:
    if wanted.annotations:
        yield from map(_row, campaigns.list_annotations(name))
        return
    purpose = scheduler_pb2.LABEL_PURPOSE_EVALUATION if wanted.held_out else scheduler_pb2.LABEL_PURPOSE_TRAINING
    given: set[str] = set()
    for label in campaigns.list_labels(name, only_effective=not wanted.history, purpose=purpose):
        if wanted.predictions is None:
            yield _row(label)
        else:
            given.add(label.item_id)
            yield {**_row(label), "source": "oracle", "confidence": 1.0}
    if wanted.predictions is not None:
        yield from _predicted_rows(name, wanted.predictions, given | _held_out(name, campaigns))


def _row(message: scheduler_pb2.Label | scheduler_pb2.Annotation) -> Row:
    return {_NAMES.get(name, name): value for name, value in plain(message).items()}


def _held_out(name: str, campaigns: SchedulerClient) -> set[str]:
    """Return those items of the campaign's pool that are for evaluation: they never stand among the others."""
    if campaigns.get_campaign(name).spec.evaluation_pool:
        return set()
    return {label.item_id for label in campaigns.list_labels(name, purpose=scheduler_pb2.LABEL_PURPOSE_EVALUATION)}


def _predicted_rows(name: str, directory: Path, given: set[str]) -> Iterator[Row]:
    """Yield what has a label in label-rest's directory, less the items in `given`."""
    from sealpool.rest.manifest import need_manifest
    from sealpool.rest.parts import read_parts

    manifest = need_manifest(directory)
    if manifest.request.campaign != name:
        raise typer.BadParameter(f"{directory} has labels of campaign {manifest.request.campaign}, not {name}")
    for piece in read_parts(directory, manifest):
        for row in piece.select(["id", "labels", "round", *_PREDICTED]).to_pylist():
            if row["labels"] is not None and row["id"] not in given:
                labels = row["labels"] if isinstance(row["labels"], list) else [row["labels"]]
                yield {**row, "labels": labels, "annotator": row["source"]}


def _with_payloads(rows: Iterator[Row], pool: str, pools: IndexClient) -> Iterator[Row]:
    for some in _portions(rows):
        ids = list(dict.fromkeys(str(row["id"]) for row in some))
        items = pools.get_items(pool, ids, vectors=False, payloads=True, allow_missing=True)
        found: dict[str, Payload] = dict(zip(items.ids, items.payloads or (), strict=True))
        for row in some:
            payload = found.get(str(row["id"]))
            if payload is None:  # it has left the pool since
                yield {**row, "text": None, "uri": None, "metadata": None}
            else:
                metadata = json.loads(json.dumps(dict(payload.metadata)))
                yield {**row, "text": payload.text, "uri": payload.uri, "metadata": metadata}


def _portions(rows: Iterator[T]) -> Iterator[Sequence[T]]:
    while some := list(islice(rows, _ROWS_TOGETHER)):
        yield some


def _write_data_set(name: str, output: Path, wanted: _Wanted, campaigns: SchedulerClient, pools: IndexClient) -> int:
    spec = campaigns.get_campaign(name).spec

    def rows_of(held_out: bool, pool: str) -> Iterator[Row]:
        part = _Wanted(history=False, held_out=held_out, annotations=False, payloads=True, predictions=None)
        return _with_payloads(_labelled_rows(name, part, campaigns), pool, pools)

    splits = {"train": rows_of(False, spec.pool), "test": rows_of(True, spec.evaluation_pool or spec.pool)}
    if wanted.predictions is not None:
        given = {label.item_id for label in campaigns.list_labels(name, only_effective=True)}
        predicted = _predicted_rows(name, wanted.predictions, given | _held_out(name, campaigns))
        splits["predicted"] = _with_payloads(predicted, spec.pool, pools)
    return write_data_set(splits, output, spec)
