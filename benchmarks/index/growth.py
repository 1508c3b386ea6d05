"""ExpandCandidates as the pool grows a hundredfold."""

from collections.abc import Callable

from benchmarks.data import gaussian_mixture
from benchmarks.index.growing import Growth
from benchmarks.index.workbench import Workbench
from benchmarks.report import Figure, at_most
from benchmarks.statistics import median, side_by_side


def measure(bench: Workbench, figure: Figure) -> None:
    """Measure three pools, as many items to a cluster in each, in turn."""
    items, repetitions = bench.options.items, bench.options.repetitions
    small, middle = items // 100, items // 10
    pools = [bench.load(f"growth-{size}", gaussian_mixture(size, bench.options.dimension)) for size in (small, middle)]
    pools.append(bench.gaussian())
    growths = {str(len(loaded.ids)): Growth(bench.client, loaded, repetitions) for loaded in pools}
    works: dict[str, Callable[[int], object]] = {**growths}
    times = side_by_side(works, repetitions=repetitions)
    for loaded in pools:
        size = str(len(loaded.ids))
        figure.add(f"{len(loaded.ids):,} items ({loaded.pool.engine})", median(times[size]), "s")
        figure.add(f"{len(loaded.ids):,} items, candidates that came", growths[size].added)
    ratio = median(times[str(items)]) / median(times[str(middle)])
    figure.add(f"{items:,} / {middle:,} items", ratio, "×", bench.at_full_size(at_most(1.5)))
    for loaded in pools[:2]:
        bench.unload(loaded.name)
