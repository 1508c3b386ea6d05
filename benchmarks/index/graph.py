"""ExpandCandidates with the neighbour graph, where growing is a look-up, against the same without."""

from benchmarks.index.growing import Growth
from benchmarks.index.workbench import BATCH, NEIGHBORS, Workbench
from benchmarks.report import Figure, at_least, at_most
from benchmarks.server import wait_until_built
from benchmarks.statistics import median, side_by_side
from sealpool.v1 import index_pb2


def measure(bench: Workbench, figure: Figure) -> None:
    """Measure on the mixture; the labels' neighbours are in the graph before the clock runs."""
    repetitions = bench.options.repetitions
    loaded = bench.load("graph", bench.gaussian_vectors, graph=bench.options.graph)
    growth = Growth(bench.client, loaded, repetitions)
    for repetition in range(-1, repetitions):
        growth(repetition)
    pool, _ = wait_until_built(bench.client, loaded.name)
    if not pool.graph_items:
        figure.skip("neighbour graph", "the server keeps none")
        return
    plain = Growth(bench.client, bench.gaussian(), repetitions)
    times = side_by_side({"graph": growth, "plain": plain}, repetitions=repetitions)
    graph_s, plain_s = median(times["graph"]), median(times["plain"])
    figure.add("kind", index_pb2.NeighborGraphKind.Name(pool.spec.neighbor_graph.kind).rpartition("_")[2].lower())
    figure.add("items whose neighbours are known", pool.graph_items)
    if bench.options.graph == index_pb2.NEIGHBOR_GRAPH_KIND_FULL:
        figure.add("index and graph built in", loaded.build_s, "s")
    figure.add(f"ExpandCandidates, {BATCH} labels, k = {NEIGHBORS}", graph_s, "s", bench.at_full_size(at_most(0.05)))
    figure.add("recall of what came", growth.recall(), "", at_least(0.95))
    figure.add("the same without the graph", plain_s, "s")
    figure.add("without / with", plain_s / graph_s, "×")
    bench.unload(loaded.name)
