"""Labels written to a file or stdout."""

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TextIO

from sealpool.cli.output import plain
from sealpool.v1 import scheduler_pb2

_NAMES = {"item_id": "id", "classes": "labels"}
"""What `pool ingest` and `labels submit --file` read, where the contract has another name."""


class Kind(StrEnum):
    """How labels are written."""

    JSONL = "jsonl"
    CSV = "csv"


def kind_of(output: Path | None, asked: Kind | None) -> Kind:
    """Return the format asked for, or the one that the file's name says."""
    if asked is not None:
        return asked
    return Kind.CSV if output is not None and output.suffix.lower() == ".csv" else Kind.JSONL


def write_labels(labels: Iterable[scheduler_pb2.Label], output: Path | None, kind: Kind) -> int:
    """Write labels and return how many. A file appears under its name only once it is whole."""
    if output is None:
        return _write(labels, sys.stdout, kind)
    partial = output.with_name(output.name + ".partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        written = _write(labels, file, kind)
    partial.replace(output)
    return written


def _write(labels: Iterable[scheduler_pb2.Label], file: TextIO, kind: Kind) -> int:
    written = 0
    columns = [_NAMES.get(field.name, field.name) for field in scheduler_pb2.Label.DESCRIPTOR.fields]
    table = csv.DictWriter(file, columns) if kind is Kind.CSV else None
    if table is not None:
        table.writeheader()
    for label in labels:
        written += 1
        row = {_NAMES.get(name, name): value for name, value in plain(label).items()}
        if table is not None:
            table.writerow({**row, "labels": _cell(label.classes)})
        else:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return written


def _cell(classes: Sequence[str]) -> str:
    """Return one class as it is, none or several as a JSON list; so does one that would be read as such a list."""
    if len(classes) == 1 and not classes[0].startswith("["):
        return classes[0]
    return json.dumps(list(classes), ensure_ascii=False)
