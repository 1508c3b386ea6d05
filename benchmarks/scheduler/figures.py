"""The figures, by name."""

import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.report import Figure, Target, at_least, at_most
from benchmarks.scheduler.workbench import CLASSES, FIELD, Load, Running, Workbench, people_spec, postgresql
from benchmarks.statistics import median, quantile
from sealpool.v1 import common_pb2, scheduler_pb2

CLIENTS: Final = 50
_TASKS: Final = 50_000
_TARGETS: Final = {"PostgreSQL": at_least(2000), "SQLite": at_least(1000)}
_A_CALL: Final = (1, 10)
_EVERY_S: Final = 20.0
"""Between two tasks of an annotator: a short text takes so long to read and judge."""
_POSITIVES, _NEGATIVES, _BATCH, _K = 5, 95, 20, 50


def labels(bench: Workbench, figure: Figure) -> None:
    """Measure how many labels a second 50 clients hand in, each acknowledged when it is on disk."""
    for database, target in _TARGETS.items():
        with _over(bench, database) as running:
            for a_call in _A_CALL:
                name = f"labels-{a_call}"
                _hand_out(running, name, tasks=min(_TASKS, bench.options.items))
                done = bench.load(running, name, "submit", clients=CLIENTS, a_call=a_call)
                words = "one label" if a_call == 1 else f"{a_call} labels"
                figure.add(f"{database}, {words} a call", round(done.done / done.elapsed_s), "labels/s", target)
                _add_latencies(figure, f"{database}, {words} a call", done)


def leases(bench: Workbench, figure: Figure) -> None:
    """Measure how long very many annotators wait for a task: one every 20 s each, and all in the same moment."""
    for database in _TARGETS:
        with _over(bench, database, "--max-concurrent-calls", "2048") as running:
            _hand_out(running, "leases", tasks=min(_TASKS, bench.options.items))
            many = bench.options.annotators
            words = f"{database}, {many:,} annotators, one task every {_EVERY_S:g} s each"
            done = bench.load(running, "leases", "lease", clients=many, a_call=1, every_s=_EVERY_S)
            _add_latencies(figure, words, done, target=at_most(0.2))
            done = bench.load(running, "leases", "lease", clients=many, a_call=1)
            _add_latencies(figure, f"{database}, {many:,} annotators, all at once", done)


def rounds(bench: Workbench, figure: Figure) -> None:
    """Measure what a round costs beside training, expanding and scoring."""
    with bench.running() as running:
        spec = _concept("rounds", 0, budget=_POSITIVES + _NEGATIVES + 12 * _BATCH)
        running.scheduler.create_campaign(spec)
        _seed(bench, running, spec, 0)
        for _ in range(10):
            running.scheduler.run_round("rounds")
        ran = running.scheduler.list_rounds("rounds")
    parts = [one.seconds for one in ran[2:]]  # the first ones load what later ones have
    rest = [s.total - s.train - s.expand - s.score - s.evaluate for s in parts]
    figure.add("outside train, expand and score, median", 1000 * median(rest), "ms", at_most(50))
    figure.add("outside train, expand and score, most", 1000 * max(rest), "ms")
    figure.add("a whole round, median", 1000 * median([s.total for s in parts]), "ms")


def concepts(bench: Workbench, figure: Figure) -> None:
    """Run hundreds of concept campaigns at once on one pool to their ends."""
    options = bench.options
    budget = _POSITIVES + _NEGATIVES + options.rounds * _BATCH
    specs = [_concept(f"concept-{number}", number, budget=budget) for number in range(options.campaigns)]
    with bench.running("--round-threads", "8") as running, ThreadPoolExecutor(8) as threads:
        started = time.perf_counter()
        list(threads.map(lambda pair: _begin(bench, running, pair[1], pair[0]), enumerate(specs)))
        begun_s = time.perf_counter() - started
        ends = _wait_for_all(running, specs, started)
        elapsed = max(ends)
        ran = [one for spec in specs for one in running.scheduler.list_rounds(spec.name)]
        merged = _merged(running)
        shares = [_last_share(running, spec.name) for spec in specs]
    finished = sum(one.state == scheduler_pb2.ROUND_STATE_FINISHED for one in ran)
    figure.add("campaigns completed", sum(end > 0 for end in ends), "", at_least(options.campaigns))
    figure.add("rounds finished", finished)
    figure.add("creating them and handing in their seeds", begun_s, "s")
    figure.add("until the last was complete", elapsed, "s")
    figure.add("rounds a second", finished / elapsed)
    figure.add("longest time from round to round of a campaign / all", _longest_gap(ran) / elapsed)
    figure.add("first campaign complete / last", min(ends) / elapsed)
    figure.add("searches that the index did in one call, mean", merged)
    figure.add("candidate share of the pool at the end, median", median(shares))


FIGURES: Final[Mapping[str, Callable[[Workbench, Figure], None]]] = {
    "labels": labels,
    "leases": leases,
    "rounds": rounds,
    "concepts": concepts,
}


@contextmanager
def _over(bench: Workbench, database: str, *flags: str) -> Iterator[Running]:
    with ExitStack() as opened:
        if database == "PostgreSQL":
            flags = (*flags, "--database-url", opened.enter_context(postgresql()))
        yield opened.enter_context(bench.running(*flags))


def _hand_out(running: Running, name: str, *, tasks: int) -> None:
    running.scheduler.create_campaign(people_spec(name, tasks=tasks))
    running.scheduler.run_round(name)


def _add_latencies(figure: Figure, words: str, done: Load, *, target: Target | None = None) -> None:
    figure.add(f"{words}: p50", 1000 * median(done.latencies), "ms")
    bound = None if target is None else at_most(1000 * target.bound)
    figure.add(f"{words}: p99", 1000 * quantile(done.latencies, 0.99), "ms", bound)


def _concept(name: str, number: int, *, budget: int) -> scheduler_pb2.CampaignSpec:
    cluster = f"c{number % CLASSES}"
    return scheduler_pb2.CampaignSpec(
        name=name,
        pool="pool",
        task=common_pb2.TASK_KIND_BINARY,
        classes=["other", cluster],
        batch_size=_BATCH,
        budget=budget,
        seed=number,
        policy=common_pb2.PolicySpec(k=_K),
        expand_from_classes=[cluster],
        rule=scheduler_pb2.RoundRule(after_labels=1),
        oracle=scheduler_pb2.OracleSpec(name="dataset", metadata_field=FIELD, other_class="other"),
    )


def _begin(bench: Workbench, running: Running, spec: scheduler_pb2.CampaignSpec, number: int) -> None:
    running.scheduler.create_campaign(spec)
    _seed(bench, running, spec, number)


def _seed(bench: Workbench, running: Running, spec: scheduler_pb2.CampaignSpec, number: int) -> None:
    """Hand in what the paper begins with: 5 positives and 95 random negatives."""
    cluster = number % CLASSES
    positives = [cluster + CLASSES * step for step in range(_POSITIVES)]
    others = [item for item in range(number, bench.options.items, 101) if item % CLASSES != cluster][:_NEGATIVES]
    labels = {f"item-{item:06d}": [spec.classes[int(item % CLASSES == cluster)]] for item in [*positives, *others]}
    running.scheduler.submit_labels(spec.name, labels, annotator="seed")


def _wait_for_all(running: Running, specs: list[scheduler_pb2.CampaignSpec], started: float) -> list[float]:
    """Return when each campaign was complete, in seconds since `started`; looked at once a second."""
    ends = dict.fromkeys((spec.name for spec in specs), 0.0)
    while not all(ends.values()):
        time.sleep(1.0)
        for campaign in running.scheduler.list_campaigns():
            name = campaign.spec.name
            if campaign.state == scheduler_pb2.CAMPAIGN_STATE_COMPLETED and not ends.get(name, 1.0):
                ends[name] = time.perf_counter() - started
    return list(ends.values())


def _longest_gap(ran: list[scheduler_pb2.Round]) -> float:
    """Return the longest time from the end of a campaign's round to the end of its next."""
    pairs = [(one, after) for one, after in pairwise(ran) if after.number == one.number + 1]
    return max(
        after.finished_at.ToDatetime().timestamp() - one.finished_at.ToDatetime().timestamp() for one, after in pairs
    )


def _last_share(running: Running, name: str) -> float:
    shares = [one.candidates.pool_share for one in running.scheduler.list_rounds(name) if one.candidates.version]
    return shares[-1] if shares else 0.0


def _merged(running: Running) -> float:
    with urllib.request.urlopen(running.index_metrics, timeout=30) as page:  # noqa: S310 - our own server's
        families = {one.name: one for one in text_string_to_metric_families(page.read().decode())}
    samples = families["sealpool_index_server_merged_searches"].samples
    totals = {kind: sum(s.value for s in samples if s.name.endswith(kind)) for kind in ("_sum", "_count")}
    return totals["_sum"] / totals["_count"] if totals["_count"] else 0.0
