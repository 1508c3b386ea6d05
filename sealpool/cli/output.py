"""What commands print: tables and figures for people, plain JSON for machines, progress on stderr."""

import json
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any, cast

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]

PROGRESS = Console(stderr=True)
"""Progress and remarks go to stderr, so that stdout holds the answer and nothing else."""


_PIPE_COLUMNS = 200

_UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal obeys rather than shows: C0 and C1 controls, but for the line break; marks that turn the direction
of writing; and halves of surrogate pairs, which cannot be encoded."""


def clean(text: str, *, lines: bool = True) -> str:
    """Return a text that a terminal shows and does not obey; what it would obey is escaped as in Python.

    Tabs and carriage returns become spaces; so do line breaks unless `lines`.
    """
    text = text.replace("\r\n", "\n").replace("\t", " ").replace("\r", " ")
    return _UNSAFE.sub(_escaped, text if lines else text.replace("\n", " "))


def _escaped(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape", "surrogatepass").decode()


def shorten(text: str, length: int = 300) -> str:
    """Return a text cut at `length` characters, with "…" where something is missing."""
    return text if len(text) <= length else text[:length].rstrip() + "…"


def fail(message: str) -> int:
    """Say in one line on stderr what went wrong; return exit code 1."""
    sys.stderr.write(f"error: {clean(' '.join(message.split()))}\n")
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
        console.print(
            clean(line) if isinstance(line, str) else line,
            markup=False,
            highlight=False,
            soft_wrap=isinstance(line, str),
        )


def note(line: str) -> None:
    """Print a remark to stderr."""
    PROGRESS.print(clean(line), markup=False, highlight=False, soft_wrap=True)


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


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, gap: int = 2) -> Table:
    """Return a table, `gap` spaces (1 or 2) between columns. One whose name begins with ">" is aligned right.

    A name that is too long for its column goes on in the next line: half an id is of no use to whoever copies it.
    """
    made = Table(title=_title(title), title_justify="left", header_style="bold")
    made.box, made.show_edge, made.pad_edge, made.padding = box.SIMPLE_HEAD, False, False, (0, gap - 1, 0, 0)
    for column in columns:
        justify: JustifyMethod = "right" if column.startswith(">") else "left"
        made.add_column(column.removeprefix(">"), justify=justify, overflow="fold")
    for row in rows:
        made.add_row(*(Text(clean(cell, lines=False)) for cell in row))
    return made


def _title(title: str) -> Text | None:
    return Text(clean(title), style="bold") if title else None


def facts(title: str, pairs: Mapping[str, str]) -> Table:
    """Return a table of names and values, one a line."""
    made = Table(
        title=_title(title),
        title_justify="left",
        box=None,
        show_header=False,
        padding=(0, 2, 0, 0),
    )
    made.add_column(style="dim")
    made.add_column()
    for name, value in pairs.items():
        made.add_row(name, Text(clean(value, lines=False)))
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
