"""python -m benchmarks.learning --data FILE … [--only NAME,…]: learning curves of the strategies on labelled texts.

FILE holds JSON lines {"text", "labels", "split"}, gzipped or not; "split" is "train" or "test". Give one whose texts
have one label each, and one with several, or either.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from benchmarks.learning.figures import FIGURES, Bench
from benchmarks.learning.texts import read_texts
from benchmarks.runner import CACHE, chosen, new_report, results_path, run_figures
from benchmarks.titles import NoTitlesError

_SEEDS: Final = 4


def main(arguments: Sequence[str]) -> int:
    """Return 0, or 1 where a figure could not be measured."""
    given = _parser().parse_args(arguments)
    names = chosen(given.only, FIGURES)
    path = given.out or results_path("learning", partial=bool(given.only), quick=given.seeds < _SEEDS)
    try:
        data = [read_texts(file, most=given.most, cache=CACHE) for file in given.data]
    except NoTitlesError as error:
        sys.exit(f"--data: {error}")
    torch.set_num_threads(1)
    bench = Bench(data=data, seeds=given.seeds, jobs=given.jobs)
    report = new_report("benchmarks.learning", arguments, "1 thread a trial")
    return 1 if run_figures({name: FIGURES[name] for name in names}, bench, report=report, path=path) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="labelled texts")
    parser.add_argument("--only", default="", help=f"figures, by name: {', '.join(FIGURES)}")
    parser.add_argument("--most", type=int, default=40_000, help="texts of a file that are looked at (default 40,000)")
    parser.add_argument("--seeds", type=int, default=_SEEDS, help=f"draws of trials (default {_SEEDS})")
    parser.add_argument("--jobs", type=int, default=1, help="trials at once (default 1)")
    parser.add_argument("--out", type=Path, help="the report (default benchmarks/results/learning.json)")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
