"""One query at a time: what the service adds to FAISS in this process."""

from benchmarks.data import draws
from benchmarks.in_process import like_the_server
from benchmarks.index.workbench import Workbench
from benchmarks.report import Figure, at_most
from benchmarks.statistics import quantile, side_by_side

_NEIGHBORS = 10


def measure(bench: Workbench, figure: Figure) -> None:
    """Measure single queries, one on each side in turn, after a warm-up of as many as a tenth."""
    loaded = bench.gaussian()
    index = like_the_server(loaded.pool.engine, loaded.vectors)
    count = 300 if bench.options.quick else 2000
    warm_ups = count // 10
    rows = draws(len(loaded.ids), count + warm_ups, 1, seed=1)[0]
    queries = loaded.vectors[rows]
    times = side_by_side(
        {
            "served": lambda i: bench.client.search(loaded.name, k=_NEIGHBORS, vectors=queries[i : i + 1 or None]),
            "here": lambda i: index.search(queries[i : i + 1 or None], _NEIGHBORS),
        },
        repetitions=count,
        warm_ups=warm_ups,
    )
    figure.add("engine on both sides, queries of each", f"{loaded.pool.engine}, {count:,}")
    for name, share, target in (("p50", 0.5, at_most(0.6)), ("p99", 0.99, at_most(2.0))):
        served, here = (1000 * quantile(times[side], share) for side in ("served", "here"))
        figure.add(f"{name}, Search over gRPC, k = {_NEIGHBORS}", served, "ms")
        figure.add(f"{name}, FAISS in process", here, "ms")
        figure.add(f"{name}, added by the service", served - here, "ms", target)
