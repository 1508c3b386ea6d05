"""A board: its variables, and its panels in rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana.panels import SOURCE, Panel

TAG = "sealpool"


@dataclass(frozen=True, slots=True)
class Section:
    """Panels under one heading, left to right and then down."""

    title: str
    panels: Sequence[Panel]


def source_variable() -> dashboard.DatasourceVariable:
    """Return the choice of a Prometheus."""
    return dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")


def choice(name: str, query: str, *, all_value: str | None = ".*") -> dashboard.QueryVariable:
    """Return a choice of one or several values of a label, at first all.

    With `all_value` None "All" means the values that the query found: what another variable narrows. ".*" is also for
    series that lack the label, as `namespace` outside Kubernetes.
    """
    everything = models.VariableOption(text="All", value="$__all", selected=True)
    variable = (
        dashboard.QueryVariable(name)
        .label(name.replace("_", " ").capitalize())
        .query(query)
        .datasource(SOURCE)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(everything)
    )
    return variable if all_value is None else variable.all_value(all_value)


def arrange(
    title: str,
    uid: str,
    description: str,
    *,
    variables: Sequence[dashboard.QueryVariable],
    sections: Sequence[Section],
) -> models.Dashboard:
    """Return a board with a data source to choose, `variables`, and links to the other boards."""
    board = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .timezone("browser")
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(_other_boards())
    )
    for variable in (source_variable(), *variables):
        board.with_variable(variable)
    number = 0
    for section in sections:
        number += 1
        board.with_row(dashboard.Row(section.title).id(number))
        for panel in section.panels:
            number += 1
            board.with_panel(panel.id(number))
    return board.build()


def _other_boards() -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink("sealpool")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .include_vars(True)
        .keep_time(True)
        .as_dropdown(True)
    )
