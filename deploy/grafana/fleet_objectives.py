"""The row on service level objectives: how fast their error budgets burn."""

from grafana_foundation_sdk.builders import timeseries

from deploy.grafana.layout import Section
from deploy.grafana.panels import About, Limits, Query, bars, lines

_BUDGET = "/ on (slo) group_left () (1 - sealpool:slo_objective:ratio)"


def objectives() -> Section:
    """Return the row. Its expressions are recording rules of deploy/prometheus/rules/slo.yaml."""
    return Section(
        "Objectives",
        [
            bars(
                About(
                    title="Left of the error budget of 30 days",
                    unit="percentunit",
                    empty="no calls yet, or the recording rules are not loaded",
                    limits=Limits(warning=0.5, bad=0.1, falling=True),
                    does="By objective. At 0 nothing should be risked that is not needed: put changes off until the "
                    "cause is mended.",
                ),
                Query(_recorded("slo_budget_left:ratio30d"), "{{slo}}"),
            ),
            _burning("an hour", "1h", Limits(warning=6, bad=14.4)),
            _burning("six hours", "6h", Limits(warning=1, bad=6)),
        ],
    )


def _burning(words: str, window: str, limits: Limits) -> timeseries.Panel:
    return lines(
        About(
            title=f"Burn rate over {words}",
            unit="short",
            empty="no calls yet, or the recording rules are not loaded",
            alert="SchedulerErrors",
            limits=limits,
            does="How many times faster than 30 days allow the error budget goes. 1 lasts for the 30 days; at the red "
            "line somebody is called.",
        ),
        Query(f"{_recorded(f'slo_bad_share:ratio{window}')} {_BUDGET}", "{{slo}}"),
    )


def _recorded(name: str) -> str:
    return f'sealpool:{name}{{namespace=~"$namespace"}}'
