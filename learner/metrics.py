"""The learner's metrics. Calls themselves are counted by sealpool.runtime."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

Phase = Literal["expand", "train", "score", "evaluate", "embed", "graph", "propagate"]

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class LearnerMetrics:
    """What is counted as it happens."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._phases = Histogram(
            "sealpool_learner_phase_seconds",
            "Time of a phase: expand (the index server's answer), train, score, evaluate, embed, graph (reading the "
            "neighbours of a whole pool), propagate.",
            ["phase"],
            buckets=_BUCKETS_S,
            registry=registry,
        )

    def observe(self, phase: Phase, seconds: float) -> None:
        """Count one phase that ended."""
        self._phases.labels(phase).observe(seconds)


class SizeCollector(Collector):
    """Sizes, read when they are scraped.

    Parameters
    ----------
    candidates
        Cached candidates by campaign.
    memory
        Bytes of each cache, by name.
    gpu
        Bytes of GPU memory in use, by device; empty without a GPU.
    gpu_total
        Bytes of GPU memory there are, by device; empty without a GPU.
    waiting
        Trainings that wait for their turn.
    running
        Trainings that have begun.
    """

    def __init__(
        self,
        *,
        candidates: Callable[[], Mapping[str, int]],
        memory: Callable[[], Mapping[str, int]],
        gpu: Callable[[], Mapping[str, int]],
        gpu_total: Callable[[], Mapping[str, int]],
        waiting: Callable[[], int],
        running: Callable[[], int],
    ) -> None:
        self._waiting = waiting
        self._running = running
        self._gauges = (
            ("sealpool_learner_cached_candidates", "Candidates held in memory.", "campaign", candidates),
            ("sealpool_learner_cache_bytes", "Memory of the caches of vectors.", "cache", memory),
            ("sealpool_learner_gpu_memory_bytes", "GPU memory that torch holds.", "device", gpu),
            ("sealpool_learner_gpu_memory_total_bytes", "GPU memory there is.", "device", gpu_total),
        )

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Read every size now."""
        for name, text, label, read in self._gauges:
            family = GaugeMetricFamily(name, text, labels=[label])
            for value, number in read().items():
                family.add_metric([value], number)
            yield family
        yield GaugeMetricFamily(
            "sealpool_learner_waiting_trainings", "Trainings that wait for their turn.", value=self._waiting()
        )
        yield GaugeMetricFamily(
            "sealpool_learner_running_trainings",
            "Trainings that have begun. With those that wait: how many learners there is work for.",
            value=self._running(),
        )
