"""Boards as they lie on disk, with their variables put in as Grafana does at "All"."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Board = Mapping[str, Any]
Values = Callable[[str, str], Sequence[str]]
"""From a label and a series selector to the values that the label has."""

FOLDER = Path(__file__).parent / "dashboards"


def read_boards() -> Mapping[str, Board]:
    """Return every board by the name of its file."""
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def panels_of(board: Board, *, row: str = "") -> Iterator[dict[str, Any]]:
    """Yield a board's panels without its rows; only those below the row of that title, if one is given."""
    within = ""
    for panel in board["panels"]:
        if panel["type"] == "row":
            within = panel["title"]
        elif row in ("", within):
            yield panel


def variables_of(board: Board) -> list[dict[str, Any]]:
    """Return the variables that have a query, in the order in which they build on each other."""
    return [variable for variable in board["templating"]["list"] if variable["type"] == "query"]


def offered_by(board: Board, values: Values) -> Mapping[str, Sequence[str]]:
    """Return what each variable of a board offers, with those before it at "All"."""
    offered: dict[str, Sequence[str]] = {}
    chosen: dict[str, str] = {}
    for variable in variables_of(board):
        query = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
        if query is None:
            raise ValueError(f"{variable['name']}: {variable['query']} is not label_values(series, label)")
        offered[variable["name"]] = values(query[2], put_in(query[1], chosen))
        chosen[variable["name"]] = all_of(variable, offered[variable["name"]])
    return offered


def everything(board: Board, values: Values) -> Mapping[str, str]:
    """Return what stands in expressions for each variable at "All"."""
    offered = offered_by(board, values)
    return {variable["name"]: all_of(variable, offered[variable["name"]]) for variable in variables_of(board)}


def all_of(variable: Mapping[str, Any], offered: Sequence[str]) -> str:
    """Return what stands for a variable at "All"; within a PromQL string, where a backslash needs one more."""
    joined = "|".join(re.escape(value).replace("\\", "\\\\") for value in offered)
    return str(variable.get("allValue") or f"({joined})")


def rate_interval_s(*, scrape_s: float, step_s: float) -> float:
    """Return Grafana's $__rate_interval: room for four scrapes, and for one beyond a step."""
    return max(step_s + scrape_s, 4 * scrape_s)


def put_in(expression: str, chosen: Mapping[str, str]) -> str:
    """Put variables into an expression. Raises ValueError for one that nothing is known of."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in chosen:
            raise ValueError(f"${name} is no variable: {expression}")
        return chosen[name]

    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, expression)
