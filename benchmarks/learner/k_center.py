"""Greedy k-center over every candidate, and how often it looks at their vectors."""

from benchmarks.learner import peers
from benchmarks.learner.beside import Peer, add_beside
from benchmarks.learner.workbench import BATCH, LABELLED, CountingMirror, Workbench
from benchmarks.report import Figure, at_most


def measure(bench: Workbench, figure: Figure) -> None:
    """Measure beside scikit-activeml, from the same labelled items."""
    items = bench.options.items
    ours, mirror = bench.picker("k_center", items), bench.source(items).mirror
    if isinstance(mirror, CountingMirror):
        before = mirror.read
        ours(-1)
        passes = (mirror.read - before) / items
        figure.add(f"passes over the vectors for {BATCH} picks, {LABELLED:,} labelled", passes)
        figure.add("passes a pick", passes / BATCH, "", bench.at_full_size(at_most(1)))
    peer = Peer(
        name=peers.SCIKIT_ACTIVEML,
        make=lambda: peers.scikit_activeml_core_set(bench, items),
        repetitions=2,
        bound=3,
    )
    add_beside(bench, figure, f"{items:,} candidates, batch {BATCH}", ours, [peer])
