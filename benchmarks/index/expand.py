"""ExpandCandidates against scanning: exact search, and a linear model over the whole pool."""

import numpy as np

from benchmarks.in_process import linear_scan
from benchmarks.index.growing import Growth
from benchmarks.index.workbench import BATCH, NEIGHBORS, LoadedPool, Workbench
from benchmarks.report import Figure, at_least, at_most
from benchmarks.statistics import median, side_by_side
from benchmarks.titles import NoTitlesError
from sealpool.types import Vectors

CLASSES = 10


def measure(bench: Workbench, figure: Figure) -> None:
    """Measure on both data sets."""
    _measure(bench, figure, "Gaussian mixture", bench.gaussian())
    try:
        _measure(bench, figure, "arXiv titles", bench.titles())
    except NoTitlesError as error:
        figure.skip("arXiv titles", str(error))


def random_weights(dimension: int) -> Vectors:
    """Return a linear model of CLASSES classes: (CLASSES, dimension)."""
    return 4 * np.random.default_rng(5).standard_normal((CLASSES, dimension), np.float32)


def _measure(bench: Workbench, figure: Figure, name: str, loaded: LoadedPool) -> None:
    growth = Growth(bench.client, loaded, bench.options.repetitions)
    weights = random_weights(bench.options.dimension)
    times = side_by_side(
        {
            "expand": growth,
            "exact": growth.exact(),
            "scan": lambda _: linear_scan(loaded.vectors, weights, BATCH),
        },
        repetitions=bench.options.repetitions,
    )
    expand, exact, scan = (median(times[key]) for key in ("expand", "exact", "scan"))
    figure.add(f"{name}, items", len(loaded.ids))
    figure.add(f"{name}, engine", loaded.chosen)
    figure.add(
        f"{name}, ExpandCandidates, {BATCH} labels, k = {NEIGHBORS}", expand, "s", bench.at_full_size(at_most(0.08))
    )
    figure.add(f"{name}, candidates that came, with their vectors", growth.added)
    figure.add(f"{name}, recall of what came", growth.recall(), "", at_least(0.95))
    figure.add(f"{name}, exact search in process", exact, "s")
    figure.add(f"{name}, exact search / expand", exact / expand, "×", bench.at_full_size(at_least(25)))
    figure.add(f"{name}, linear scan in process, {CLASSES} classes", scan, "s")
    figure.add(f"{name}, linear scan / expand", scan / expand, "×", bench.at_full_size(at_least(3.5)))
