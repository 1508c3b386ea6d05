"""What the scheduler exports beside the calls' own metrics. Read from the database at each scrape."""

import math
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from scheduler.storage import campaigns, rounds, tasks
from scheduler.storage.models import Round
from scheduler.storage.store import Store
from sealpool.errors import Unavailable
from sealpool.v1 import common_pb2, scheduler_pb2

_PREFIX = "sealpool_scheduler"
_MEASURES = ("accuracy", "macro_f1", "micro_f1", "macro_roc_auc", "mean_average_precision")
_PHASES = ("expand", "train", "score", "evaluate", "total")


class CampaignCollector(Collector):
    """Numbers of every campaign that is not archived."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return the families without samples, so that registering asks nothing of the database."""
        return _Families().all()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read the samples; none while the database is away."""
        families = _Families()
        try:
            self._fill(families)
        except Unavailable:
            return
        yield from families.all()

    def _fill(self, families: "_Families") -> None:
        with self._store.reading() as session:
            rows = campaigns.all_by_name(session, include_archived=False)
            ids = [row.id for row in rows]
            counts = tasks.counts(session, ids, now=self._store.clock.now())
            last = rounds.last_of_each(session, ids)
        for row in rows:
            families.labels.add_metric([row.name], row.labelled)
            families.tasks.add_metric([row.name, "open"], counts[row.id].open)
            families.tasks.add_metric([row.name, "leased"], counts[row.id].leased)
            if row.id in last:
                families.add_round(row.name, last[row.id])


class _Families:
    """Every metric, once a scrape."""

    def __init__(self) -> None:
        self.labels = _gauge("labels", "Items labelled.")
        self.tasks = _gauge("tasks", "Tasks that are not labelled, by state: open or leased.", "state")
        self.round_number = _gauge("round_number", "Number of the latest round.")
        self.phase_seconds = _gauge("phase_seconds", "Seconds of the latest round, by phase.", "phase")
        self.quality = _gauge("model_quality_ratio", "Quality on held-out items in the latest round.", "measure")
        self.candidates = _gauge("candidate_pool_items", "Candidates after the latest round.")
        self.share = _gauge("candidate_pool_share_ratio", "Candidates / items of the pool.")
        self.added = _gauge("candidates_added", "Candidates that the latest round added.")

    def all(self) -> list[GaugeMetricFamily]:
        return list(vars(self).values())

    def add_round(self, campaign: str, last: Round) -> None:
        self.round_number.add_metric([campaign], last.number)
        seconds = scheduler_pb2.PhaseSeconds.FromString(last.seconds)
        for phase in _PHASES:
            self.phase_seconds.add_metric([campaign, phase], getattr(seconds, phase))
        if last.quality is not None:
            quality = common_pb2.Quality.FromString(last.quality)
            for measure in _MEASURES:
                value: float = getattr(quality, measure)
                if not math.isnan(value):
                    self.quality.add_metric([campaign, measure], value)
        if last.candidates is not None:
            candidates = common_pb2.CandidatePoolInfo.FromString(last.candidates)
            self.candidates.add_metric([campaign], candidates.size)
            self.share.add_metric([campaign], candidates.pool_share)
            self.added.add_metric([campaign], candidates.added)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", text, labels=["campaign", *labels])


def register_metrics(registry: CollectorRegistry, store: Store) -> None:
    """Export the numbers of all campaigns."""
    registry.register(CampaignCollector(store))
