"""What the scheduler exports beside the calls' own metrics. Read from the database at each scrape."""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from scheduler.agreeing import LATEST, RecentAgreement
from scheduler.domain.spec import DEFAULT_POLICY
from scheduler.domain.states import ENDED, RoundState
from scheduler.domain.strategy_spec import strategy_of
from scheduler.storage import campaigns, rounds, standing, streams, tasks
from scheduler.storage.models import Campaign, Round, Stream
from scheduler.storage.store import Store
from scheduler.streams.state import StreamState
from sealpool.errors import Unavailable
from sealpool.v1 import common_pb2, scheduler_pb2

_PREFIX = "sealpool_scheduler"
_MEASURES = ("accuracy", "macro_f1", "micro_f1", "macro_roc_auc", "mean_average_precision")
_PHASES = ("expand", "train", "score", "evaluate", "total")

MAX_CLASSES = 50
"""Classes of a campaign whose items are counted. Each is a time series, and a campaign may have 10,000."""


class LeaseMetrics:
    """What is counted of leases as it happens. It belongs to no registry until `register`."""

    def __init__(self) -> None:
        self.expired = Counter(
            f"{_PREFIX}_leases_expired",
            "Leases that ran out, counted when this process leases the task anew; expired_leases has those that nobody "
            "took since.",
            ["campaign"],
            registry=None,
        )

    def count_expired(self, campaign: str, number: int) -> None:
        """Count leases that ran out."""
        self.expired.labels(campaign).inc(number)

    def register(self, registry: CollectorRegistry) -> None:
        """Export it."""
        registry.register(self.expired)


class CampaignCollector(Collector):
    """Who leads, and the numbers of every campaign that is not archived.

    Parameters
    ----------
    leads
        Whether this scheduler runs rounds.
    """

    def __init__(self, store: Store, *, leads: Callable[[], bool] = lambda: True) -> None:
        self._store = store
        self._leads = leads
        self._agreement = RecentAgreement()
        # Scrapes may come side by side.
        self._guard = threading.Lock()

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return the families without samples, so that registering asks nothing of the database."""
        return _Families().all()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read the samples; none but the first while the database is away."""
        families = _Families()
        families.is_leader.add_metric([], float(self._leads()))
        try:
            with self._guard:
                self._fill(families)
        except Unavailable:
            yield families.is_leader
            return
        yield from families.all()

    def _fill(self, families: "_Families") -> None:
        with self._store.reading() as session:
            rows = campaigns.all_by_name(session, include_archived=False)
            ids = [row.id for row in rows]
            counts = tasks.counts(session, ids, now=self._store.clock.now())
            last = rounds.last_of_each(session, ids)
            stream = streams.of_each(session, ids)
            waiting = standing.waiting_labels(session, ids)
            since = standing.oldest_open_since(session, ids)
            expired = standing.expired_leases(session, ids, now=self._store.clock.now())
            agreement = self._agreement.of_each(session, rows)
        for row in rows:
            families.add_campaign(row)
            families.waiting_labels.add_metric([row.name], waiting[row.id])
            families.expired_leases.add_metric([row.name], expired[row.id])
            if row.id in since:
                families.oldest_open.add_metric([row.name], since[row.id].timestamp())
            if not math.isnan(agreement.get(row.id, math.nan)):
                families.agreement.add_metric([row.name], agreement[row.id])
            families.tasks.add_metric([row.name, "open"], counts[row.id].open)
            families.tasks.add_metric([row.name, "leased"], counts[row.id].leased)
            if row.id in last:
                families.add_round(row.name, last[row.id])
                families.add_classes(row.name, campaigns.spec_of(row).classes, last[row.id].class_counts)
            if row.id in stream:
                families.add_stream(row.name, stream[row.id])


class _Families:
    """Every metric, once a scrape."""

    def __init__(self) -> None:
        self.is_leader = GaugeMetricFamily(
            f"{_PREFIX}_is_leader", "1 if this scheduler runs rounds, timers and housekeeping; 0 if another does."
        )
        self.info = _gauge("campaign_info", "1; what the campaign is.", "pool", "policy", "strategy")
        self.state = _gauge("campaign_state", "1 for the state that it is in: active, paused, completed.", "state")
        self.labels = _gauge("labels", "Items labelled.")
        self.budget = _gauge("budget_labels", "Items that the campaign may label in all.")
        self.waiting_labels = _gauge(
            "waiting_labels", "Items labelled, or labelled anew, since the latest round that trained a model began."
        )
        self.tasks = _gauge("tasks", "Tasks that are not labelled, by state: open or leased.", "state")
        self.rule_labels = _gauge(
            "rule_labels", "Labels after which a round begins by itself (rule.after_labels), where the campaign says."
        )
        self.oldest_open = _gauge(
            "oldest_open_task_timestamp_seconds",
            "When the round began whose tasks are the oldest that are open or leased; absent without such.",
        )
        self.expired_leases = _gauge("expired_leases", "Open tasks whose lease ran out and that nobody took since.")
        self.agreement = _gauge(
            "annotator_agreement_ratio",
            f"Krippendorff's alpha over the latest {LATEST:,} annotations, where several people are asked of an item.",
        )
        self.round_number = _gauge("round_number", "Number of the latest round.")
        self.round_began = _gauge("latest_round_timestamp_seconds", "When the latest round began, running or ended.")
        self.round_runs = _gauge(
            "running_round_started_timestamp_seconds",
            "When the round began that runs; its own oracle's labelling is part of it. Absent while none runs.",
        )
        self.round_failed = _gauge("latest_round_failed", "1 if the latest round failed.")
        self.phase_seconds = _gauge("phase_seconds", "Seconds of the latest round, by phase.", "phase")
        self.quality = _gauge("model_quality_ratio", "Quality on held-out items in the latest round.", "measure")
        self.candidates = _gauge("candidate_pool_items", "Candidates after the latest round.")
        self.cap = _gauge("candidate_pool_cap_items", "Candidates the campaign's policy keeps at most, where it says.")
        self.share = _gauge("candidate_pool_share_ratio", "Candidates / items of the pool.")
        self.added = _gauge("candidates_added", "Candidates that the latest round added.")
        self.stream_seen = _gauge("stream_seen_items", "Items of the stream that were decided of.")
        self.stream_asked = _gauge("stream_asked_items", "Of these: sent to the oracle.")
        self.stream_share = _gauge("stream_asked_ratio", "Share of the recent past that was sent to the oracle.")
        self.stream_threshold = _gauge("stream_threshold_ratio", "Uncertainty above which the oracle is asked.")
        self.stream_uncertainty = _gauge("stream_uncertainty_ratio", "Mean uncertainty of the last 1,000 items.")
        self.stream_drifts = _gauge("stream_drifts", "Changes of the mean uncertainty that were found.")
        self.evaluation_labels = _gauge("evaluation_labels", "Items of the pool labelled for evaluation.")
        self.class_items = _gauge(
            "class_items", f"Labelled items with each of the first {MAX_CLASSES} classes, at the latest round.", "class"
        )
        self.uncertainty = _gauge(
            "survey_uncertainty_ratio",
            "Mean uncertainty on the stop set in the latest round, as a share of the largest.",
        )
        self.kappa = _gauge(
            "survey_kappa_ratio", "Agreement with the model before on the stop set, in the latest round."
        )
        self.recommends_stop = _gauge("survey_recommends_stop", "1 where the latest round's survey recommends to stop.")
        self.tested = _gauge("active_test_accuracy_ratio", "Accuracy estimated from test points in the latest round.")

    def all(self) -> list[GaugeMetricFamily]:
        return list(vars(self).values())

    def add_campaign(self, row: Campaign) -> None:
        spec = campaigns.spec_of(row)
        policy = spec.policy.name or DEFAULT_POLICY
        self.info.add_metric([row.name, spec.pool, policy, strategy_of(spec).name], 1)
        self.state.add_metric([row.name, row.state], 1)
        self.labels.add_metric([row.name], row.labelled)
        self.budget.add_metric([row.name], spec.budget)
        self.evaluation_labels.add_metric([row.name], row.evaluation_labelled)
        if spec.rule.after_labels:
            self.rule_labels.add_metric([row.name], spec.rule.after_labels)
        if spec.policy.max_candidates:
            self.cap.add_metric([row.name], spec.policy.max_candidates)

    def add_stream(self, campaign: str, row: Stream) -> None:
        state = StreamState.stored_in(row)
        self.stream_seen.add_metric([campaign], state.seen)
        self.stream_asked.add_metric([campaign], state.asked)
        self.stream_share.add_metric([campaign], state.standing.share)
        self.stream_threshold.add_metric([campaign], state.standing.threshold)
        self.stream_uncertainty.add_metric([campaign], state.mean_uncertainty)
        self.stream_drifts.add_metric([campaign], state.drift.drifts)

    def add_round(self, campaign: str, last: Round) -> None:
        self.round_number.add_metric([campaign], last.number)
        self.round_began.add_metric([campaign], last.started_at.timestamp())
        if last.state not in ENDED:
            self.round_runs.add_metric([campaign], last.started_at.timestamp())
        self.round_failed.add_metric([campaign], last.state == RoundState.FAILED)
        seconds = scheduler_pb2.PhaseSeconds.FromString(last.seconds)
        for phase in _PHASES:
            self.phase_seconds.add_metric([campaign, phase], getattr(seconds, phase))
        if last.quality is not None:
            quality = common_pb2.Quality.FromString(last.quality)
            for measure in _MEASURES:
                value: float = getattr(quality, measure)
                if not math.isnan(value):
                    self.quality.add_metric([campaign, measure], value)
        self._add_survey(campaign, last)
        if last.active_test is not None:
            tested = scheduler_pb2.ActiveTest.FromString(last.active_test)
            self.tested.add_metric([campaign], tested.accuracy)
        if last.candidates is not None:
            candidates = common_pb2.CandidatePoolInfo.FromString(last.candidates)
            self.candidates.add_metric([campaign], candidates.size)
            self.share.add_metric([campaign], candidates.pool_share)
            self.added.add_metric([campaign], candidates.added)

    def add_classes(self, campaign: str, classes: Sequence[str], counts: Sequence[int]) -> None:
        # Zip stops at the shorter one: a round of an earlier version has no counts.
        for name, count in zip(classes[:MAX_CLASSES], counts, strict=False):
            self.class_items.add_metric([campaign, name], count)

    def _add_survey(self, campaign: str, last: Round) -> None:
        if last.survey is None:
            return
        survey = scheduler_pb2.Survey.FromString(last.survey)
        for family, value in ((self.uncertainty, survey.mean_uncertainty), (self.kappa, survey.kappa)):
            if not math.isnan(value):
                family.add_metric([campaign], value)
        self.recommends_stop.add_metric([campaign], survey.recommends_stop)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", text, labels=["campaign", *labels])


def register_metrics(registry: CollectorRegistry, store: Store, *, leads: Callable[[], bool]) -> None:
    """Export who leads, and the numbers of all campaigns."""
    registry.register(CampaignCollector(store, leads=leads))
