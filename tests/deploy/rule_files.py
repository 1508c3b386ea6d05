"""The rules of deploy/prometheus, what they are tested by, and the metrics that there are."""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules"
RULE_TESTS = Path(__file__).parent / "rules"
RUNBOOKS = ROOT / "docs" / "runbooks"

_SUFFIXES = ("_bucket", "_sum", "_count")


def promtool() -> str:
    """Return the program; skip where it is missing, saying how to get it, and fail under CI."""
    found = shutil.which("promtool")
    if found is None:
        told = "promtool is missing: it is in Debian's package prometheus"
        pytest.fail(told) if os.environ.get("CI") == "true" else pytest.skip(told)
    return found


def rules() -> Iterator[dict[str, Any]]:
    """Yield each rule of every file."""
    for path in sorted(RULES.glob("*.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def alerts() -> list[dict[str, Any]]:
    """Return the rules that are alerts; several may have one name."""
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> set[str]:
    """Return the names that recording rules make."""
    return {rule["record"] for rule in rules() if "record" in rule}


def exported() -> set[str]:
    """Return the metrics of our services, as the documentation lists them."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    return set(re.findall(r"^\| `(sealpool_\w+)`", page, re.MULTILINE))


def foreign() -> Mapping[str, str]:
    """Return metrics of others that we use, and why."""
    found: Mapping[str, str] = yaml.safe_load((ROOT / "deploy" / "prometheus" / "foreign_metrics.yaml").read_text())
    return found


def unknown_metrics(text: str) -> set[str]:
    """Return what in expressions looks like a metric and is none of ours, recorded or foreign."""
    # What follows a dot or a slash is a file.
    named = set(re.findall(r"(?<![\w./])(sealpool_(?:index_server|learner|scheduler)_\w+|sealpool:[\w:]+)", text))
    named |= set(
        re.findall(r"(?<![\w./\"])((?:process|container|kubelet|kube|node|DCGM_FI)_\w+|up)(?=\s*[{\[=)])", text)
    )
    known = exported() | recorded() | set(foreign())
    return {name for name in named if name not in known and _base(name) not in known}


def _base(name: str) -> str:
    for suffix in _SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name
