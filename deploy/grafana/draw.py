"""Draw rows of a board from a Prometheus, where no Grafana is at hand: `python -m deploy.grafana.draw`.

The expressions, titles, units and limits are those of the committed boards; only the pen is another.
"""

import argparse
import json
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.grafana.drawing import Curve, draw_panels
from deploy.grafana.reading import everything, panels_of, put_in, rate_interval_s, read_boards

STEPS = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A Prometheus, and the time that is drawn, in Unix seconds."""

    url: str
    start: float
    end: float
    scrape_s: float

    @property
    def step_s(self) -> float:
        """Time between two points of a curve."""
        return max((self.end - self.start) / STEPS, self.scrape_s)

    def label_values(self, label: str, match: str) -> Sequence[str]:
        """Return the values that a label has in the series that match."""
        values: list[str] = self._get(f"label/{label}/values", [("match[]", match)])
        return values

    def curves(self, expression: str, legend: str) -> list[Curve]:
        """Return what an expression gave, and its series' names."""
        told = {"query": expression, "start": self.start, "end": self.end, "step": self.step_s}
        found = self._get("query_range", [(name, str(value)) for name, value in told.items()])
        return [
            Curve(
                name=_name(legend, series["metric"]),
                times=[datetime.fromtimestamp(at, UTC) for at, _ in series["values"]],
                values=[float(value) for _, value in series["values"]],
            )
            for series in found["result"]
        ]

    def _get(self, path: str, told: Sequence[tuple[str, str]]) -> Any:
        url = f"{self.url.rstrip('/')}/api/v1/{path}?{urllib.parse.urlencode(told)}"
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - the caller's own Prometheus
            return json.load(answer)["data"]


def draw(source: Source, board_name: str, row: str, path: Path) -> None:
    """Draw a row of a board into a PNG.

    Raises
    ------
    ValueError
        The board has no such row, or none of its panels is of curves.
    """
    board = read_boards()[f"{board_name}.json"]
    interval = f"{round(1000 * rate_interval_s(scrape_s=source.scrape_s, step_s=source.step_s))}ms"
    chosen = {**everything(board, source.label_values), "__rate_interval": interval}
    panels = [panel for panel in panels_of(board, row=row) if panel["type"] == "timeseries"]
    if not panels:
        raise ValueError(f"{board_name} has no row {row!r} with curves")
    curves = [
        [
            curve
            for target in panel["targets"]
            for curve in source.curves(put_in(target["expr"], chosen), target["legendFormat"])
        ]
        for panel in panels
    ]
    draw_panels(f"{board['title']}: {row}", list(zip(panels, curves, strict=True)), path)


def _name(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend).strip()


def main() -> None:
    """Draw what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="its address")
    parser.add_argument("--board", default="campaign", help="the name of a file in dashboards/, without .json")
    parser.add_argument("--row", action="append", help="the title of a row, Candidate pool if none is given")
    parser.add_argument("--start", type=float, required=True, help="Unix seconds")
    parser.add_argument("--end", type=float, required=True, help="Unix seconds")
    parser.add_argument("--scrape-s", type=float, default=15.0, help="scrape interval of the Prometheus")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder of the pictures")
    told = parser.parse_args()
    source = Source(url=told.prometheus, start=told.start, end=told.end, scrape_s=told.scrape_s)
    told.out.mkdir(parents=True, exist_ok=True)
    for row in told.row or ["Candidate pool"]:
        name = re.sub(r"\W+", "-", f"{told.board} {row}".lower()).strip("-")
        draw(source, told.board, row, told.out / f"{name}.png")


if __name__ == "__main__":
    main()
