"""The few kinds of panels that the boards are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deploy.grafana.links import runbook

Panel = stat.Panel | timeseries.Panel | bargauge.Panel | table.Panel

AnyPanel = TypeVar("AnyPanel", stat.Panel, timeseries.Panel, bargauge.Panel, table.Panel)

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

_LETTERS = "ABCDEFGHIJ"

GOOD, WARNING, BAD, NEUTRAL = "green", "orange", "red", "blue"


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Values from which on a panel warns, and alarms. With `falling` it does so below them."""

    warning: float
    bad: float
    falling: bool = False

    def steps(self) -> list[models.Threshold]:
        """Return Grafana's thresholds, the lowest first."""
        if self.falling:
            below = models.Threshold(value=None, color=BAD)
            return [below, models.Threshold(self.bad, WARNING), models.Threshold(self.warning, GOOD)]
        below = models.Threshold(value=None, color=GOOD)
        return [below, models.Threshold(self.warning, WARNING), models.Threshold(self.bad, BAD)]


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression and the name of its series, in which {{label}} stands for a label's value."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What every panel says.

    Parameters
    ----------
    does
        What it shows and what to do with it: the panel's description.
    unit
        As Grafana names it: short, bytes, s, percentunit, ops.
    empty
        What stands there while there is nothing to show.
    alert
        The alert whose runbook page it links to.
    width
        Columns, of 24.
    """

    title: str
    does: str
    unit: str
    empty: str
    alert: str = ""
    width: int = 8
    limits: Limits | None = None


def number(about: About, *queries: Query, name_only: bool = False) -> stat.Panel:
    """Return a panel with the latest value of each series in large; with `name_only` the series' names instead."""
    mode = shapes.BigValueTextMode.NAME if name_only else shapes.BigValueTextMode.AUTO
    panel = (
        stat.Panel()
        .height(4)
        .graph_mode(shapes.BigValueGraphMode.NONE if name_only else shapes.BigValueGraphMode.AREA)
        .color_mode(shapes.BigValueColorMode.VALUE)
        .text_mode(mode)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    return _told(panel, about, queries, instant=name_only)


def bars(about: About, *queries: Query) -> bargauge.Panel:
    """Return a panel with one horizontal bar a series, at its latest value."""
    panel = (
        bargauge.Panel()
        .height(8)
        .min(0)
        .orientation(shapes.VizOrientation.HORIZONTAL)
        .display_mode(shapes.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    return _told(panel, about, queries, instant=True)


def lines(
    about: About, *queries: Query, steps: bool = False, highest: float | None = None, logarithmic: bool = False
) -> timeseries.Panel:
    """Return a panel of curves from 0 up; `steps` for what changes once a round and holds until the next.

    `logarithmic` is for what spans powers of ten; the axis has 0 all the same.
    """
    panel = _curves().draw_style(shapes.GraphDrawStyle.LINE).line_width(2).fill_opacity(8)
    if steps:
        panel.line_interpolation(shapes.LineInterpolation.STEP_AFTER)
    if logarithmic:
        scale = common.ScaleDistributionConfig().type(shapes.ScaleDistribution.SYMLOG)
        panel.scale_distribution(scale.log(10).linear_threshold(1))
    if highest is not None:
        panel.max(highest)
    if about.limits is not None:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(shapes.GraphTresholdsStyleMode.DASHED))
    return _told(panel, about, queries)


def stacked(about: About, *queries: Query) -> timeseries.Panel:
    """Return a panel of areas upon each other."""
    panel = (
        _curves()
        .draw_style(shapes.GraphDrawStyle.LINE)
        .line_width(1)
        .fill_opacity(60)
        .line_interpolation(shapes.LineInterpolation.STEP_AFTER)
        .stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL).group("A"))
    )
    return _told(panel, about, queries)


def rows(about: About, *queries: Query) -> table.Panel:
    """Return a table with one line a series of any query, its labels in columns."""
    hidden = {"Time": True, "Value": True, **{f"Value #{letter}": True for letter in _LETTERS}}
    panel = (
        table.Panel()
        .height(8)
        .show_header(True)
        .with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(models.DataTransformerConfig(id_val="organize", options={"excludeByName": hidden}))
    )
    return _told(panel, about, queries, instant=True)


def _curves() -> timeseries.Panel:
    return (
        timeseries.Panel()
        .height(8)
        .min(0)
        .show_points(shapes.VisibilityMode.NEVER)
        .span_nulls(60_000)  # ms: a scrape that failed makes no gap
        .legend(
            common.VizLegendOptions()
            .display_mode(shapes.LegendDisplayMode.LIST)
            .placement(shapes.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING))
    )


def _told(panel: AnyPanel, about: About, queries: Sequence[Query], *, instant: bool = False) -> AnyPanel:
    steps = about.limits.steps() if about.limits else [models.Threshold(value=None, color=NEUTRAL)]
    panel.title(about.title).description(about.does).unit(about.unit).no_value(about.empty).span(about.width)
    panel.datasource(SOURCE)
    panel.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    panel.color_scheme(dashboard.FieldColor().mode(_colours(panel)))
    if about.alert:
        panel.links([_link(about.alert)])
    for at, query in enumerate(queries):
        panel.with_target(_target(query, _LETTERS[at], instant=instant, as_table=isinstance(panel, table.Panel)))
    return panel


def _colours(panel: Panel) -> models.FieldColorModeId:
    by_value = isinstance(panel, stat.Panel | bargauge.Panel)
    return models.FieldColorModeId.THRESHOLDS if by_value else models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME


def _link(alert: str) -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink(f"Runbook: {alert}")
        .type(models.DashboardLinkType.LINK)
        .url(runbook(alert))
        .target_blank(True)
    )


def _target(query: Query, letter: str, *, instant: bool, as_table: bool) -> prometheus.Dataquery:
    target = prometheus.Dataquery().ref_id(letter).expr(query.expression).legend_format(query.legend or "__auto")
    target.datasource(SOURCE)
    target.format(PromQueryFormat.TABLE if as_table else PromQueryFormat.TIME_SERIES)
    return target.instant() if instant else target.range()
