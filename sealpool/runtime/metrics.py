"""Metrics of the process and its calls, the same in every service. What a service adds stands in its metrics.py."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from sealpool.runtime.version import installed_version

_LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class CallMetrics:
    """Requests, latencies and refusals of one service."""

    def __init__(self, service: str, registry: CollectorRegistry) -> None:
        prefix = f"sealpool_{service}"
        self.requests = Counter(
            f"{prefix}_requests",
            "Calls that ended, by method and gRPC status.",
            ["method", "code"],
            registry=registry,
        )
        self.seconds = Histogram(
            f"{prefix}_request_seconds",
            "Time of a call from its first message to its last.",
            ["method"],
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.in_progress = Gauge(f"{prefix}_requests_in_progress", "Calls being served.", ["method"], registry=registry)
        self.refusals = Counter(
            f"{prefix}_refusals",
            "Calls refused before any work.",
            ["reason"],
            registry=registry,
        )


class ProcessMetrics:
    """Which version runs, and process_*: memory, processor time, open files and start of the process."""

    def __init__(self, service: str, registry: CollectorRegistry) -> None:
        self.build_info = Gauge(
            f"sealpool_{service}_build_info", "1; the version that runs.", ["version"], registry=registry
        )
        self.build_info.labels(installed_version()).set(1)
        ProcessCollector(registry=registry)
