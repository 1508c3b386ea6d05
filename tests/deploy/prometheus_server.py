"""A real Prometheus on loopback: Debian's package, started in a temporary directory."""

import contextlib
import json
import math
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from tests.support.processes import free_port

SCRAPE_S = 0.5
START_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What is scraped, and the labels that Kubernetes' service discovery would give it."""

    job: str
    address: str
    labels: Mapping[str, str] = field(default_factory=dict)


class RefusedQuery(Exception):
    """Prometheus does not understand a query."""


Samples = list[tuple[Mapping[str, str], list[float]]]
"""Labels and values of each series that an expression gave, in order of time."""


class PrometheusServer:
    """Scrapes until it is stopped.

    Parameters
    ----------
    folder
        Where its data and configuration lie.
    rules
        Rule files. Their groups are evaluated each second, whatever interval they name.
    """

    def __init__(self, program: str, folder: Path, targets: Sequence[Target], rules: Iterable[Path] = ()) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._log = folder / "prometheus.log"
        self._command = [
            *(program, f"--config.file={_configuration(folder, targets, rules)}"),
            *(f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={self.url.removeprefix('http://')}"),
            "--log.level=warn",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
                return self
            time.sleep(0.05)  # it has no event to wait for
        self.__exit__()
        raise AssertionError(f"Prometheus does not serve:\n{self._log.read_text()[-4000:]}")

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)

    def get(self, path: str, **parameters: str | Sequence[str]) -> Any:
        """Return the data of an answer of the HTTP API. Raises RefusedQuery for what it calls a bad request."""
        query = urllib.parse.urlencode(parameters, doseq=True)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise RefusedQuery(error.read().decode()) from error

    def ask(self, expression: str, *, at: float | None = None) -> Samples:
        """Return what an expression gives now, or at a time in Unix seconds."""
        when = {} if at is None else {"time": str(at)}
        return _samples(self.get("query", query=expression, **when))

    def ask_between(self, expression: str, start: float, end: float, *, step_s: float = 1.0) -> Samples:
        """Return what an expression gave from `start` to `end`, in Unix seconds."""
        return _samples(
            self.get("query_range", query=expression, start=str(start), end=str(end), step=str(step_s)),
        )

    def label_values(self, label: str, match: str) -> list[str]:
        """Return the values that a label has in the series that match."""
        values: list[str] = self.get(f"label/{label}/values", **{"match[]": [match]})
        return values

    def wait_for(self, expression: str, *, timeout_s: float = 20.0) -> None:
        """Return once an expression gives anything: a scrape has seen it."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.ask(expression):
                return
            time.sleep(0.1)  # Prometheus tells nobody of a scrape
        raise AssertionError(f"Prometheus sees no {expression}")


def has_data(samples: Samples) -> bool:
    """Whether there is a number among the samples: an expression that is always NaN shows nothing."""
    return any(not math.isnan(value) for _, values in samples for value in values)


def prometheus_program(name: str = "prometheus") -> str:
    """Return the path of Prometheus or its promtool. Where it is missing, skip and say what to install; fail in CI."""
    found = shutil.which(name)
    if found is None:
        missing = f"{name} is not installed: apt-get install prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def _samples(data: Mapping[str, Any]) -> Samples:
    if data["resultType"] in ("scalar", "string"):
        return [({}, [float(data["result"][1])])]
    return [
        (series["metric"], [float(value) for _, value in series.get("values") or [series["value"]]])
        for series in data["result"]
    ]


def _configuration(folder: Path, targets: Sequence[Target], rules: Iterable[Path]) -> Path:
    told = {
        "global": {"scrape_interval": f"{round(SCRAPE_S * 1000)}ms", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in _without_intervals(folder, rules)],
        "scrape_configs": [
            {
                "job_name": target.job,
                "scrape_timeout": f"{round(SCRAPE_S * 1000)}ms",
                "static_configs": [{"targets": [target.address], "labels": dict(target.labels)}],
            }
            for target in targets
        ],
    }
    path = folder / "prometheus.yaml"
    path.write_text(yaml.safe_dump(told))
    return path


def _without_intervals(folder: Path, rules: Iterable[Path]) -> Iterator[Path]:
    for rule_file in rules:
        told = yaml.safe_load(rule_file.read_text())
        for group in told["groups"]:
            group.pop("interval", None)
        path = folder / rule_file.name
        path.write_text(yaml.safe_dump(told))
        yield path
