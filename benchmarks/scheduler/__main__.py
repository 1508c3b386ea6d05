"""python -m benchmarks.scheduler [--quick] [--only NAME,…]: measure the scheduler."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.runner import chosen, new_report, results_path, run_figures
from benchmarks.scheduler.figures import FIGURES
from benchmarks.scheduler.workbench import Options, Workbench


def main(arguments: Sequence[str]) -> int:
    """Return 0, or 1 where a figure could not be measured. A target that is missed is in the report."""
    given = _parser().parse_args(arguments)
    names = chosen(given.only, FIGURES)
    path = given.out or results_path("scheduler", partial=bool(given.only), quick=given.quick)
    options = (
        Options(items=10_000, campaigns=30, rounds=4, annotators=100, seconds=4.0)
        if given.quick
        else Options(items=100_000, campaigns=300, rounds=10, annotators=1000, seconds=15.0)
    )
    report = new_report("benchmarks.scheduler", arguments)
    failed = run_figures({name: FIGURES[name] for name in names}, Workbench(options), report=report, path=path)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.scheduler", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, in under three minutes")
    parser.add_argument("--only", default="", metavar="NAME,…", help=f"of {', '.join(FIGURES)}")
    parser.add_argument("--out", type=Path, help="where the report goes; default: benchmarks/results")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
