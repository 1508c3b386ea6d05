"""What commands print: tables and figures for people, plain JSON for machines, progress on stderr."""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any, cast

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]

PROGRESS = Console(stderr=True)
"""Progress and remarks go to stderr, so that stdout holds the answer and nothing else."""


_PIPE_COLUMNS = 200


def fail(message: str) -> int:
    """Say in one line on stderr what went wrong; return exit code 1."""
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return 1


def answer_json(value: Json) -> None:
    """Print one JSON value on one line of stdout; NaN and infinity become null."""
    sys.stdout.write(json.dumps(_finite(value), ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def say(*lines: str | Table | Text) -> None:
    """Print lines and tables to stdout; square brackets in text mean themselves."""
    # A file or a pipe has no width; the 80 that rich assumes would cut tables short.
    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_COLUMNS)
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=isinstance(line, str))


def note(line: str) -> None:
    """Print a remark to stderr."""
    PROGRESS.print(line, markup=False, highlight=False, soft_wrap=True)


def plain(message: Message) -> dict[str, Json]:
    """Return a protobuf message as plain values under the names of the contract.

    Unlike protobuf's own JSON, 64-bit numbers stay numbers, an enum is its word in lower case ("active"), a time is
    ISO 8601 in UTC, and every field is there: a message or optional field that is not set is null.
    """
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def _field(message: Message, field: Any) -> Json:
    value = getattr(message, field.name)
    if field.is_repeated:
        return [_value(field, one) for one in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _value(field, value)


def _value(field: Any, value: Any) -> Json:
    if isinstance(value, Timestamp):
        return value.ToDatetime(UTC).isoformat()
    if isinstance(value, Message):
        return plain(value)
    if field.enum_type is not None:
        names = field.enum_type.values_by_number
        prefix = names[0].name.removesuffix("UNSPECIFIED")
        return str(names[value].name).removeprefix(prefix).lower()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return cast(bool | int | str, value)


def _finite(value: Json) -> Json:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(one) for one in value]
    return value


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table. A column whose name begins with ">" is aligned right."""
    made = Table(title=title or None, title_justify="left", title_style="bold", header_style="bold")
    made.box, made.show_edge, made.pad_edge, made.padding = box.SIMPLE_HEAD, False, False, (0, 1, 0, 0)
    for column in columns:
        made.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def facts(title: str, pairs: Mapping[str, str]) -> Table:
    """Return a table of names and values, one a line."""
    made = Table(
        title=title, title_justify="left", title_style="bold", box=None, show_header=False, padding=(0, 2, 0, 0)
    )
    made.add_column(style="dim")
    made.add_column()
    for name, value in pairs.items():
        made.add_row(name, Text(value))
    return made


def count(number: int) -> str:
    """Return 12345 as "12,345"."""
    return f"{number:,}"


def share(value: float) -> str:
    """Return 0.0471 as "4.7 %"."""
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"


def quality(value: float) -> str:
    """Return 0.91234 as "0.912"; a number without a meaning as a dash."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def seconds(value: float) -> str:
    """Return seconds with three decimals below ten, one above."""
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def size(number: int) -> str:
    """Return a number of bytes with the unit that fits."""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
