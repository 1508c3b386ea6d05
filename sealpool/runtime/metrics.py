"""Metrics of the calls themselves, the same in every service. What a service adds stands in its own metrics.py."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

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
