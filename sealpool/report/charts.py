"""Small charts as SVG, drawn with the page's own colours: classes `s0` to `s9` for series, `axis`, `grid`, `band`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeVar

WIDTH, HEIGHT = 460, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 12, 40
_TICKS = 5
_MOST_DOTS = 60
"""Points of a line that are drawn as such: more would run together."""
_MOST_STRIPS = 60
"""What fits on a screen; of more rows some are left out, evenly."""

Words = Callable[[float], str]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A line: points (x, y), and where known the interval of each y. A point whose y is NaN is left out."""

    name: str
    points: Sequence[tuple[float, float]]
    intervals: Sequence[tuple[float, float]] = ()
    band: bool = True


def line_chart(title: str, series: Sequence[Series], *, x_title: str, words: Words, most: float | None = None) -> str:
    """Return lines over x; intervals as a band, or as bars with `band=False`. `most` is the least top of the y axis."""
    drawn = [_without_nan(one) for one in series]
    drawn = [one for one in drawn if one.points]
    xs = [x for one in drawn for x, _ in one.points]
    ys = [y for one in drawn for _, y in one.points] + [y for one in drawn for pair in one.intervals for y in pair]
    if not xs:
        return ""
    frame = _Frame(x=(min(xs), max(xs)), y=(min([*ys, 0.0]), max([*ys, most or 0.0])))
    parts = [frame.grid(words), frame.x_axis(x_title)]
    for number, one in enumerate(drawn):
        parts += [_intervals(frame, number, one), _line(frame, number, one, words)]
    return _svg(title, parts)


def stacked_bars(
    title: str, columns: Sequence[tuple[str, Sequence[float]]], names: Sequence[str], *, x_title: str, words: Words
) -> str:
    """Return one bar a column, made of the values (parallel to `names`) one on the other."""
    if not columns or not any(sum(values) for _, values in columns):
        return ""
    frame = _Frame(x=(0, len(columns)), y=(0, max(sum(values) for _, values in columns)))
    parts = [frame.grid(words)]
    step = max(1, math.ceil(len(columns) / 12))
    for place, (label, values) in enumerate(columns):
        left, right = frame.at_x(place + 0.12), frame.at_x(place + 0.88)
        base = 0.0
        for number, (name, value) in enumerate(zip(names, values, strict=True)):
            if value > 0:
                top, low = frame.at_y(base + value), frame.at_y(base)
                hint = f"{label}, {name}: {words(value)}"
                parts.append(
                    f'<rect class="s{number % 10}" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
                    f'height="{max(low - top, 0.4):.1f}"><title>{escape(hint)}</title></rect>'
                )
                base += value
        if place % step == 0:
            parts.append(_text(frame.at_x(place + 0.5), HEIGHT - _BOTTOM + 16, label, "middle"))
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 6, x_title, "middle"))
    return _svg(title, parts)


def heat_strips(title: str, rows: Sequence[tuple[str, Sequence[int]]], *, x_title: str, ends: tuple[str, str]) -> str:
    """Return one strip a row, 60 at most: the darker a bin, the larger its share of the row."""
    rows = [(label, counts) for label, counts in rows if sum(counts)]
    if not rows:
        return ""
    rows = _evenly(rows, _MOST_STRIPS)
    height = max(10.0, min(24.0, (HEIGHT - _TOP - _BOTTOM) / len(rows)))
    width = WIDTH - _LEFT - _RIGHT
    largest = max(max(counts) / sum(counts) for _, counts in rows)
    step = max(1, math.ceil(len(rows) * 12 / (height * len(rows))))
    parts = []
    for place, (label, counts) in enumerate(rows):
        y = _TOP + place * height
        for number, count in enumerate(counts):
            share = count / sum(counts)
            if count:
                parts.append(
                    f'<rect class="s0" x="{_LEFT + number * width / len(counts):.1f}" y="{y + 1:.1f}" '
                    f'width="{width / len(counts) - 0.6:.1f}" height="{height - 2:.1f}" '
                    f'fill-opacity="{0.08 + 0.92 * share / largest:.2f}">'
                    f"<title>{escape(label)}: {count:,} items, {100 * share:.1f} %</title></rect>"
                )
        if place % step == 0:
            parts.append(_text(_LEFT - 6, y + height / 2 + 4, label, "end"))
    bottom = _TOP + len(rows) * height
    parts += [
        f'<path class="axis" d="M{_LEFT} {bottom:.1f}H{WIDTH - _RIGHT}"/>',
        _text(_LEFT, bottom + 15, ends[0], "start"),
        _text(WIDTH - _RIGHT, bottom + 15, ends[1], "end"),
        _text((_LEFT + WIDTH - _RIGHT) / 2, bottom + 32, x_title, "middle"),
    ]
    return _svg(title, parts, height=bottom + 38)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Frame:
    x: tuple[float, float]
    y: tuple[float, float]

    def at_x(self, value: float) -> float:
        low, high = self.x
        share = (value - low) / (high - low) if high > low else 0.5
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def at_y(self, value: float) -> float:
        low, high = self.y
        share = (value - low) / (high - low) if high > low else 0.5
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    def grid(self, words: Words) -> str:
        parts = []
        for value in _ticks(*self.y):
            y = self.at_y(value)
            parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
            parts.append(_text(_LEFT - 6, y + 4, words(value), "end"))
        return "".join(parts)

    def x_axis(self, title: str) -> str:
        line = f'<path class="axis" d="M{_LEFT} {HEIGHT - _BOTTOM}H{WIDTH - _RIGHT}"/>'
        values = _ticks(*self.x, least_step=1.0) if self.x[1] > self.x[0] else [self.x[0]]
        marks = [_text(self.at_x(value), HEIGHT - _BOTTOM + 16, f"{value:,.0f}", "middle") for value in values]
        return "".join([line, *marks, _text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 6, title, "middle")])


def _ticks(low: float, high: float, *, least_step: float = 0.0) -> list[float]:
    """Return round numbers from `low` to `high`, `least_step` apart or more."""
    raw = max((high - low) / _TICKS, least_step)
    if raw <= 0:
        return [low]
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(magnitude * factor for factor in (1, 2, 2.5, 5, 10) if magnitude * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _evenly(rows: Sequence[T], most: int) -> list[T]:
    """Return `most` of the rows at most, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[place * (len(rows) - 1) // (most - 1)] for place in range(most)]


def _without_nan(series: Series) -> Series:
    kept = [place for place, (_, y) in enumerate(series.points) if math.isfinite(y)]
    intervals = [series.intervals[place] for place in kept] if series.intervals else []
    return Series(
        name=series.name,
        points=[series.points[place] for place in kept],
        intervals=[] if any(not math.isfinite(end) for pair in intervals for end in pair) else intervals,
        band=series.band,
    )


def _line(frame: _Frame, number: int, series: Series, words: Words) -> str:
    places = [(frame.at_x(x), frame.at_y(y)) for x, y in series.points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    if len(places) > _MOST_DOTS:
        return f'<path class="line l{number}" d="{path}"/>'
    dots = [
        f'<circle class="s{number}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{escape(series.name)}: '
        f"{words(value)} at {at:,.0f}</title></circle>"
        for (x, y), (at, value) in zip(places, series.points, strict=True)
    ]
    return f'<path class="line l{number}" d="{path}"/>' + "".join(dots)


def _intervals(frame: _Frame, number: int, series: Series) -> str:
    ends = [
        (frame.at_x(x), frame.at_y(low), frame.at_y(high))
        for (x, _), (low, high) in zip(series.points, series.intervals, strict=bool(series.intervals))
    ]
    if not ends:
        return ""
    if series.band and len(ends) > 1:
        upper = "L".join(f"{x:.1f} {high:.1f}" for x, _, high in ends)
        lower = "L".join(f"{x:.1f} {low:.1f}" for x, low, _ in reversed(ends))
        return f'<path class="band s{number}" d="M{upper}L{lower}Z"/>'
    return "".join(f'<path class="line l{number}" d="M{x:.1f} {low:.1f}V{high:.1f}"/>' for x, low, high in ends)


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(title: str, parts: Sequence[str], *, height: float = HEIGHT) -> str:
    name = escape(title, quote=True)
    return f'<svg role="img" aria-label="{name}" viewBox="0 0 {WIDTH} {height:.0f}">{"".join(parts)}</svg>'
