"""Metrics of the index server, read from the pools when Prometheus asks."""

import contextlib
from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from index_server.catalog import PoolCatalog, PoolState
from index_server.pool import Pool
from index_server.spec import Device
from index_server.store.watermarks import Watermarks

_PREFIX = "sealpool_index_server"
_GPU = "cuda:0"


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
    """Sizes and memory of pools and candidate pools.

    Parameters
    ----------
    max_candidates
        Candidates a campaign may have on this server.
    gpu_memory_total_bytes
        Memory of a GPU; 0 without one, or where its driver does not tell.
    """

    def __init__(self, catalog: PoolCatalog, *, max_candidates: int, gpu_memory_total_bytes: int = 0) -> None:
        self._catalog = catalog
        self._max_candidates = max_candidates
        self._gpu_memory_total_bytes = gpu_memory_total_bytes

    def describe(self) -> Iterator[Metric]:
        """Return no samples: which there are depends on the pools."""
        return _PoolFamilies().all()

    def collect(self) -> Iterator[Metric]:
        """Count the pools, and read those that are ready."""
        families = _PoolFamilies()
        device_bytes: Counter[str] = Counter()
        statuses = self._catalog.statuses()
        for state in PoolState:
            families.pools.add_metric([state.value], sum(status.state is state for status in statuses))
        for pool in (status.pool for status in statuses):
            if pool is not None:
                families.add_pool(pool)
                families.add_campaigns(pool, limit=self._max_candidates)
                device_bytes[pool.index.engine.device] += pool.index.engine.memory_bytes
        if Device.CUDA in device_bytes:
            # An engine on the GPU has the vectors once there and once in host memory.
            families.gpu.add_metric([_GPU], device_bytes[Device.CUDA] / 2)
        if self._gpu_memory_total_bytes:
            families.gpu_total.add_metric([_GPU], self._gpu_memory_total_bytes)
        return families.all()


class _PoolFamilies:
    """Every metric of the pools, once a scrape."""

    def __init__(self) -> None:
        self.pools = _gauge("pools", "Pools by state: loading, ready, failed.", "state")
        self.items = _gauge("pool_items", "Items of a pool.", "pool")
        self.versions = _gauge("pool_version", "Version of a pool.", "pool")
        self.memory = _gauge("index_memory_bytes", "Memory of a pool's index, host and device.", "pool")
        self.recall = _gauge(
            "index_recall_ratio",
            "Share of the true neighbours (k = 100) that the index found on a sample after it was built; 1 if exact.",
            "pool",
            "engine",
        )
        self.floor = _gauge("index_recall_floor_ratio", "Recall that the pool asks of its index (min_recall).", "pool")
        self.graph = _gauge("graph_items", "Items whose neighbours are known in the neighbour graph.", "pool")
        self.gpu = _gauge("gpu_memory_bytes", "Memory of the vectors on a GPU.", "device")
        self.gpu_total = _gauge(
            "gpu_memory_total_bytes", "Memory of a GPU, of the smallest if there are more.", "device"
        )
        self.candidates = _gauge("candidate_pool_items", "Candidates of a campaign.", "pool", "campaign")
        self.limit = _gauge(
            "candidate_pool_limit_items",
            "Candidates a campaign may have on this server (setting max_candidates): growth beyond it is refused.",
            "pool",
            "campaign",
        )
        self.shares = _gauge(
            "candidate_pool_share_ratio", "Candidates as a share of the pool's items.", "pool", "campaign"
        )
        self.reachable = _gauge(
            "reachable_share_ratio",
            "Share of the pool that a campaign can reach, as GetReachability estimated it last.",
            "pool",
            "campaign",
        )
        self.added = CounterMetricFamily(
            f"{_PREFIX}_candidates_added",
            "Items that became candidates, since the campaign began.",
            labels=("pool", "campaign"),
        )

    def all(self) -> Iterator[Metric]:
        return iter(vars(self).values())

    def add_pool(self, pool: Pool) -> None:
        name = pool.spec.name
        self.items.add_metric([name], pool.size)
        self.versions.add_metric([name], pool.version)
        self.memory.add_metric([name], pool.index.memory_bytes)
        self.recall.add_metric([name, pool.index.engine.name], pool.index.recall)
        self.floor.add_metric([name], pool.spec.min_recall)
        self.graph.add_metric([name], pool.graph_items)

    def add_campaigns(self, pool: Pool, *, limit: int) -> None:
        for campaign, size in pool.campaign_sizes().items():
            labels = [pool.spec.name, campaign]
            self.candidates.add_metric(labels, size.candidates)
            self.limit.add_metric(labels, limit)
            self.shares.add_metric(labels, size.candidates / pool.size if pool.size else 0.0)
            self.added.add_metric(labels, size.entered)
            if size.reachable_share is not None:
                self.reachable.add_metric(labels, size.reachable_share)


class FillCollector(Collector):
    """How full the disk and the memory are, as the watermarks see them."""

    def __init__(self, watermarks: Watermarks) -> None:
        self._watermarks = watermarks

    def describe(self) -> Iterator[Metric]:
        """Return no samples: whether memory has one depends on its limit."""
        return iter(self._families())

    def collect(self) -> Iterator[Metric]:
        """Look at both; no samples where the disk does not answer, so that the other metrics are scraped."""
        disk, memory = self._families()
        with contextlib.suppress(OSError):
            disk_share, memory_share = self._watermarks.shares
            disk.add_metric([], disk_share)
            if self._watermarks.memory_limit_bytes:
                memory.add_metric([], memory_share)
        return iter((disk, memory))

    @staticmethod
    def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        return (
            _gauge("disk_used_ratio", "Share of the disk with data_dir that is in use; writes are refused by it."),
            _gauge(
                "memory_used_ratio",
                "Share of the memory limit (memory_limit_bytes, or the control group's) in use, pages of files not "
                "counted; absent without a limit. Writes are refused by it.",
            ),
        )


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", text, labels=labels)
