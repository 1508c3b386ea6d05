"""The expressions of the boards, as the Prometheus of the tests is asked them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from deploy.grafana.reading import Board, everything, offered_by, panels_of, put_in, rate_interval_s
from tests.deploy.prometheus_server import SCRAPE_S, PrometheusServer

STEP_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Expression:
    """An expression and where it stands."""

    place: str
    text: str


def values_of(board: Board, prometheus: PrometheusServer) -> Mapping[str, Sequence[str]]:
    """Return what each variable of a board offers."""
    return offered_by(board, prometheus.label_values)


def expressions_of(name: str, board: Board, prometheus: PrometheusServer) -> Iterator[Expression]:
    """Yield a board's expressions with every variable at "All"."""
    interval_s = rate_interval_s(scrape_s=SCRAPE_S, step_s=STEP_S)
    chosen = {**everything(board, prometheus.label_values), "__rate_interval": f"{round(1000 * interval_s)}ms"}
    for panel in panels_of(board):
        for target in panel["targets"]:
            place = f"{name}: {panel['title']} {target['refId']}"
            yield Expression(place=place, text=put_in(target["expr"], chosen))
