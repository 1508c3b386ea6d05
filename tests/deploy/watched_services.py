"""The three services with tokens, a language model beside them, and a Prometheus that scrapes them."""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from sealpool.client import ClientOptions, IndexClient, LearnerClient, SchedulerClient, StreamClient
from sealpool.runtime.tokens import Role, edited, make_token
from tests.deploy.prometheus_server import PrometheusServer, Target, prometheus_program
from tests.support.language_model import KEY, LanguageModelServer, says
from tests.support.processes import ServiceProcess

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules"
JOBS = {"index_server": "index-server", "learner": "learner", "scheduler": "scheduler"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """Services that are scraped, and their clients."""

    prometheus: PrometheusServer
    index: IndexClient
    learner: LearnerClient
    scheduler: SchedulerClient
    stream: StreamClient
    model: LanguageModelServer
    services: Mapping[str, ServiceProcess]
    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What Prometheus has of a run, from `fresh_at` (nothing was done yet) to `ended_at`, in Unix seconds."""

    prometheus: PrometheusServer
    fresh_at: float
    ended_at: float


@contextmanager
def watched_services(folder: Path) -> Iterator[Watched]:
    """Yield services that are scraped, and stop them."""
    program = prometheus_program()
    services = _services(folder, token := _write_tokens(folder))
    with ExitStack() as stack:
        model = stack.enter_context(LanguageModelServer(_answer))
        _write_endpoints(folder, model)
        for service in services.values():
            stack.callback(service.kill)
        with ThreadPoolExecutor(len(services)) as starters:
            list(starters.map(ServiceProcess.start, services.values()))
        prometheus = PrometheusServer(
            program, folder, _targets(services), sorted(RULES.glob("*.yaml")) if RULES.is_dir() else ()
        )
        stack.enter_context(prometheus)
        options = ClientOptions(token=token, long_timeout_s=60)
        at = services["scheduler"].address
        yield Watched(
            prometheus=prometheus,
            index=stack.enter_context(IndexClient(services["index_server"].address, options=options)),
            learner=stack.enter_context(LearnerClient(services["learner"].address, options=options)),
            scheduler=stack.enter_context(SchedulerClient(at, options=options)),
            stream=stack.enter_context(StreamClient(at, options=options)),
            model=model,
            services=services,
            token=token,
        )


def scraped_once(watched: Watched) -> float:
    """Wait until every service was scraped; return the time."""
    for module in JOBS:
        watched.prometheus.wait_for(f"sealpool_{module}_build_info")
    return time.time()


def _services(folder: Path, token: str) -> Mapping[str, ServiceProcess]:
    """Return the services, those that others call first."""
    gate = ("--tokens-file", str(folder / "tokens.json"), "--log-level", "warning", "--max-calls-per-client", "16")
    (folder / "token").write_text(token)
    caller = (*gate, "--services-token-file", str(folder / "token"))
    # A developer's full disk is not what is watched here.
    room = ("--memory-limit-bytes", str(8 << 30), "--disk-throttle-share", "0.999", "--disk-refuse-share", "0.9999")
    index = ServiceProcess("index_server", folder, *gate, *room)
    learner = ServiceProcess("learner", folder, *caller, "--index-server", index.address, "--device", "cpu")
    behind = ("--index-server", index.address, "--learner", learner.address)
    endpoints = ("--llm-endpoints", str(folder / "endpoints.yaml"))
    scheduler = ServiceProcess("scheduler", folder, *caller, *behind, *endpoints)
    return {service.module: service for service in (index, learner, scheduler)}


def _write_tokens(folder: Path) -> str:
    text, token = make_token("operator", role=Role.ADMIN, pools=["*"], created=datetime.now(UTC))
    with edited(folder / "tokens.json") as replace:
        replace([token])
    return text


def _write_endpoints(folder: Path, model: LanguageModelServer) -> None:
    (folder / "key").write_text(KEY)
    endpoint = {"base_url": model.url, "api_key_file": "key", "price_in": 400, "price_out": 1600}
    (folder / "endpoints.yaml").write_text(yaml.safe_dump({"default": endpoint}))


def _targets(services: Mapping[str, ServiceProcess]) -> list[Target]:
    return [
        Target(
            job=job,
            address=services[module].metrics_address,
            labels={"namespace": "sealpool", "pod": f"{job}-0", "service": job},
        )
        for module, job in JOBS.items()
    ]


def _answer(body: Mapping[str, Any]) -> str:
    """Say the class that the question's last report names, as a model that reads would; see the reports' texts."""
    asked = next(message for message in body["messages"] if message["role"] == "user")
    return says(str(asked["content"]).rpartition("report of ")[2].split()[0])
