"""Rows of labels in files: JSON Lines, CSV, Parquet, and directories that `datasets.load_dataset` reads."""

import csv
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import yaml

from sealpool.cli.output import Json
from sealpool.durable import sync_directory, sync_file, sync_tree
from sealpool.errors import AlreadyExists, FailedPrecondition
from sealpool.v1 import common_pb2, scheduler_pb2

if TYPE_CHECKING:
    import pyarrow as pa

Row = Mapping[str, Json]

_ROWS_TOGETHER = 10_000


class Kind(StrEnum):
    """How labels are written."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    HUGGING_FACE = "hugging-face"


def kind_of(output: Path | None, asked: Kind | None) -> Kind:
    """Return the format asked for, or the one that the file's name says."""
    if asked is not None:
        return asked
    suffix = "" if output is None else output.suffix.lower()
    return {".csv": Kind.CSV, ".parquet": Kind.PARQUET}.get(suffix, Kind.JSONL)


def write_rows(rows: Iterator[Row], output: Path | None, kind: Kind, columns: Sequence[str]) -> int:
    """Write rows and return how many. A file appears under its name only once it is whole and on disk."""
    if output is None:
        return _write_text(rows, sys.stdout, kind, columns)
    partial = output.with_name(output.name + ".partial")
    if kind is Kind.PARQUET:
        written = _write_parquet(rows, partial, _schema(columns))
    else:
        with partial.open("w", encoding="utf-8", newline="") as file:
            written = _write_text(rows, file, kind, columns)
    sync_file(partial)
    partial.replace(output)
    sync_directory(output.parent)
    return written


def write_data_set(splits: Mapping[str, Iterator[Row]], output: Path, spec: scheduler_pb2.CampaignSpec) -> int:
    """Write a directory that `datasets.load_dataset` reads, and return how many rows it has.

    A split without rows is left out. The directory appears under its name only once it is whole and on disk.

    Raises
    ------
    AlreadyExists
        There is something of that name.
    FailedPrecondition
        No split has a row.
    """
    if output.exists():
        raise AlreadyExists("directory", str(output))
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "data").mkdir(parents=True)
    counts = {}
    for split, rows in splits.items():
        first = next(rows, None)
        if first is not None:
            path = partial / "data" / f"{split}-00000-of-00001.parquet"
            counts[split] = _write_parquet(_set_rows(first, rows, spec), path, _set_schema(spec))
    if not counts:
        shutil.rmtree(partial)
        raise FailedPrecondition(f"campaign {spec.name!r} has no labels that a data set could be made of")
    (partial / "README.md").write_text(_card(spec, counts), encoding="utf-8")
    sync_tree(partial)
    partial.rename(output)
    sync_directory(output.parent)
    return sum(counts.values())


def _write_text(rows: Iterator[Row], file: TextIO, kind: Kind, columns: Sequence[str]) -> int:
    written = 0
    table = csv.DictWriter(file, columns) if kind is Kind.CSV else None
    if table is not None:
        table.writeheader()
    for row in rows:
        written += 1
        if table is not None:
            table.writerow({name: _cell(name, value) for name, value in row.items()})
        else:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return written


def _cell(name: str, value: Json) -> Json:
    """Return what a CSV cell holds: lists and objects as JSON.

    One label is as it is; none, several, or one that would be read as a list, are a JSON list.
    """
    if name == "labels" and isinstance(value, list) and len(value) == 1 and not str(value[0]).startswith("["):
        return str(value[0])
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _write_parquet(rows: Iterator[Row], path: Path, schema: "pa.Schema") -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    written = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        while some := [_arrow_row(row, schema.names) for row in islice(rows, _ROWS_TOGETHER)]:
            file.write_table(pa.Table.from_pylist(some, schema=schema))
            written += len(some)
    return written


def _arrow_row(row: Row, names: Sequence[str]) -> dict[str, object]:
    found: dict[str, object] = {name: row.get(name) for name in names}
    if isinstance(found.get("committed_at"), str):
        found["committed_at"] = datetime.fromisoformat(str(found["committed_at"]))
    if isinstance(found.get("metadata"), dict):
        found["metadata"] = json.dumps(found["metadata"], ensure_ascii=False)
    return found


def _schema(columns: Sequence[str]) -> "pa.Schema":
    import pyarrow as pa

    kinds = {
        "labels": pa.list_(pa.string()),
        "sequence": pa.uint64(),
        "round": pa.uint32(),
        "unsolicited": pa.bool_(),
        "corrects": pa.bool_(),
        "committed_at": pa.timestamp("us", tz="UTC"),
        "confidence": pa.float64(),
        "probabilities": pa.list_(pa.float32()),
    }
    return pa.schema([(name, kinds.get(name, pa.string())) for name in columns])


def _set_schema(spec: scheduler_pb2.CampaignSpec) -> "pa.Schema":
    import pyarrow as pa

    several = spec.task == common_pb2.TASK_KIND_MULTILABEL
    label = ("labels", pa.list_(pa.int64())) if several else ("label", pa.int64())
    fields = [("id", pa.string()), ("text", pa.string()), label, ("uri", pa.string()), ("metadata", pa.string())]
    return pa.schema([*fields, ("annotator", pa.string()), ("confidence", pa.float64())])


def _set_rows(first: Row, rows: Iterator[Row], spec: scheduler_pb2.CampaignSpec) -> Iterator[Row]:
    columns = {name: number for number, name in enumerate(spec.classes)}
    several = spec.task == common_pb2.TASK_KIND_MULTILABEL

    def encoded(row: Row) -> Row:
        names = row["labels"]
        numbers = [columns[str(name)] for name in names] if isinstance(names, list) else []
        return {**row, "labels": numbers} if several else {**row, "label": numbers[0]}

    yield encoded(first)
    yield from map(encoded, rows)


def _card(spec: scheduler_pb2.CampaignSpec, counts: Mapping[str, int]) -> str:
    """Return README.md, whose head tells `datasets` which columns and splits there are."""
    several = spec.task == common_pb2.TASK_KIND_MULTILABEL
    label = {"class_label": {"names": {str(number): name for number, name in enumerate(spec.classes)}}}
    label_feature = {"name": "labels", "sequence": label} if several else {"name": "label", "dtype": label}
    texts = ("uri", "metadata", "annotator")
    head = {
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in counts],
            }
        ],
        "dataset_info": {
            "features": [
                {"name": "id", "dtype": "string"},
                {"name": "text", "dtype": "string"},
                label_feature,
                *({"name": name, "dtype": "string"} for name in texts),
                {"name": "confidence", "dtype": "float64"},
            ]
        },
        "task_categories": ["text-classification"],
    }
    rows = "\n".join(f"| {split} | {number:,} | {_SPLITS[split]} |" for split, number in counts.items())
    return (
        f"---\n{yaml.safe_dump(head, allow_unicode=True, sort_keys=False)}---\n\n# {spec.name}\n\n"
        f"Labels of the campaign `{spec.name}` on the pool `{spec.pool}`, exported by sealpool.\n\n"
        f"| split | rows | what it is |\n|---|---|---|\n{rows}\n\n"
        "Items were picked for labelling by active learning: `train` is no random sample of the pool.\n"
    )


_SPLITS = {
    "train": "labelled items",
    "test": "items held out for evaluation",
    "predicted": "labels for the rest of the pool, by the model or its neighbours; see `annotator` and `confidence`",
}
