"""Write docs/settings.md, docs/metrics.md and the tables of docs/strategies.md from the code, or compare (--check)."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from pydantic.fields import FieldInfo

from index_server.catalog import PoolCatalog
from index_server.metrics import FillCollector, PoolCollector, SearchMetrics
from index_server.settings import IndexServerSettings
from index_server.store.watermarks import Watermarks
from learner.metrics import LearnerMetrics, SizeCollector
from learner.settings import LearnerSettings
from scheduler.metrics import CampaignCollector, LeaseMetrics
from scheduler.oracles.llm.metrics import ErrorRates, LlmMetrics
from scheduler.settings import SchedulerSettings
from scheduler.storage.store import Store
from sealpool.cli.vocabulary import model_options, needs_words, tasks_words
from sealpool.runtime.metrics import CallMetrics, ProcessMetrics
from sealpool.runtime.settings import ServiceSettings
from sealpool.vocabulary.models import ESTIMATORS, MODELS
from sealpool.vocabulary.strategies import STRATEGIES, Family, StrategyEntry

DOCS = Path(__file__).parent
NOTE = "<!-- Written by `make docs` from the code; not edited by hand. -->\n"

SERVICES: dict[str, type[ServiceSettings]] = {
    "index_server": IndexServerSettings,
    "learner": LearnerSettings,
    "scheduler": SchedulerSettings,
}


def settings_page() -> str:
    """Return the page of all settings."""
    parts = [
        f"# Settings\n\n{NOTE}",
        "A flag (`--max-k`) wins over the environment (`SEALPOOL_INDEX_SERVER_MAX_K`), which wins over a YAML file\n"
        "named by `--config` (`max_k: 4096`), which wins over the default. A value out of range, an unknown flag or\n"
        "an unknown line of the file stops the start with a line that names it; an unknown variable is nobody's.\n",
        "## Every service\n\n" + "".join(_settings_table(ServiceSettings, shared=True)),
    ]
    for service, cls in SERVICES.items():
        prefix = f"Environment: `{cls.model_config['env_prefix']}…`."
        parts.append(f"## {service}\n\n{cls.__doc__}\n{prefix}\n\n" + "".join(_settings_table(cls, shared=False)))
    return "\n".join(parts)


def _settings_table(cls: type[ServiceSettings], *, shared: bool) -> Iterator[str]:
    yield "| setting | default | what it trades, and how to choose |\n|---|---|---|\n"
    for name, field in cls.model_fields.items():
        if shared or name not in ServiceSettings.model_fields or _default(field) != _default_of_all(name):
            yield f"| `{name}` | {_default(field)} | {_one_line(field.description or '')} |\n"


def _default_of_all(name: str) -> str:
    return _default(ServiceSettings.model_fields[name])


def _default(field: FieldInfo) -> str:
    if field.default is None or str(field.default) == "":
        return "–"
    return f"{field.default:,}" if isinstance(field.default, int) and field.default > 9999 else f"`{field.default}`"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


_PROCESS = """\
Beside what is listed here each exports `process_*` of its own process, as Prometheus' clients do:
`process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_virtual_memory_bytes`,
`process_start_time_seconds`, `process_open_fds` and `process_max_fds`.

What the scheduler exports of campaigns is read from its database: two schedulers say the same, so take
`max by (campaign)`, not a sum. Counters (`_total`) are of one process and begin anew with it.
"""


def metrics_page() -> str:
    """Return the page of all metrics."""
    tables = (f"## {service}\n\n" + "".join(_metrics_table(service)) for service in SERVICES)
    return "\n".join(
        [f"# Metrics\n\n{NOTE}", f"Each service answers `GET /metrics` on its `metrics_listen`.\n{_PROCESS}", *tables]
    )


def _metrics_table(service: str) -> Iterator[str]:
    yield "| metric | type | labels | meaning |\n|---|---|---|---|\n"
    registry = CollectorRegistry()
    instruments: list[object] = [ProcessMetrics(service, registry), CallMetrics(service, registry)]
    own: list[Metric] = []
    # Only described, never collected: what a collector reads from may be missing.
    if service == "index_server":
        instruments.append(SearchMetrics(registry))
        pools = PoolCollector(PoolCatalog.__new__(PoolCatalog), max_candidates=0)
        own = [*pools.describe(), *FillCollector(Watermarks.__new__(Watermarks)).describe()]
    elif service == "learner":
        instruments.append(LearnerMetrics(registry))
        sizes = SizeCollector(candidates=dict, memory=dict, gpu=dict, gpu_total=dict, waiting=int, running=int)
        own = list(sizes.collect())
    else:
        instruments += [LeaseMetrics(), LlmMetrics()]
        store = Store.__new__(Store)
        own = [*CampaignCollector(store).describe(), *ErrorRates(store).describe()]
    shared = [family for instrument in instruments for family in _families(instrument)]
    for name, kind, labels, text in [*shared, *((m.name, m.type, _labels(m), m.documentation) for m in own)]:
        scraped = f"{name}_total" if kind == "counter" else name
        yield f"| `{scraped}` | {kind} | {', '.join(f'`{label}`' for label in labels) or '–'} | {_one_line(text)} |\n"


def _families(instrument: object) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    for metric in vars(instrument).values():
        described = metric.describe()[0]
        labels = metric._labelnames  # noqa: SLF001 - nothing public tells them
        yield described.name, described.type, labels, described.documentation


def _labels(family: Metric) -> tuple[str, ...]:
    return tuple(family._labelnames)  # type: ignore[attr-defined]  # noqa: SLF001


def strategies_page() -> str:
    """Return docs/strategies.md as it is, with its tables made anew.

    Raises
    ------
    ValueError
        The page lacks the marks around a table.
    """
    page = (DOCS / "strategies.md").read_text()
    tables = {"strategies": _strategies_tables(), "models": _models_table(), "estimators": _estimators_table()}
    for name, lines in tables.items():
        begin, end = f"<!-- {name}: written by `make docs` -->\n", f"<!-- {name}: end -->"
        before, begun, rest = page.partition(begin)
        _, ended, after = rest.partition(end)
        if not (begun and ended):
            raise ValueError(f"docs/strategies.md lacks {begin.strip()} or {end}")
        page = "".join((before, begin, "\n", *lines, "\n", end, after))
    return page


def _strategies_tables() -> Iterator[str]:
    for number, family in enumerate(Family):
        yield ("\n" if number else "") + f"### {family.value[0].upper()}{family.value[1:]}\n\n"
        yield "| strategy | picks | needs | options | cost | reference | also called |\n|---|---|---|---|---|---|---|\n"
        for one in STRATEGIES.values():
            if one.family is family:
                cells = (one.summary, _needs(one), _names(one.options), one.cost, one.reference, ", ".join(one.aliases))
                yield _row(one.name, *cells)


def _models_table() -> Iterator[str]:
    yield "| model | what it is | reads | options | reference |\n|---|---|---|---|---|\n"
    for one in MODELS.values():
        yield _row(
            one.name,
            one.summary,
            "texts" if one.reads_text else "vectors",
            ", ".join(model_options(one)),
            one.reference,
        )


def _estimators_table() -> Iterator[str]:
    yield "| estimator | what it is | posterior samples | reference |\n|---|---|---|---|\n"
    for one in ESTIMATORS.values():
        yield _row(one.name, one.summary, "yes" if one.draws else "no", one.reference)


def _row(name: str, *cells: str) -> str:
    return f"| `{name}` | {' | '.join(_one_line(cell) or '–' for cell in cells)} |\n"


def _needs(one: StrategyEntry) -> str:
    only = "" if tasks_words(one) == "every task" else f"; {tasks_words(one)}"
    return (", ".join(needs_words(one)) or "nothing") + only


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def main() -> None:
    """Write the pages, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a page is stale")
    check = parser.parse_args().check
    pages = {"settings.md": settings_page(), "metrics.md": metrics_page(), "strategies.md": strategies_page()}
    stale = [name for name, text in pages.items() if not _is_current(DOCS / name, text)]
    if check and stale:
        sys.exit(f"stale pages, run `make docs`: {', '.join(stale)}")
    for name in stale:
        (DOCS / name).write_text(pages[name])


def _is_current(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


if __name__ == "__main__":
    main()
