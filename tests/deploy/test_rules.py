"""Rules and alerts: they parse, each fires and does not, each leads to a page, and every metric exists."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.links import runbook
from deploy.prometheus import wrapped
from tests.deploy.rule_files import (
    ROOT,
    RULE_TESTS,
    RULES,
    RUNBOOKS,
    alerts,
    exported,
    foreign,
    promtool,
    rules,
    unknown_metrics,
)

SEVERITIES = {"critical", "warning", "info"}


def checks() -> list[dict[str, Any]]:
    return [
        check
        for path in RULE_TESTS.glob("*.yaml")
        for case in yaml.safe_load(path.read_text())["tests"]
        for check in case["alert_rule_test"]
    ]


def test_promtool_finds_the_rules_right() -> None:
    files = [str(path) for path in sorted(RULES.glob("*.yaml"))]
    done = subprocess.run([promtool(), "check", "rules", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted(RULE_TESTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(path: Path) -> None:
    command = [promtool(), "test", "rules", path.name]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted(RULE_TESTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_is_recorded_is_recorded_before_alerts_ask_for_it(path: Path) -> None:
    # promtool puts a group that is not named anywhere, another time elsewhere.
    suite = yaml.safe_load(path.read_text())
    files = [yaml.safe_load((path.parent / name).read_text()) for name in suite["rule_files"]]
    records = {group["name"]: "record" in group["rules"][0] for file in files for group in file["groups"]}
    assert sorted(suite["group_eval_order"]) == sorted(records)
    assert sorted(suite["group_eval_order"], key=lambda name: not records[name]) == suite["group_eval_order"]


@pytest.mark.parametrize("name", sorted({rule["alert"] for rule in alerts()}))
def test_each_rule_of_an_alert_is_seen_to_fire_and_the_alert_not_to(name: str) -> None:
    firing = [alert["exp_labels"] for check in checks() if check["alertname"] == name for alert in check["exp_alerts"]]
    for rule in alerts():
        if rule["alert"] == name:
            assert any(rule["labels"].items() <= labels.items() for labels in firing), rule["labels"]
    # A condition that is never met, not one that has not lasted: cases in which the alert never fires.
    quiet = [
        case["name"]
        for path in RULE_TESTS.glob("*.yaml")
        for case in yaml.safe_load(path.read_text())["tests"]
        if (of_alert := [check for check in case["alert_rule_test"] if check["alertname"] == name])
        and not any(check["exp_alerts"] for check in of_alert)
    ]
    assert quiet


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_urgent_it_is_what_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in SEVERITIES
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert annotations["description"].endswith(".")
    assert annotations["runbook_url"] == runbook(rule["alert"])
    assert (RUNBOOKS / f"{rule['alert']}.md").is_file()
    # The labels that a rule adds are not there yet when its annotations are written.
    added = set(rule["labels"]) - {"service"}
    assert not added & set(re.findall(r"\$labels\.(\w+)", " ".join(annotations.values())))


def test_every_metric_of_a_rule_is_exported_recorded_or_foreign_for_a_reason() -> None:
    assert exported()
    for rule in rules():
        assert unknown_metrics(rule["expr"]) == set(), rule
    assert all(len(reason) > 20 for reason in foreign().values())


def test_the_objects_of_the_operator_hold_the_rules_as_they_are() -> None:
    (text,) = wrapped.pages().values()
    objects = list(yaml.safe_load_all(text))
    assert [one["spec"] for one in objects] == [yaml.safe_load(p.read_text()) for p in sorted(RULES.glob("*.yaml"))]
    assert {(one["apiVersion"], one["kind"]) for one in objects} == {("monitoring.coreos.com/v1", "PrometheusRule")}
    assert (ROOT / "deploy" / "prometheus" / "prometheus-rules.yaml").read_text() == text


def test_monitors_ask_the_metrics_port_and_tell_namespace_and_pod() -> None:
    folder = ROOT / "deploy" / "prometheus"
    monitors = [
        one
        for name in ("service-monitors.yaml", "pod-monitor.yaml")
        for one in yaml.safe_load_all((folder / name).read_text())
    ]
    assert {(one["kind"], one["metadata"]["name"]) for one in monitors} == {
        ("ServiceMonitor", "index-server"),
        ("ServiceMonitor", "scheduler"),
        ("PodMonitor", "learner"),
    }
    for one in monitors:
        spec = one["spec"]
        assert spec["selector"]["matchLabels"]["app.kubernetes.io/name"] == one["metadata"]["name"]
        (endpoint,) = spec.get("endpoints") or spec["podMetricsEndpoints"]
        assert endpoint["port"] == "metrics"
        assert {rule["targetLabel"] for rule in endpoint["relabelings"]} == {"namespace", "pod"}
