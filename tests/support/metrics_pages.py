"""What a service's /metrics page has, and what the documentation says it has."""

import re
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

_DOCUMENTED = Path(__file__).parents[2] / "docs" / "metrics.md"
_OF_THE_RUNTIME = ("requests_total", "request_seconds", "requests_in_progress", "refusals_total")


def documented(service: str) -> set[str]:
    """Return the metrics of a service that the documentation lists, without those that every service has."""
    names = set(re.findall(rf"^\| `(sealpool_{service}_\w+)`", _DOCUMENTED.read_text(), re.MULTILINE))
    return names - {f"sealpool_{service}_{name}" for name in _OF_THE_RUNTIME}


def named(address: str) -> set[str]:
    """Return the metrics that the page has, with samples or without."""
    return set(re.findall(r"^# TYPE (sealpool_\w+)", _page(address), re.MULTILINE))


def sampled(address: str) -> set[str]:
    """Return the metrics that have a sample on the page, a histogram by its own name."""
    samples = [one for family in text_string_to_metric_families(_page(address)) for one in family.samples]
    return {one.name.removesuffix("_count") for one in samples if one.name.startswith("sealpool_")}


def label_values(address: str, name: str, label: str) -> set[str]:
    """Return the values of a label that the samples of a metric have."""
    families = text_string_to_metric_families(_page(address))
    return {one.labels[label] for family in families for one in family.samples if one.name == name}


def _page(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return str(answer.read().decode())
