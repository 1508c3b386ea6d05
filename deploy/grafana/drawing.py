"""Panels of curves on paper, much as Grafana shows them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sealpool.cli.options import need

COLUMNS = 3
COLOURS = ("#3274d9", "#e02f44", "#299c46", "#e0752d", "#8f3bb8", "#1f9bcf", "#b7950b", "#5f6a6a", "#c15c17", "#0a437c")
LIMIT_COLOURS = {"orange": "#ff9830", "red": "#f2495c"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A series: `times` and `values` are parallel."""

    name: str
    times: Sequence[datetime]
    values: Sequence[float]


def draw_panels(title: str, panels: Sequence[tuple[dict[str, Any], Sequence[Curve]]], path: Path) -> None:
    """Draw panels, three in a line, with their curves into a PNG."""
    columns = min(COLUMNS, len(panels))
    lines = math.ceil(len(panels) / columns)
    engine = need("matplotlib.layout_engine", extra="demo").ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = need("matplotlib.figure", extra="demo").Figure(figsize=(6.4 * columns, 4.4 * lines), layout=engine)
    figure.suptitle(title, fontsize=15, fontweight="bold", x=0.01, ha="left")
    for at, (panel, curves) in enumerate(panels):
        _draw(figure.add_subplot(lines, columns, at + 1), panel, curves)
    figure.savefig(path, dpi=90)


def _draw(axes: Any, panel: dict[str, Any], curves: Sequence[Curve]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    axes.set_title(panel["title"], fontsize=12, loc="left")
    seen = [curve for curve in curves if any(not math.isnan(value) for value in curve.values)]
    if not seen:
        axes.text(0.5, 0.5, defaults["noValue"], ha="center", va="center", transform=axes.transAxes, color="gray")
        axes.set_axis_off()
        return
    if custom.get("stacking", {}).get("mode", "none") != "none":
        _stack(axes, seen)
    else:
        _lines(axes, seen, by_step=custom.get("lineInterpolation") == "stepAfter")
    _draw_axes(axes, defaults)
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.1), ncols=2, fontsize=8.5, frameon=False, handlelength=1.2)


def _lines(axes: Any, seen: Sequence[Curve], *, by_step: bool) -> None:
    shade = 0.05 if len(seen) <= 3 else 0
    for curve, colour in zip(seen, COLOURS * len(seen), strict=False):
        style, step = ("steps-post", "post") if by_step else ("default", None)
        axes.plot(curve.times, curve.values, drawstyle=style, label=curve.name, color=colour, linewidth=1.8)
        axes.fill_between(curve.times, curve.values, step=step, color=colour, alpha=shade, linewidth=0)


def _stack(axes: Any, seen: Sequence[Curve]) -> None:
    times = sorted({time for curve in seen for time in curve.times})
    rows = [[dict(zip(curve.times, curve.values, strict=True)).get(time, 0.0) for time in times] for curve in seen]
    axes.stackplot(times, rows, labels=[curve.name for curve in seen], colors=COLOURS, alpha=0.75, step="post")


def _draw_axes(axes: Any, defaults: dict[str, Any]) -> None:
    custom = defaults["custom"]
    highest = defaults.get("max")
    by_powers = custom.get("scaleDistribution", {}).get("type") == "symlog"
    if by_powers:
        axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(0, highest if highest is not None else axes.get_ylim()[1] * (1.5 if by_powers else 1.05))
    if custom.get("thresholdsStyle", {}).get("mode") == "dashed":
        for step in defaults["thresholds"]["steps"]:
            if step["value"] is not None and step["value"] <= axes.get_ylim()[1] and step["color"] in LIMIT_COLOURS:
                axes.axhline(step["value"], color=LIMIT_COLOURS[step["color"]], linestyle="--", linewidth=1)
    formatter = need("matplotlib.ticker", extra="demo").FuncFormatter
    axes.yaxis.set_major_formatter(formatter(lambda value, _: _with_unit(value, defaults["unit"])))
    dates = need("matplotlib.dates", extra="demo")
    axes.xaxis.set_major_locator(dates.AutoDateLocator(minticks=3, maxticks=7))
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
    axes.grid(color="#e4e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, labelsize=9)


def _with_unit(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    words = {"s": " s", "bytes": "B", "reqps": "/s", "ops": "/s"}
    power = min(int(math.log(abs(value), 1e3)), 3) if abs(value) >= 1e3 else 0
    scaled, prefix = value / 1e3**power, ("", "k", "M", "G")[power]
    return f"{scaled:.3g}{' ' if unit == 'bytes' else ''}{prefix}{words.get(unit, '')}"
