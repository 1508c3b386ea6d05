"""Figures by name, in the order in which they are measured."""

from collections.abc import Callable
from typing import Final

from benchmarks.learner import (
    batch_bald,
    density,
    embedding,
    entropy,
    gpu,
    k_center,
    logistic,
    memory,
    representation,
)
from benchmarks.learner.workbench import Workbench
from benchmarks.report import Figure

FIGURES: Final[dict[str, Callable[[Workbench, Figure], None]]] = {
    "entropy": entropy.measure,
    "density": density.measure,
    "k_center": k_center.measure,
    "batch_bald": batch_bald.measure,
    "typiclust": representation.measure_typiclust,
    "badge": representation.measure_badge,
    "logistic": logistic.measure,
    "embedding": embedding.measure,
    "memory": memory.measure,
    "gpu": gpu.measure,
    "gpu_embedding": embedding.measure_on_gpu,
}
