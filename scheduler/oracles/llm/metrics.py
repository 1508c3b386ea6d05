"""What is exported of language models."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session

from scheduler.domain.llm_spec import ORACLE, annotator_of
from scheduler.domain.spec import oracle_of
from scheduler.storage import campaigns, llm_answers, standing
from scheduler.storage.store import Store
from sealpool.errors import Unavailable

_PREFIX = "sealpool_scheduler_llm"


class LlmMetrics:
    """Counters of requests, by endpoint. They belong to no registry until `register`."""

    def __init__(self) -> None:
        self.requests = Counter(
            f"{_PREFIX}_requests",
            "Requests to a language model, by outcome: answered, limited, server_error, timeout, connection, garbage, "
            "refused, error.",
            ["endpoint", "outcome"],
            registry=None,
        )
        self.retries = Counter(f"{_PREFIX}_retries", "Requests sent again.", ["endpoint"], registry=None)
        self.tokens = Counter(
            f"{_PREFIX}_tokens", "Tokens of questions (in) and answers (out).", ["endpoint", "direction"], registry=None
        )
        self.cost = Counter(
            f"{_PREFIX}_cost", "Money, in the unit of the endpoint's prices.", ["endpoint"], registry=None
        )
        self.in_flight = Gauge(f"{_PREFIX}_in_flight_requests", "Requests under way.", ["endpoint"], registry=None)

    def register(self, registry: CollectorRegistry, store: Store) -> None:
        """Export everything, and of each campaign its error rate as the audit has it and its costs."""
        for metric in vars(self).values():
            registry.register(metric)
        registry.register(ErrorRates(store))


class ErrorRates(Collector):
    """How often people corrected a language model, and what it cost, a campaign."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return the families without samples, so that registering asks nothing of the database."""
        return self._families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read the samples; none while the database is away."""
        families = self._families()
        try:
            with self._store.reading() as session:
                self._fill(session, *families)
        except Unavailable:
            return
        yield from families

    @staticmethod
    def _fill(
        session: Session,
        rate: GaugeMetricFamily,
        audited: GaugeMetricFamily,
        spent: GaugeMetricFamily,
        budget: GaugeMetricFamily,
    ) -> None:
        specs = {row: campaigns.spec_of(row) for row in campaigns.all_by_name(session, include_archived=False)}
        asked = {row: spec.oracle.llm for row, spec in specs.items() if oracle_of(spec) == ORACLE}
        ledgers = standing.ledgers(session, [row.id for row in asked])
        for row, llm in asked.items():
            looked_at, errors = llm_answers.audit(session, row.id, annotator=annotator_of(llm))
            audited.add_metric([row.name], looked_at)
            if looked_at:
                rate.add_metric([row.name], errors / looked_at)
            ledger = ledgers.get(row.id, standing.Ledger(tokens=0, cost=0.0))
            for unit, used, most in (("tokens", ledger.tokens, llm.max_tokens), ("money", ledger.cost, llm.max_cost)):
                spent.add_metric([row.name, unit], used)
                if most:
                    budget.add_metric([row.name, unit], most)

    @staticmethod
    def _families() -> list[GaugeMetricFamily]:
        return [
            GaugeMetricFamily(
                f"{_PREFIX}_error_rate_ratio",
                "Share of the audited items that people label otherwise than the language model.",
                labels=["campaign"],
            ),
            GaugeMetricFamily(
                f"{_PREFIX}_audited_items", "Items that people labelled beside the model.", labels=["campaign"]
            ),
            GaugeMetricFamily(
                f"{_PREFIX}_spent",
                "What a campaign's language models used so far: tokens, and money in the unit of the prices.",
                labels=["campaign", "unit"],
            ),
            GaugeMetricFamily(
                f"{_PREFIX}_budget",
                "What they may use (max_tokens, max_cost), where the campaign says; then it is paused.",
                labels=["campaign", "unit"],
            ),
        ]
