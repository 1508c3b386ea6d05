"""python -m benchmarks.gpu: exact search and the exact neighbour graph on one GPU, as shares of what it can do."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.bound import Bound
from benchmarks.gpu.device import Gpu, Host, NoGpuError
from benchmarks.report import Figure, at_least
from benchmarks.runner import chosen, new_report, results_path, run_figures
from benchmarks.statistics import median, seconds, side_by_side

_NEIGHBORS: Final = 100
_BATCHES: Final = (1, 4, 16, 64, 256, 1024, 4096)
_DRAWS: Final = 3
_GRAPH_BATCH: Final = 4096
_GRAPH_SAMPLE: Final = 1_000_000
_HALF_BYTES: Final = 2
_BLOCK_ROWS: Final = 250_000
_BANDWIDTH_BYTES: Final = 4 << 30
_MATRIX_SIZE: Final = 16_384


@dataclass(kw_only=True)
class Bench:
    """The vectors, the index over them and the device's bound, made when they are first needed."""

    device: Gpu | Host
    items: int
    dimension: int
    repetitions: int
    whole_graph: bool

    @cached_property
    def vectors(self) -> NDArray[np.float16]:
        """Random directions: exact search does the same work on any. (items, dimension)."""
        vectors = np.empty((self.items, self.dimension), np.float16)
        for start in range(0, self.items, _BLOCK_ROWS):
            block = np.random.default_rng([0, start]).standard_normal((_BLOCK_ROWS, self.dimension), np.float32)
            block /= np.linalg.norm(block, axis=1, keepdims=True)
            vectors[start : start + _BLOCK_ROWS] = block[: self.items - start]
        return vectors

    @cached_property
    def index(self) -> Any:
        """The exact index."""
        return self.device.flat(self.vectors)

    @cached_property
    def bound(self) -> Bound:
        """Measured once, before the index takes the memory."""
        dry = isinstance(self.device, Host)
        return Bound(
            bandwidth=self.device.bandwidth(64 << 20 if dry else _BANDWIDTH_BYTES),
            matrix_rate=self.device.matrix_rate(1024 if dry else _MATRIX_SIZE),
        )

    def queries(self, count: int, number: int) -> NDArray[np.float32]:
        """Return `count` vectors of the pool, others for each number: (count, dimension)."""
        start = number * count % max(1, self.items - count)
        return self.vectors[start : start + count].astype(np.float32)


def measure_search(bench: Bench, figure: Figure) -> None:
    """Measure batches from one query to 4,096, the queries and answers crossing to the device and back."""
    _add_bound(bench, figure)
    items = len(bench.vectors)
    upload_s = seconds(lambda: bench.index)
    figure.add(f"index over {items:,} × {bench.dimension} filled from host memory", upload_s, "s")
    for batch in _BATCHES:
        queries = [bench.queries(batch, number) for number in range(_DRAWS)]
        searches = side_by_side({"search": partial(_search, bench, queries)}, repetitions=bench.repetitions)["search"]
        least_s, kind = _least(bench, batch)
        taken_s = median(searches)
        figure.add(f"batch of {batch:,}, k = {_NEIGHBORS}", 1000 * taken_s, "ms")
        figure.add(f"batch of {batch:,}, share of the {kind} bound", least_s / taken_s, "", at_least(0.5))


def measure_graph(bench: Bench, figure: Figure) -> None:
    """Measure the exact neighbours of every item, or of the first million and say so."""
    _add_bound(bench, figure)
    searched = bench.items if bench.whole_graph else min(bench.items, _GRAPH_SAMPLE)
    bench.index.search(bench.queries(_GRAPH_BATCH, 0), _NEIGHBORS + 1)
    taken_s = seconds(lambda: _search_all(bench, searched))
    least_s = sum(_least(bench, min(_GRAPH_BATCH, searched - start))[0] for start in range(0, searched, _GRAPH_BATCH))
    figure.add("items whose neighbours were found", searched)
    figure.add(f"{searched:,} of {bench.items:,} × {bench.dimension}, k = {_NEIGHBORS}", taken_s / 60, "min")
    if searched < bench.items:
        figure.add("all of them at this rate", taken_s / 60 * bench.items / searched, "min")
    figure.add("share of the matrix bound", least_s / taken_s, "", at_least(0.5))


def _search(bench: Bench, queries: list[NDArray[np.float32]], repetition: int) -> None:
    bench.index.search(queries[repetition % _DRAWS], _NEIGHBORS)


def _search_all(bench: Bench, searched: int) -> None:
    for start in range(0, searched, _GRAPH_BATCH):
        queries = bench.vectors[start : min(start + _GRAPH_BATCH, searched)].astype(np.float32)
        bench.index.search(queries, _NEIGHBORS + 1)


def _least(bench: Bench, queries: int) -> tuple[float, str]:
    return bench.bound.seconds(queries=queries, items=bench.items, dimension=bench.dimension, item_bytes=_HALF_BYTES)


def _add_bound(bench: Bench, figure: Figure) -> None:
    figure.add("memory bandwidth, measured by a copy", bench.bound.bandwidth / 1e9, "GB/s")
    figure.add("float16 matrix rate, measured by a product", bench.bound.matrix_rate / 1e12, "Top/s")


FIGURES: Final[dict[str, Callable[[Bench, Figure], None]]] = {"exact search": measure_search, "graph": measure_graph}


def main(arguments: Sequence[str]) -> int:
    """Return 0, also where there is no GPU, and say so; 1 where a figure could not be measured."""
    given = _parser().parse_args(arguments)
    names = chosen(given.only, FIGURES)
    try:
        device = Host() if given.dry_run_on_cpu else Gpu()
    except NoGpuError as error:
        sys.stdout.write(f"skipped: {error}\n")
        return 0
    bench = Bench(
        device=device,
        items=given.items or (20_000 if given.dry_run_on_cpu else 10_000_000),
        dimension=given.dimension,
        repetitions=given.repetitions,
        whole_graph=given.whole_graph,
    )
    path = given.out or results_path("gpu", partial=bool(given.only), quick=given.dry_run_on_cpu)
    figures = {name: FIGURES[name] for name in names}
    return (
        1 if run_figures(figures, bench, report=new_report("benchmarks.gpu", arguments, device.name), path=path) else 0
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--only", default="", help=f"figures, by name: {', '.join(FIGURES)}")
    parser.add_argument("--items", type=int, default=0, help="items (default 10,000,000)")
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--whole-graph", action="store_true", help="every item's neighbours, not the first million's")
    parser.add_argument(
        "--dry-run-on-cpu", action="store_true", help="try it with little data; the figures mean nothing"
    )
    parser.add_argument("--out", type=Path, help="the report (default benchmarks/results/gpu.json)")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
