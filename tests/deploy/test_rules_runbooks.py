"""Runbooks are truthful: their commands, settings and metrics exist, and their expressions parse."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from sealpool.cli.app import app
from tests.deploy.rule_files import ROOT, RULES, RUNBOOKS, alerts, promtool, unknown_metrics

PAGES = sorted(RUNBOOKS.glob("*.md"))
FIELDS = ROOT / "proto" / "sealpool" / "v1"


def commands(page: Path) -> list[list[str]]:
    """Return the command lines of a page, those in its text included, without `sealpool` itself."""
    text = page.read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    lines += re.findall(r"`(sealpool [^`]+)`", text)
    return [shlex.split(line)[1:] for line in lines]


def check_command(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    words = list(words)
    while hasattr(command, "commands"):
        assert words, f"{command.name}: which of {sorted(command.commands)}"
        assert words[0] in command.commands, words
        command = command.commands[words.pop(0)]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    given = [word for word in words if word.startswith("-")]
    assert set(given) <= options, (words, sorted(options))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_runbook_exists(page: Path) -> None:
    for words in commands(page):
        check_command(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_name_in_a_runbook_exists(page: Path) -> None:
    text = page.read_text()
    settings = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE))
    endpoints = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "language-models.md").read_text()))
    fields = set(re.findall(r"\b(\w+) = \d+;", "".join(path.read_text() for path in FIELDS.glob("*.proto"))))
    known = settings | endpoints | fields | {"ivf_pq", "ivf_flat", "server_error", "data_dir"}
    named = set(re.findall(r"`(?:[a-z]+\.)*([a-z]+(?:_[a-z]+)+)(?:: \w+)?`", text))
    assert {name for name in named - known if not name.startswith("sealpool_")} == set()
    assert {name.removesuffix("_…") for name in unknown_metrics(text) if not name.endswith("_")} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_of_a_runbook_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert (page.parent / target).is_file(), target


def test_every_expression_of_a_runbook_parses(tmp_path: Path) -> None:
    expressions = [
        line
        for page in PAGES
        for block in re.findall(r"```promql\n(.*?)```", page.read_text(), re.DOTALL)
        for line in block.splitlines()
    ]
    assert len(expressions) > len(PAGES)
    rules = [{"record": f"expression:{number}", "expr": line} for number, line in enumerate(expressions)]
    path = tmp_path / "expressions.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "runbooks", "rules": rules}]}))
    done = subprocess.run([promtool(), "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_index_lists_every_alert_with_its_severities_and_nothing_else() -> None:
    listed = dict(re.findall(r"^\| \[(\w+)\]\(\1\.md\) \| ([a-z, ]+) \|$", (RUNBOOKS / "README.md").read_text(), re.M))
    severities: dict[str, set[str]] = {}
    for rule in alerts():
        severities.setdefault(rule["alert"], set()).add(rule["labels"]["severity"])
    assert {name: set(told.split(", ")) for name, told in listed.items()} == severities
    assert {page.stem for page in PAGES} == {*severities, "README"}
    assert RULES.is_dir()
