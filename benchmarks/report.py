"""A benchmark's rows: printed as tables, written as JSON, and read again."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Literal, TextIO

Value = float | int | str

COLUMNS = ("what", "value", "target", "met")


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What a value is to reach."""

    sense: Literal["≤", "≥"]
    bound: float

    def __str__(self) -> str:
        return f"{self.sense} {self.bound:g}"

    def met_by(self, value: float) -> bool:
        """Whether `value` reaches it."""
        return value <= self.bound if self.sense == "≤" else value >= self.bound


def at_most(bound: float) -> Target:
    """Return the target of values up to `bound`."""
    return Target(sense="≤", bound=bound)


def at_least(bound: float) -> Target:
    """Return the target of values from `bound` on."""
    return Target(sense="≥", bound=bound)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of a table.

    Parameters
    ----------
    what
        "figure: what was measured". Rows of one figure make one table.
    value
        A number, or words: what was chosen, or why something was not measured.
    target
        As words, "" for none.
    met
        None without a target, or without a number to hold against it.
    """

    what: str
    value: Value
    unit: str = ""
    target: str = ""
    met: bool | None = None

    @property
    def figure(self) -> str:
        """The part of `what` before the colon."""
        return self.what.partition(": ")[0]

    @property
    def subject(self) -> str:
        """The part of `what` after the colon."""
        return self.what.partition(": ")[2] or self.what


class Figure:
    """Gathers the rows of one figure."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: list[Row] = []

    def add(self, what: str, value: Value, unit: str = "", target: Target | None = None) -> None:
        """Add a row. Its target is met or missed by the value as measured, not as rounded for the table."""
        met = None if target is None or isinstance(value, str) else target.met_by(value)
        self.rows.append(
            Row(
                what=f"{self.name}: {what}",
                value=value,
                unit=unit,
                target="" if target is None else str(target),
                met=met,
            )
        )

    def skip(self, what: str, reason: str) -> None:
        """Say why something was not measured."""
        self.add(what, f"not measured: {reason}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The rows of one run, and what ran where."""

    command: str
    commit: str
    machine: str
    rows: list[Row] = field(default_factory=list)

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Return the report that `to_json` wrote. KeyError, TypeError or ValueError where `text` is not such."""
        data = json.loads(text)
        rows = [Row(**row) for row in data["rows"]]
        return cls(command=data["command"], commit=data["commit"], machine=data["machine"], rows=rows)

    def write(self, path: Path) -> None:
        """Replace `path`, so that a run that is cut short leaves a whole file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".tmp")
        partial.write_text(self.to_json())
        partial.replace(path)

    @property
    def figures(self) -> list[tuple[str, list[Row]]]:
        """The rows by figure, in the order in which they were measured."""
        return [(name, list(rows)) for name, rows in groupby(self.rows, key=lambda row: row.figure)]


def shown(value: Value) -> str:
    """Return a value for people: four significant digits, whole numbers in full."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{round(value):,}"
    return f"{value:.4g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.2e}"


def cells(row: Row) -> tuple[str, str, str, str]:
    """Return what a table shows of a row, in the order of COLUMNS."""
    met = {True: "yes", False: "NO", None: ""}[row.met]
    return row.subject, f"{shown(row.value)} {row.unit}".strip(), row.target, met


def text_table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a table for a terminal."""
    lines = [COLUMNS, *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def print_figure(name: str, rows: Sequence[Row], out: TextIO) -> None:
    """Print one figure."""
    out.write(f"\n{name}\n")
    for line in text_table(rows):
        out.write(f"  {line}\n")
    out.flush()
