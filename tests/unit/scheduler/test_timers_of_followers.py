"""What a scheduler does with timers that are due when it leads no more."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue

import pytest

from scheduler.jobs import RuleTimers
from scheduler.storage import campaigns
from scheduler.storage.engine import open_engine
from scheduler.storage.migrate import migrate
from scheduler.storage.store import Store
from sealpool.v1 import scheduler_pb2
from tests.unit.scheduler.fakes import FakeClock
from tests.unit.scheduler.world import make_spec


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(open_engine(f"sqlite:///{tmp_path / 's.db'}", connections=4), clock=FakeClock())
    migrate(opened)
    yield opened
    opened.close()


def test_a_firing_that_is_due_when_the_lead_was_lost_is_left_to_the_leader(store: Store) -> None:
    with store.writing() as session:
        spec = make_spec(rule=scheduler_pb2.RoundRule(interval_seconds=3600))
        campaigns.add(session, spec, now=store.clock.now())
    fired: SimpleQueue[str] = SimpleQueue()
    leading = [True]
    timers = RuleTimers(store=store, fire=fired.put, leads=lambda: bool(leading))
    timers.align()
    try:
        leading.clear()
        due = datetime.now(UTC) - timedelta(seconds=1)
        scheduler = timers._scheduler
        scheduler.modify_job("interval:c", next_run_time=due)
        assert scheduler._process_jobs() == 1.0
        assert scheduler.get_job("interval:c").next_run_time == due
        assert fired.empty()
        leading.append(True)
        scheduler.wakeup()
        assert fired.get(timeout=10) == "c"
    finally:
        timers.stop()
