"""Every expression of the boards, recording rules and alerts, asked of a Prometheus that watched real campaigns."""

from collections.abc import Iterator
from typing import Any

import yaml

from deploy.grafana.reading import panels_of, read_boards
from tests.deploy.prometheus_boards import STEP_S, Expression, expressions_of, values_of
from tests.deploy.prometheus_expressions import metric_of, operands, selectors
from tests.deploy.prometheus_server import has_data
from tests.deploy.watched_services import RULES, Seen

CANNOT = {
    "sealpool_index_server_gpu_memory_bytes": "no GPU",
    "sealpool_index_server_gpu_memory_total_bytes": "no GPU",
    "sealpool_learner_gpu_memory_bytes": "no GPU",
    "sealpool_learner_gpu_memory_total_bytes": "no GPU",
    "container_memory_working_set_bytes": "cAdvisor's: no kubelet",
    "container_spec_memory_limit_bytes": "cAdvisor's: no kubelet",
    "kubelet_volume_stats_used_bytes": "no kubelet",
    "kubelet_volume_stats_capacity_bytes": "no kubelet",
    'sealpool:slo_burn_page:ratio{slo="index_server_latency"}': "no search takes a second; its windows are asked",
    'sealpool:slo_burn_ticket:ratio{slo="index_server_latency"}': "no search takes a second; its windows are asked",
    'sealpool:slo_burn_page:ratio{slo="scheduler_latency"}': "no annotator waits a second; its windows are asked",
    'sealpool:slo_burn_ticket:ratio{slo="scheduler_latency"}': "no annotator waits a second; its windows are asked",
}
"""Metrics, or selectors as they stand in an expression, that nothing on this machine can give data, and why."""


def rules() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(RULES.glob("*.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield f"{path.name}: {rule.get('alert') or rule['record']}", rule


def panels(seen: Seen) -> list[Expression]:
    boards = read_boards()
    return [one for name, board in boards.items() for one in expressions_of(name, board, seen.prometheus)]


def recorded() -> list[Expression]:
    return [Expression(place=place, text=rule["expr"]) for place, rule in rules() if "record" in rule]


def alerts() -> list[Expression]:
    return [Expression(place=place, text=str(rule["expr"])) for place, rule in rules() if "alert" in rule]


def gives_data(seen: Seen, expression: str) -> bool:
    # One step more: what the last scrape brought is seen at the step after it.
    until = seen.ended_at + STEP_S
    return has_data(seen.prometheus.ask_between(expression, seen.fresh_at, until, step_s=STEP_S))


def cannot(expression: str) -> bool:
    return any(selector in CANNOT or metric_of(selector) in CANNOT for selector in selectors(expression))


def without_data(seen: Seen, expressions: list[Expression], *, whole: bool) -> list[str]:
    """Return what has no data: selectors always, for `or vector(0)` hides one that names nothing; else the whole."""
    missing = []
    asked: dict[str, bool] = {}
    for one in expressions:
        parts = [*selectors(one.text), *([one.text] if whole else operands(one.text))]
        for part in parts:
            if cannot(part) or part.startswith("absent"):
                continue
            if part not in asked:
                asked[part] = gives_data(seen, part)
            if not asked[part]:
                missing.append(f"{one.place}\n    {part}")
    return missing


def test_every_panel_gets_data(seen: Seen) -> None:
    expressions = panels(seen)
    assert len(expressions) > 100
    assert without_data(seen, expressions, whole=True) == []


def test_every_recording_rule_gets_data_and_has_recorded_it(seen: Seen) -> None:
    expressions = recorded()
    assert expressions
    assert without_data(seen, expressions, whole=True) == []
    names = {rule["record"] for _, rule in rules() if "record" in rule and not cannot(rule["expr"])}
    silent = [name for name in sorted(names) if not gives_data(seen, name)]
    assert not silent


def test_what_every_alert_compares_gets_data(seen: Seen) -> None:
    expressions = alerts()
    assert expressions
    for one in expressions:
        seen.prometheus.ask(one.text)  # it parses
    assert without_data(seen, expressions, whole=False) == []


def test_no_rule_failed_when_it_was_evaluated(seen: Seen) -> None:
    groups = seen.prometheus.get("rules")["groups"]
    failed = [
        f"{rule['name']}: {rule['lastError']}" for group in groups for rule in group["rules"] if rule.get("lastError")
    ]
    assert not failed


def test_every_variable_of_every_board_offers_something(seen: Seen) -> None:
    for name, board in read_boards().items():
        offered = values_of(board, seen.prometheus)
        assert all(offered.values()), (name, offered)


def test_what_is_listed_as_without_data_has_none_and_is_asked_for(seen: Seen) -> None:
    used = {
        key
        for one in (*panels(seen), *recorded(), *alerts())
        for selector in selectors(one.text)
        for key in (selector, metric_of(selector))
    }
    stale = [entry for entry in CANNOT if entry not in used or gives_data(seen, entry)]
    assert not stale


def test_a_fresh_system_shows_numbers_or_says_why_it_has_none(seen: Seen) -> None:
    assert not seen.prometheus.ask("sealpool_scheduler_labels or sealpool_index_server_pool_items", at=seen.fresh_at)
    blank = []
    for name, board in read_boards().items():
        shown = {one.place: one.text for one in expressions_of(name, board, seen.prometheus)}
        for panel in panels_of(board):
            asked = [shown[f"{name}: {panel['title']} {target['refId']}"] for target in panel["targets"]]
            numbers = any(has_data(seen.prometheus.ask(text, at=seen.fresh_at)) for text in asked)
            if not numbers and not panel["fieldConfig"]["defaults"]["noValue"].strip():
                blank.append(f"{name}: {panel['title']}")
    assert not blank


def test_selectors_are_found_in_expressions_of_every_shape() -> None:
    expression = (
        'sum by (le, job) (rate(a_bucket{code!~"OK|{x}", j="on (b)"}[5m] offset 1h)) / ignoring (z) group_left (w) b:c '
        '> bool 0.5 or absent({__name__=~"d.+"}) unless on (q) topk(3, e) == inf and time() - f @ end() < 1h30m'
    )
    assert selectors(expression) == ['a_bucket{code!~"OK|{x}", j="on (b)"}', "b:c", '{__name__=~"d.+"}', "e", "f"]


def test_operands_are_the_sides_of_comparisons() -> None:
    assert operands("(a / b > 0.1) and on (x) (c < d or e == 1)") == ["a / b", "c", "d", "e"]
    assert operands("sum(rate(a[5m])) > bool 2") == ["sum(rate(a[5m]))"]
    assert operands("(a) / (b)") == ["(a) / (b)"]
    assert operands("absent(up)") == ["absent(up)"]
