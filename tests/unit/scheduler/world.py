"""A scheduler over the fakes, served on loopback."""

import io
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prometheus_client import CollectorRegistry

from scheduler.app import serve
from scheduler.assembly import Scheduler
from scheduler.settings import SchedulerSettings
from scheduler.storage.engine import open_engine
from scheduler.storage.migrate import migrate
from scheduler.storage.store import Store
from sealpool.client import ClientOptions, SchedulerClient
from sealpool.runtime.logs import make_logger
from sealpool.runtime.tracing import NO_TRACING, CallTracer
from sealpool.v1 import common_pb2, scheduler_pb2
from tests.unit.scheduler.fakes import FakeClock, FakeIndex, FakeLearner


def make_spec(**changes: Any) -> scheduler_pb2.CampaignSpec:
    """Return a spec that is right, with some fields changed."""
    fields: dict[str, Any] = {
        "name": "c",
        "pool": "pool",
        "task": common_pb2.TASK_KIND_BINARY,
        "classes": ["a", "b"],
        "batch_size": 5,
        "budget": 20,
        "seed": 42,
        "seed_size": 6,
    }
    return scheduler_pb2.CampaignSpec(**{**fields, **changes})


@cache
def migrated_database() -> bytes:
    """Return an empty SQLite database with the tables of this version: making them anew takes most of a start."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "scheduler.db"
        store = Store(open_engine(f"sqlite:///{path}", connections=2), clock=FakeClock())
        migrate(store)
        store.close()
        return path.read_bytes()


DATASET = scheduler_pb2.OracleSpec(name="dataset")


class World:
    """A scheduler, its client, and the fakes behind it. `restart` begins a new one on the same database.

    With `beside`, another world, it stands before the same fakes.
    """

    def __init__(
        self, data_dir: Path, *, beside: "World | None" = None, tracer: CallTracer = NO_TRACING, **settings: Any
    ) -> None:
        self._tracer = tracer
        self.index = FakeIndex() if beside is None else beside.index
        if beside is None:
            self.index.add_pool("pool", 60)
            self.index.add_pool("held-out", 12)
        self.learner = FakeLearner(self.index) if beside is None else beside.learner
        self.clock = FakeClock()
        self.settings = SchedulerSettings(
            listen="127.0.0.1:0",
            data_dir=data_dir,
            log_level="debug",
            **{
                "metrics_listen": "",
                "http_listen": "",
                "retry_for_s": 0,
                "resume_every_s": 3600,
                "grace_s": 1,
                **settings,
            },
        )
        self.log = io.StringIO()
        self._start()

    def _start(self) -> None:
        database = self.settings.data_dir / "scheduler.db"
        if not database.exists() and not self.settings.database_url.get_secret_value():
            database.parent.mkdir(parents=True, exist_ok=True)
            database.write_bytes(migrated_database())
        log = make_logger(self.settings, "scheduler", stream=self.log)
        self.scheduler = Scheduler(
            self.settings,
            index=self.index,
            learner=self.learner,
            callers_index=self.index,
            callers_learner=self.learner,
            clock=self.clock,
            log=log,
            tracer=self._tracer,
        )
        self.registry = CollectorRegistry()
        self.server = serve(
            self.settings, self.scheduler, clients=(), registry=self.registry, log=log, tracer=self._tracer
        )
        self.client = SchedulerClient(self.server.address, options=ClientOptions(retry_for_s=0, timeout_s=20))

    def close(self) -> None:
        self.client.close()
        self.server.stop()

    def restart(self) -> None:
        self.close()
        self._start()

    def label(self, campaign: str = "c", *, count: int = 100, wrong: bool = False) -> list[str]:
        """Lease tasks and hand in their true labels; return the items."""
        leased = self.client.lease_tasks(campaign, annotator="ann", max_tasks=count).tasks
        items = [task.item_id for task in leased]
        if items:
            self.client.submit_labels(campaign, {item: [self.truth(item)] for item in items}, annotator="ann")
        return items

    def truth(self, item: str) -> str:
        return str(next(p[item].metadata["labels"] for p in self.index.pools.values() if item in p))

    def labels(self, campaign: str = "c", **options: Any) -> list[scheduler_pb2.Label]:
        return list(self.client.list_labels(campaign, **options))

    def picks(self, campaign: str = "c") -> dict[int, list[str]]:
        """Return the items of all tasks, round by round, most wanted first."""
        from sqlalchemy import select

        from scheduler.storage.models import Campaign, Task

        with self.scheduler.store.reading() as session:
            query = select(Task.round, Task.item_id).join(Campaign, Campaign.id == Task.campaign_id)
            rows = session.execute(query.where(Campaign.name == campaign).order_by(Task.round, Task.rank)).all()
        found: dict[int, list[str]] = {}
        for number, item in rows:
            found.setdefault(number, []).append(item)
        return found
