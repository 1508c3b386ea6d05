"""Metrics of the index server, read from the pools when Prometheus asks."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from index_server.catalog import PoolCatalog, PoolState
from index_server.pool import Pool
from index_server.spec import Device

_PREFIX = "sealpool_index_server"


class SearchMetrics:
    """How searches were merged: a MergeObserver."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Histogram(
            f"{_PREFIX}_merged_searches",
            "Searches that went to an index in one call.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        )
        self._queries = Histogram(
            f"{_PREFIX}_merged_queries",
            "Queries that went to an index in one call.",
            buckets=(1, 4, 16, 64, 256, 1024, 4096),
            registry=registry,
        )
        self._wait = Histogram(
            f"{_PREFIX}_search_wait_seconds",
            "How long a search waited for the index.",
            buckets=(0.0001, 0.001, 0.005, 0.02, 0.1, 0.5, 2, 10),
            registry=registry,
        )

    def searched(self, requests: int, queries: int) -> None:
        """Count a call of an index."""
        self._requests.observe(requests)
        self._queries.observe(queries)

    def waited(self, seconds: float) -> None:
        """Count the wait of a search."""
        self._wait.observe(seconds)


class PoolCollector(Collector):
    """Sizes and memory of pools and candidate pools."""

    def __init__(self, catalog: PoolCatalog) -> None:
        self._catalog = catalog

    def describe(self) -> Iterator[Metric]:
        """Return no samples: which there are depends on the pools."""
        return iter(_families())

    def collect(self) -> Iterator[Metric]:
        """Count the pools, and read those that are ready."""
        families = _families()
        pools, items, versions, memory, recall, graph, gpu, candidates, shares, reachable, added = families
        device_bytes: Counter[str] = Counter()
        statuses = self._catalog.statuses()
        for state in PoolState:
            pools.add_metric([state.value], sum(status.state is state for status in statuses))
        for pool in (status.pool for status in statuses):
            if pool is None:
                continue
            name, engine = pool.spec.name, pool.index.engine
            items.add_metric([name], pool.size)
            versions.add_metric([name], pool.version)
            memory.add_metric([name], pool.index.memory_bytes)
            recall.add_metric([name, engine.name], pool.index.recall)
            graph.add_metric([name], pool.graph_items)
            device_bytes[engine.device] += engine.memory_bytes
            _add_campaigns(pool, candidates, shares, reachable, added)
        if Device.CUDA in device_bytes:
            # An engine on the GPU has the vectors once there and once in host memory.
            gpu.add_metric(["cuda:0"], device_bytes[Device.CUDA] / 2)
        return iter(families)


def _add_campaigns(
    pool: Pool,
    candidates: GaugeMetricFamily,
    shares: GaugeMetricFamily,
    reachable: GaugeMetricFamily,
    added: CounterMetricFamily,
) -> None:
    for campaign, size in pool.campaign_sizes().items():
        labels = [pool.spec.name, campaign]
        candidates.add_metric(labels, size.candidates)
        shares.add_metric(labels, size.candidates / pool.size if pool.size else 0.0)
        added.add_metric(labels, size.entered)
        if size.reachable_share is not None:
            reachable.add_metric(labels, size.reachable_share)


def _families() -> tuple[
    GaugeMetricFamily,
    GaugeMetricFamily,
    GaugeMetricFamily,
    GaugeMetricFamily,
    GaugeMetricFamily,
    GaugeMetricFamily,
    GaugeMetricFamily,
    GaugeMetricFamily,
    GaugeMetricFamily,
    GaugeMetricFamily,
    CounterMetricFamily,
]:
    def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"{_PREFIX}_{name}", text, labels=labels)

    return (
        gauge("pools", "Pools by state: loading, ready, failed.", "state"),
        gauge("pool_items", "Items of a pool.", "pool"),
        gauge("pool_version", "Version of a pool.", "pool"),
        gauge("index_memory_bytes", "Memory of a pool's index, host and device.", "pool"),
        gauge(
            "index_recall_ratio",
            "Share of the true neighbours (k = 100) that the index found on a sample after it was built; 1 if exact.",
            "pool",
            "engine",
        ),
        gauge("graph_items", "Items whose neighbours are known in the neighbour graph.", "pool"),
        gauge("gpu_memory_bytes", "Memory of the vectors on a GPU.", "device"),
        gauge("candidate_pool_items", "Candidates of a campaign.", "pool", "campaign"),
        gauge("candidate_pool_share_ratio", "Candidates as a share of the pool's items.", "pool", "campaign"),
        gauge(
            "reachable_share_ratio",
            "Share of the pool that a campaign can reach, as GetReachability estimated it last.",
            "pool",
            "campaign",
        ),
        CounterMetricFamily(
            f"{_PREFIX}_candidates_added",
            "Items that became candidates, since the campaign began.",
            labels=("pool", "campaign"),
        ),
    )
