"""What the figures share: three services as processes, a pool of clusters, and a PostgreSQL of their own."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.data import to_unit
from benchmarks.machine import ROOT
from sealpool.cli.processes import Services, plan_services
from sealpool.client import ClientOptions, IndexClient, SchedulerClient
from sealpool.types import ItemId, Items, Payload
from sealpool.v1 import common_pb2, index_pb2, scheduler_pb2

DIMENSION: Final = 64
CLASSES: Final = 300
FIELD: Final = "cluster"
CLIENT_OPTIONS: Final = ClientOptions(timeout_s=600.0, long_timeout_s=3600.0)
_PORTS: Final = {"index_server": 0, "learner": 0, "scheduler": 0}
_SPREAD: Final = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How much is measured."""

    items: int
    campaigns: int
    rounds: int
    annotators: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What many clients did: `done` labels or tasks in `elapsed_s`, each call in one of `latencies` seconds."""

    done: int
    elapsed_s: float
    latencies: Sequence[float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """The services while they run."""

    index: IndexClient
    scheduler: SchedulerClient
    address: str
    index_metrics: str


class Workbench:
    """Starts what a figure needs, and loads it."""

    def __init__(self, options: Options) -> None:
        self.options = options

    @contextlib.contextmanager
    def running(self, *scheduler_flags: str) -> Iterator[Running]:
        """Run the three services over an empty folder, with the pool "pool" in the index server."""
        folder = Path(tempfile.mkdtemp(prefix="sealpool-bench-"))
        plans = plan_services(folder, ports=_PORTS, metrics=True, flags=("--log-level", "warning"))
        own = {"scheduler": scheduler_flags}
        plans = [replace(plan, flags=[*plan.flags, *own.get(plan.module, ())]) for plan in plans]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        try:
            with Services(plans, environment=environment) as services:
                services.wait_until_serving()
                with (
                    IndexClient(services.address("index_server"), options=CLIENT_OPTIONS) as index,
                    SchedulerClient(services.address("scheduler"), options=CLIENT_OPTIONS) as scheduler,
                ):
                    self._make_pool(index)
                    yield Running(
                        index=index,
                        scheduler=scheduler,
                        address=services.address("scheduler"),
                        index_metrics=f"http://127.0.0.1:{plans[0].metrics_port}/metrics",
                    )
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def load(
        self, running: Running, campaign: str, what: str, *, clients: int, a_call: int, every_s: float = 0.0
    ) -> Load:
        """Let many clients work at once, from a process of their own."""
        command = [
            *(sys.executable, "-m", "benchmarks.scheduler.load", running.address, campaign, what),
            *("--clients", str(clients), "--a-call", str(a_call), "--seconds", str(self.options.seconds)),
            *("--every", str(every_s)),
        ]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if ran.returncode:
            lines = ran.stderr.strip().splitlines()
            raise OSError(f"the clients failed: {lines[-1] if lines else ran.returncode}")
        answer: dict[str, Any] = json.loads(ran.stdout)
        return Load(**answer)

    def cluster_of(self, item: int) -> int:
        """Return the class of an item by its number."""
        return item % CLASSES

    def _make_pool(self, index: IndexClient) -> None:
        index.create_pool(index_pb2.PoolSpec(name="pool", dimension=DIMENSION, engine="auto"))
        count = self.options.items
        random = np.random.default_rng(0)
        centres = random.standard_normal((CLASSES, DIMENSION), np.float32)
        classes = np.arange(count) % CLASSES
        noise = random.standard_normal((count, DIMENSION), np.float32)
        vectors = to_unit(centres[classes] + np.float32(_SPREAD * 2) * noise)
        ids = [ItemId(f"item-{number:06d}") for number in range(count)]
        payloads = [Payload(metadata={FIELD: f"c{cluster}"}) for cluster in classes]
        index.upsert("pool", Items(ids=ids, vectors=vectors, payloads=payloads))


def people_spec(name: str, *, tasks: int) -> scheduler_pb2.CampaignSpec:
    """Return a campaign whose first round hands out so many tasks to people."""
    return scheduler_pb2.CampaignSpec(
        name=name,
        pool="pool",
        task=common_pb2.TASK_KIND_BINARY,
        classes=["no", "yes"],
        batch_size=100,
        budget=tasks,
        seed_size=tasks,
        lease_seconds=3600,
    )


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """Run a PostgreSQL of our own, and yield the URL of an empty database in it; OSError where it is not installed."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        raise OSError("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="sealpool-postgresql-"))
    user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
    if user is not None:
        shutil.chown(folder, user)
    data, socket = folder / "data", folder

    def run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, user=user, cwd=folder)

    try:
        run(str(programs[-1] / "initdb"), "-D", str(data), "-A", "trust", "-U", "sealpool", "--no-instructions")
        flags = f"-c listen_addresses='' -c unix_socket_directories='{socket}' -c max_connections=100"
        run(str(programs[-1] / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log"), "-o", flags, "start")
        try:
            run(str(programs[-1] / "createdb"), "-h", str(socket), "-U", "sealpool", "bench")
            yield f"postgresql+psycopg://sealpool@/bench?host={socket}"
        finally:
            run(str(programs[-1] / "pg_ctl"), "-D", str(data), "-w", "-m", "fast", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
