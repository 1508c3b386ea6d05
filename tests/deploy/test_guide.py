"""The operating guide is truthful: what its pages name exists, and sums in them are right."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.deploy.guide_pages import DOCS, PAGES
from tests.deploy.rule_files import ROOT, RULES, alerts, unknown_metrics
from tests.deploy.service_settings import CLASSES
from tests.deploy.test_rules_runbooks import check_command

KUBERNETES = ROOT / "deploy" / "kubernetes"
of_each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def commands(text: str) -> list[list[str]]:
    """Return the `sealpool …` of a page's blocks and of its text, each without the first word."""
    lines = [
        line for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for line in _lines(block)
    ]
    lines += re.findall(r"^    (sealpool .+)$", text, re.MULTILINE)
    lines += re.findall(r"`(sealpool [^`]+)`", text)
    found = [
        match
        for line in lines
        for match in re.findall(r"(?<!namespace )(?<![\w/'.-])sealpool ([a-z][^|;<>&#)]*)", line)
    ]
    return [shlex.split(arguments) for arguments in found]


def _lines(block: str) -> list[str]:
    return block.replace("\\\n", " ").splitlines()


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@of_each_page
def test_every_command_of_the_guide_exists(page: Path) -> None:
    for words in commands(page.read_text()):
        if words[0] in CLASSES:
            given = {word.removeprefix("--").replace("-", "_") for word in words if word.startswith("--")}
            assert given <= CLASSES[words[0]].model_fields.keys(), words
        else:
            check_command(words)


@of_each_page
def test_every_setting_variable_and_metric_of_the_guide_exists(page: Path) -> None:
    text = page.read_text()
    names = {name for settings in CLASSES.values() for name in settings.model_fields}
    engines = {"ivf_flat", "ivf_pq"}
    others = {
        "index_server",
        "index_bytes",
        "engine_reason",
        "loaded_share",
        "pool_mode",
        "ring_hash",
        "pg_dump",
        "pg_basebackup",
    }
    others |= {"database_url", "ca_certificate", "token_file", "retry_for_s", "ca_crt", "umask"}
    objectives = {rule["labels"]["slo"] for rule in _rules("slo.yaml") if "slo" in rule.get("labels", {})}
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)(?:[ :=][^`]*)?`", text))
    named = {name for name in named if not name.startswith("sealpool_")}
    assert named - names - engines - others - objectives == set()
    assert {name.rstrip("_") for name in unknown_metrics(text) if not name.endswith("_")} == set()
    variables = set(re.findall(r"\bSEALPOOL_[A-Z_]+\b", text))
    assert {name for name in variables if not _is_read(name)} == set()


def _rules(name: str) -> list[dict[str, dict[str, str]]]:
    return [rule for group in yaml.safe_load((RULES / name).read_text())["groups"] for rule in group["rules"]]


def _is_read(variable: str) -> bool:
    sources = [*(ROOT / "sealpool" / "cli").glob("*.py"), *(ROOT / "sealpool" / "client").glob("*.py")]
    return any(f'"{variable}"' in path.read_text() for path in sources)


@of_each_page
def test_every_link_of_the_guide_leads_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
        leads_to = page.parent / target if target else page
        assert leads_to.exists(), target
        assert not anchor or anchor in _anchors(leads_to), f"{target}#{anchor}"


def test_the_objectives_of_the_guide_are_those_of_the_rules() -> None:
    text = (DOCS / "slos.md").read_text()
    told = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([\d.]+) % \|", text, re.MULTILINE))
    rules = {
        rule["labels"]["slo"]: rule["expr"]
        for rule in _rules("slo.yaml")
        if rule.get("record") == "sealpool:slo_objective:ratio"
    }
    assert {slo: f"vector({round(float(share) / 100, 5)})" for slo, share in told.items()} == rules


def test_the_burn_rate_alerts_of_the_guide_are_those_of_the_rules() -> None:
    text = (DOCS / "slos.md").read_text()
    told = {
        (alert, kind, severity)
        for alert, page, ticket in re.findall(r"^\| \[(\w+)\]\([^)]+\) \| (\w+) \| (\w+) \|$", text, re.MULTILINE)
        for kind, severity in (("page", page), ("ticket", ticket))
    }
    rules = {
        (rule["alert"], found[1], rule["labels"]["severity"])
        for rule in alerts()
        if (found := re.match(r"sealpool:slo_burn_(page|ticket):ratio", rule["expr"]))
    }
    assert told == rules
    burns = " ".join(
        rule["expr"] for rule in _rules("slo.yaml") if rule.get("record", "").startswith("sealpool:slo_burn")
    )
    for factor, long, short in re.findall(r"over ([\d.]+) \| ([\d]+ \w+) and (\d+ \w+)", text):
        for window in (long, short):
            recorded = f"sealpool:slo_bad_share:ratio{window.replace(' ', '').replace('min', 'm')}"
            share = rf"{recorded} /[^>]+> {re.escape(factor)}(?![\d.])"
            assert re.search(share, burns), (factor, window)


def test_sums_in_the_sizing_examples_are_right() -> None:
    text = (DOCS / "sizing.md").read_text()
    sums = re.findall(r"\(([\d. +]+)\) / 0\.9 = ([\d.]+) GB", text)
    assert len(sums) >= 5
    for terms, told in sums:
        limit = sum(map(float, terms.split("+"))) / 0.9
        assert abs(limit - float(told)) <= 0.02 * limit + 0.05, terms


def test_containers_that_the_guide_names_are_those_of_the_manifests() -> None:
    text = (DOCS / "upgrading.md").read_text()
    for kind, name, container in re.findall(r"set image (\w+)/([\w-]+) ([\w-]+)=", text):
        manifest = {"statefulset": "stateful-set", "deployment": "deployment"}[kind]
        document = yaml.safe_load((KUBERNETES / "base" / name / f"{manifest}.yaml").read_text())
        assert document["metadata"]["name"] == name
        assert container in {one["name"] for one in document["spec"]["template"]["spec"]["containers"]}
