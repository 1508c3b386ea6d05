"""python -m benchmarks.learner [--quick] [--only NAME,…] [--texts FILE]: measure the learner."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import torch

from benchmarks.learner.figures import FIGURES
from benchmarks.learner.workbench import FULL_ITEMS, Options, Workbench
from benchmarks.runner import chosen, new_report, results_path, run_figures

_PACKAGES: Final = (
    "torch",
    "numpy",
    "scikit-learn",
    "scikit-activeml",
    "modAL-python",
    "small-text",
    "batchbald_redux",
    "sentence-transformers",
)


def main(arguments: Sequence[str]) -> int:
    """Return 0, or 1 where a figure could not be measured. A target that is missed is in the report."""
    given = _parser().parse_args(arguments)
    # Bars of the peers' own would be between the tables.
    os.environ.setdefault("TQDM_DISABLE", "1")
    names = chosen(given.only, FIGURES)
    items = given.items or (FULL_ITEMS // 10 if given.quick else FULL_ITEMS)
    path = given.out or results_path("learner", partial=bool(given.only), quick=items < FULL_ITEMS)
    options = Options(
        items=items,
        dimension=given.dimension,
        repetitions=given.repetitions or (5 if given.quick else 9),
        texts=given.texts,
    )
    report = new_report("benchmarks.learner", arguments, f"{torch.get_num_threads()} threads", _versions())
    failed = run_figures({name: FIGURES[name] for name in names}, Workbench(options), report=report, path=path)
    return 1 if failed else 0


def _versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in _PACKAGES if _installed(name))


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learner", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the data")
    parser.add_argument("--only", default="", help=f"figures, by name: {', '.join(FIGURES)}")
    parser.add_argument("--texts", type=Path, help="JSON lines with texts to embed, gzipped or not")
    parser.add_argument("--items", type=int, default=0, help=f"candidates instead of {FULL_ITEMS:,}")
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=0)
    parser.add_argument("--out", type=Path, help="the report (default benchmarks/results/learner.json)")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
