"""python -m benchmarks.index [--quick] [--only NAME,…] [--titles FILE]: measure the index server."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.index.figures import FIGURES
from benchmarks.index.workbench import FULL_ITEMS, Options, Workbench
from benchmarks.runner import CACHE, chosen, new_report, results_path, run_figures
from sealpool.v1 import index_pb2

_GRAPHS = {"lazy": index_pb2.NEIGHBOR_GRAPH_KIND_LAZY, "full": index_pb2.NEIGHBOR_GRAPH_KIND_FULL}


def main(arguments: Sequence[str]) -> int:
    """Return 0, or 1 where a figure could not be measured. A target that is missed is in the report."""
    given = _parser().parse_args(arguments)
    CACHE.mkdir(parents=True, exist_ok=True)
    names = chosen(given.only, FIGURES)
    items = given.items or (FULL_ITEMS // 10 if given.quick else FULL_ITEMS)
    path = given.out or results_path("index", partial=bool(given.only), quick=items < FULL_ITEMS)
    with tempfile.TemporaryDirectory(dir=given.folder or CACHE, prefix="run-") as folder:
        options = Options(
            items=items,
            dimension=given.dimension,
            repetitions=given.repetitions or (5 if given.quick else 9),
            titles=given.titles,
            graph=_GRAPHS[given.graph],
            cache=CACHE,
            folder=Path(folder),
        )
        with Workbench(options) as bench:
            figures = {name: FIGURES[name] for name in names}
            failed = run_figures(figures, bench, report=new_report("benchmarks.index", arguments), path=path)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.index", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the data")
    parser.add_argument("--only", default="", help=f"figures, by name: {', '.join(FIGURES)}")
    parser.add_argument("--titles", type=Path, help="JSON lines with texts to embed, gzipped or not")
    parser.add_argument("--graph", choices=_GRAPHS, default="lazy", help="whose neighbours are kept (default lazy)")
    parser.add_argument("--items", type=int, default=0, help=f"items instead of {FULL_ITEMS:,}")
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the servers keep their data (default benchmarks/.cache)")
    parser.add_argument("--out", type=Path, help="the report (default benchmarks/results/index.json)")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
