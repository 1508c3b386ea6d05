"""What the demo leaves behind: report.json, report.html, and the tables in the terminal."""

import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from rich.table import Table

from sealpool.cli.demo_data import DemoData
from sealpool.cli.demo_run import DemoPlan
from sealpool.cli.options import need
from sealpool.cli.output import count, quality, seconds, share, table

Row = Mapping[str, Any]

_ACTIVE, _RANDOM = "#0b5fa5", "#b3541e"
_COLUMNS = [
    ">round",
    ">labels",
    ">candidates",
    ">share",
    ">accuracy",
    ">mean AP",
    ">expand s",
    ">train s",
    ">score s",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Both campaigns' figures. A `final` is the last model, which has nothing left to pick."""

    settings: Row
    rounds: Sequence[Row]
    final: Row
    random: Sequence[Row]
    random_final: Row
    wall_seconds: float

    def write_json(self, path: Path) -> None:
        """Write all of it; a number without a meaning is null."""
        path.write_text(json.dumps(_finite(asdict(self)), indent=2, allow_nan=False) + "\n", encoding="utf-8")

    def tables(self) -> list[Table]:
        """Return both campaigns' rounds for the terminal."""
        return [
            table(self.settings["active"], _COLUMNS, [*map(cells, self.rounds), final_cells(self.final)]),
            table(self.settings["baseline"], _COLUMNS, [*map(cells, self.random), final_cells(self.random_final)]),
        ]

    def write_html(self, path: Path) -> None:
        """Write one self-contained page."""
        template = need("jinja2", extra="demo").Template(
            resources.files("sealpool.cli").joinpath("report.html").read_text(encoding="utf-8"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        page = template.render(
            report=self,
            columns=[column.removeprefix(">") for column in _COLUMNS],
            active_rows=[*map(cells, self.rounds), final_cells(self.final)],
            random_rows=[*map(cells, self.random), final_cells(self.random_final)],
            charts=self._charts(),
            last=(quality(self.final["accuracy"]), quality(self.random_final["accuracy"])),
            last_precision=(
                quality(self.final["mean_average_precision"]),
                quality(self.random_final["mean_average_precision"]),
            ),
            largest_share=share(max(row["pool_share"] for row in self.rounds)),
        )
        path.write_text(page, encoding="utf-8")

    def _charts(self) -> Mapping[str, str]:
        active, baseline = [*self.rounds, self.final], [*self.random, self.random_final]
        return {
            "accuracy": _chart(
                "Accuracy on held-out items", lambda axes: _curves(axes, active, baseline, "accuracy"), "{x:.2f}"
            ),
            "precision": _chart(
                "Mean average precision on held-out items",
                lambda axes: _curves(axes, active, baseline, "mean_average_precision"),
                "{x:.2f}",
            ),
            "growth": _chart("Share of the pool that is candidate", lambda axes: _growth(axes, self.rounds), "{x:.0%}"),
        }


def settings_of(data: DemoData, plan: DemoPlan, *, encoder: str) -> Row:
    """Return what the runs were told, for the report."""
    exploring = f", {100 * plan.exploration:g} % of each batch drawn outside the candidates" if plan.exploration else ""
    return {
        "title": data.title,
        "source": data.source,
        "active": f"Active learning: {plan.strategy} over seals candidates (k = {plan.k}{exploring})",
        "baseline": "Random sampling from the whole pool, same seed",
        "task": data.task.value,
        "classes": len(data.classes),
        "pool_items": len(data.pool),
        "held_out_items": len(data.held_out),
        "encoder": encoder,
        "strategy": plan.strategy,
        "policy": "seals",
        "k": plan.k,
        "exploration": plan.exploration,
        "seed": plan.seed,
        "seed_size": plan.seed_size,
        "batch": plan.batch,
        "rounds": plan.rounds,
        "budget": plan.budget,
    }


def cells(row: Row) -> list[str]:
    """Return one round for a table."""
    times = row["seconds"]
    return [
        str(row["round"]),
        count(row["labels"]),
        count(row["candidates"]),
        share(row["pool_share"]),
        quality(row["accuracy"]),
        quality(row["mean_average_precision"]),
        seconds(times["expand"]),
        seconds(times["train"]),
        seconds(times["score"]),
    ]


def final_cells(row: Row) -> list[str]:
    """Return the last model for a table: it picked nothing, so it looked at no candidates."""
    _, labels, _, _, accuracy, precision, _, train, _ = cells(row)
    return ["end", labels, "–", "–", accuracy, precision, "–", train, "–"]


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return value


def _chart(title: str, draw: Callable[[Any], None], tick_format: str) -> str:
    """Return a line chart over the number of labels, as SVG to put into a page."""
    figure = need("matplotlib.figure", extra="demo").Figure(figsize=(6.4, 3.9), layout="constrained")
    ticker = need("matplotlib.ticker", extra="demo")
    axes = figure.subplots()
    draw(axes)
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color="#1c2733")
    axes.set_xlabel("labels", color="#44515e")
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter(tick_format))
    axes.grid(visible=True, axis="y", color="#e3e8ec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors="#44515e", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#b7c1ca")
    axes.set_xlim(left=0)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    svg = drawn.getvalue()
    return svg[svg.index("<svg") :].replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def _curves(axes: Any, active: Sequence[Row], baseline: Sequence[Row], measure: str) -> None:
    for rows, colour, line, marker, name in (
        (active, _ACTIVE, "-", "o", "active learning"),
        (baseline, _RANDOM, "--", "s", "random sampling"),
    ):
        labels = [row["labels"] for row in rows]
        axes.plot(labels, [row[measure] for row in rows], line, color=colour, marker=marker, markersize=4.5, label=name)
    axes.legend(frameon=False, loc="lower right")


def _growth(axes: Any, rounds: Sequence[Row]) -> None:
    labels, shares = [row["labels"] for row in rounds], [row["pool_share"] for row in rounds]
    axes.fill_between(labels, shares, color=_ACTIVE, alpha=0.12, linewidth=0)
    axes.plot(labels, shares, "-", color=_ACTIVE, marker="o", markersize=4.5)
    axes.plot(labels, [1.0] * len(labels), "--", color=_RANDOM)
    axes.text(labels[-1], shares[-1] / 2, "candidates  ", color=_ACTIVE, ha="right", va="center")
    axes.text(labels[0], 1.02, "whole pool, which random sampling draws from", color=_RANDOM, va="bottom")
    axes.set_ylim(0, 1.12)
    axes.set_xlim(right=1.05 * labels[-1])
