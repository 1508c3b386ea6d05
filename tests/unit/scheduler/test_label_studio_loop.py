"""The rhythm in which campaigns are kept in step with Label Studio."""

from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import cast

import pytest

from scheduler.label_studio.loop import SyncLoop
from scheduler.label_studio.syncing import Synced, Syncer
from scheduler.settings import SchedulerSettings
from scheduler.storage import campaigns
from scheduler.storage.engine import open_engine
from scheduler.storage.migrate import migrate
from scheduler.storage.models import LabelStudioLink
from scheduler.storage.store import Store
from sealpool.runtime.logs import make_logger
from sealpool.v1 import label_studio_pb2
from tests.unit.scheduler.fakes import FakeClock
from tests.unit.scheduler.world import make_spec


class FakeSyncer:
    """Meets a fault with campaign "a", and tells of the others."""

    def __init__(self) -> None:
        self.synced: SimpleQueue[str] = SimpleQueue()

    def sync(self, name: str) -> Synced:
        if name == "a":
            raise ZeroDivisionError
        self.synced.put(name)
        return Synced()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(open_engine(f"sqlite:///{tmp_path / 's.db'}", connections=4), clock=FakeClock())
    migrate(opened)
    with opened.writing() as session:
        for name in ("a", "b"):
            row = campaigns.add(session, make_spec(name=name), now=opened.clock.now())
            link = label_studio_pb2.LabelStudioLink(campaign=name, server="default").SerializeToString()
            session.add(LabelStudioLink(campaign_id=row.id, link=link, webhook_url="", webhook_secret="s"))
            session.flush()
    yield opened
    opened.close()


def test_a_fault_with_one_campaign_keeps_no_other_out_of_step(store: Store) -> None:
    syncer = FakeSyncer()
    log = make_logger(SchedulerSettings(), "scheduler")
    loop = SyncLoop(store=store, syncer=cast(Syncer, syncer), is_leading=lambda: True, every_s=0.01, log=log)
    loop.start()
    try:
        assert [syncer.synced.get(timeout=10) for _ in range(2)] == ["b", "b"]
    finally:
        loop.close()


def test_a_follower_syncs_nothing(store: Store) -> None:
    asked: SimpleQueue[bool] = SimpleQueue()

    def is_leading() -> bool:
        asked.put(True)
        return False

    syncer = FakeSyncer()
    log = make_logger(SchedulerSettings(), "scheduler")
    loop = SyncLoop(store=store, syncer=cast(Syncer, syncer), is_leading=is_leading, every_s=0.01, log=log)
    loop.start()
    try:
        for _ in range(3):
            asked.get(timeout=10)
    finally:
        loop.close()
    assert syncer.synced.empty()
