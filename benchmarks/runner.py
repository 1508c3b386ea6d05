"""Run figures one after the other, print each, and keep the report whole on disk after each."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TextIO, TypeVar

import grpc

from benchmarks.machine import ROOT, command_of, commit_of_checkout, describe_machine
from benchmarks.report import Figure, Report, print_figure
from sealpool.errors import SealpoolError

RESULTS: Final = ROOT / "benchmarks" / "results"
CACHE: Final = ROOT / "benchmarks" / ".cache"

Bench = TypeVar("Bench")


def run_figures(
    figures: Mapping[str, Callable[[Bench, Figure], None]],
    bench: Bench,
    *,
    report: Report,
    path: Path,
    out: TextIO = sys.stdout,
) -> int:
    """Measure `figures` with `bench` into `report`, and write it to `path`.

    One that fails is a row that says so, and the others go on.

    Returns
    -------
    How many failed.
    """
    failed = 0
    for name, measure in figures.items():
        figure, started = Figure(name), time.perf_counter()
        try:
            measure(bench, figure)
        except (SealpoolError, OSError, grpc.RpcError) as error:
            failed += 1
            figure.add("failed", str(error).splitlines()[0] if str(error) else type(error).__name__)
        report.rows.extend(figure.rows)
        report.write(path)
        print_figure(f"{name} ({time.perf_counter() - started:.0f} s)", figure.rows, out)
    out.write(f"\nwritten to {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}\n")
    return failed


def new_report(module: str, arguments: Sequence[str], *more: str) -> Report:
    """Return a report without rows of a run of `module` here and now; `more` is said of the machine."""
    return Report(command=command_of(module, arguments), commit=commit_of_checkout(), machine=describe_machine(*more))


def results_path(name: str, *, partial: bool, quick: bool) -> Path:
    """Return where a run is kept. A part of the figures, or small data, never takes a whole run's place."""
    suffix = ".part" if partial else ".quick" if quick else ""
    return RESULTS / f"{name}{suffix}.json"


def chosen(names: str, known: Mapping[str, object]) -> list[str]:
    """Return the names in a comma-separated list, or all that are known. SystemExit for one that is not."""
    asked = [name for name in names.split(",") if name]
    for name in asked:
        if name not in known:
            raise SystemExit(f"--only: {name!r} is not one of {', '.join(known)}")
    return asked or list(known)
