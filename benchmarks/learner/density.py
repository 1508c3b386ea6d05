"""Information density beside plain entropy, and beside modAL, which compares every candidate with every other."""

from benchmarks.learner import peers
from benchmarks.learner.beside import Peer, add_beside
from benchmarks.learner.workbench import CPU, Workbench
from benchmarks.report import Figure, at_most
from benchmarks.statistics import median, side_by_side
from learner.device import memory_bytes


def measure(bench: Workbench, figure: Figure) -> None:
    """Measure at a tenth of the candidates, and modAL at what it can hold."""
    items = bench.share(100_000)
    times = side_by_side(
        {"density": bench.picker("information_density", items), "entropy": bench.picker("entropy", items)},
        repetitions=2 * bench.options.repetitions,
    )
    density, entropy = median(times["density"]), median(times["entropy"])
    figure.add(f"information_density, {items:,} candidates", density, "s")
    figure.add(f"entropy, {items:,} candidates", entropy, "s")
    figure.add("information_density / entropy", density / entropy, "×", bench.at_full_size(at_most(1.3)))
    figure.add(
        f"modAL's information_density at {items:,}",
        f"needs {2 * 4 * items**2 / 1e9:,.1f} GB for two n × n arrays of float32; "
        f"this machine has {memory_bytes(CPU) / 1e9:,.0f} GB",
    )
    few = min(items, bench.share(5_000))
    peer = Peer(name=peers.MODAL, make=lambda: peers.modal_density(bench, few), repetitions=3)
    add_beside(bench, figure, f"{few:,} candidates", bench.picker("information_density", few), [peer])
