"""Who leads, driven through the port of the lock."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue

import pytest

from scheduler import leading
from scheduler.leading import Leader
from scheduler.settings import SchedulerSettings
from scheduler.storage import leadership
from scheduler.storage.engine import open_engine
from scheduler.storage.leadership import FileLock, lock_for
from scheduler.storage.migrate import migrate
from scheduler.storage.store import Store
from sealpool.errors import Unavailable
from sealpool.runtime.logs import make_logger
from tests.unit.scheduler.fakes import FakeClock


class FakeLock:
    """A lock that is free, taken by somebody, or whose keeper is away, as a test says."""

    def __init__(self) -> None:
        self.is_free = True
        self.away = False
        self.hangs: threading.Event | None = None
        self.told: SimpleQueue[str] = SimpleQueue()
        self.released: SimpleQueue[bool] = SimpleQueue()
        self.tries: SimpleQueue[bool] = SimpleQueue()

    def take(self) -> bool:
        self._meet()
        self.tries.put(self.is_free)
        return self.is_free

    def check(self) -> None:
        self._meet()

    def hear(self, timeout_s: float) -> Sequence[str]:
        self._meet()
        threading.Event().wait(min(timeout_s, 0.01))
        return [] if self.told.empty() else [self.told.get()]

    def tell(self, name: str) -> None:
        self._meet()
        self.told.put(name)

    def release(self) -> None:
        self.released.put(True)

    def _meet(self) -> None:
        if self.hangs is not None:
            self.hangs.wait(20)
        if self.away:
            raise Unavailable("gone")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(open_engine(f"sqlite:///{tmp_path / 's.db'}", connections=4), clock=FakeClock())
    migrate(opened)
    yield opened
    opened.close()


@pytest.fixture
def make_leader(store: Store) -> Iterator[Callable[[leading.Lock], Leader]]:
    leaders: list[Leader] = []

    def make(lock: leading.Lock) -> Leader:
        log = make_logger(SchedulerSettings(), "scheduler")
        leaders.append(Leader(store=store, lock=lock, holder=f"h{len(leaders)}", log=log, every_s=0.02))
        return leaders[-1]

    yield make
    for leader in leaders:
        leader.close()


def test_each_taking_of_the_lock_begins_an_epoch(make_leader: Callable[[leading.Lock], Leader], store: Store) -> None:
    lock, began = FakeLock(), SimpleQueue[bool]()
    leader = make_leader(lock)
    leader.start(on_lead=lambda: began.put(True), on_told=lambda _: None)
    assert leader.epoch() == 1
    began.get(timeout=10)
    lock.away = True
    lock.released.get(timeout=10)
    assert leader.epoch() is None
    lock.away = False
    began.get(timeout=10)
    assert leader.epoch() == 2
    with store.reading() as session:
        assert not leadership.is_epoch(session, 1)
        assert leadership.is_epoch(session, 2)


def test_a_follower_leads_as_soon_as_the_lock_is_free(make_leader: Callable[[leading.Lock], Leader]) -> None:
    lock, began = FakeLock(), SimpleQueue[bool]()
    lock.is_free = False
    leader = make_leader(lock)
    leader.start(on_lead=lambda: began.put(True), on_told=lambda _: None)
    for _ in range(2):
        lock.tries.get(timeout=10)
    assert leader.epoch() is None
    assert lock.released.empty()
    lock.is_free = True
    assert began.get(timeout=10)
    assert leader.epoch() == 1


def test_a_leader_is_told_names(make_leader: Callable[[leading.Lock], Leader]) -> None:
    lock, told = FakeLock(), SimpleQueue[str]()
    leader = make_leader(lock)
    leader.start(on_lead=lambda: None, on_told=told.put)
    leader.tell("c")
    assert told.get(timeout=10) == "c"
    lock.away = True
    leader.tell("d")  # whoever leads next looks after every campaign anyway


def test_a_leader_whose_heartbeat_hangs_leads_no_more(
    make_leader: Callable[[leading.Lock], Leader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leading, "STALE_AFTER_S", 0.2)
    lock, asked = FakeLock(), threading.Event()
    leader = make_leader(lock)
    leader.start(on_lead=lambda: None, on_told=lambda _: None)
    lock.hangs = asked
    while leader.epoch() is not None:
        threading.Event().wait(0.01)
    asked.set()


def test_a_leader_in_doubt_lets_go_and_tries_again(make_leader: Callable[[leading.Lock], Leader]) -> None:
    lock, began = FakeLock(), SimpleQueue[bool]()
    leader = make_leader(lock)
    leader.start(on_lead=lambda: began.put(True), on_told=lambda _: None)
    began.get(timeout=10)
    leader.doubt(7)
    assert leader.epoch() == 1
    leader.doubt(1)
    assert lock.released.get(timeout=10)
    began.get(timeout=10)
    assert leader.epoch() == 2


def test_a_leader_that_meets_a_fault_of_its_own_gives_the_lock_up(
    make_leader: Callable[[leading.Lock], Leader], monkeypatch: pytest.MonkeyPatch
) -> None:
    met = SimpleQueue[object]()
    monkeypatch.setattr(threading, "excepthook", met.put)
    lock = FakeLock()
    leader = make_leader(lock)

    def fail(_name: str) -> None:
        raise ZeroDivisionError

    leader.start(on_lead=lambda: None, on_told=fail)
    leader.tell("c")
    assert lock.released.get(timeout=10)
    assert leader.epoch() is None
    assert met.get(timeout=10)


def test_stopping_gives_the_lock_up(make_leader: Callable[[leading.Lock], Leader]) -> None:
    lock = FakeLock()
    leader = make_leader(lock)
    leader.start(on_lead=lambda: None, on_told=lambda _: None)
    leader.stop()
    assert leader.epoch() is None
    assert lock.released.get(timeout=10)


def test_one_of_two_has_the_file_and_hears_what_the_other_tells(store: Store, tmp_path: Path) -> None:
    first, second = lock_for(store), FileLock(tmp_path / "s.db")
    assert first.take()
    assert not second.take()
    first.check()
    assert first.hear(0) == []
    second.tell("c")
    second.tell("d")
    assert first.hear(0) == ["c", "d"]
    assert first.hear(0) == []
    first.release()
    assert second.take()
    with pytest.raises(Unavailable, match="not held"):
        first.check()
    second.release()


def test_a_lock_file_that_was_replaced_is_lost(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "s.db")
    assert lock.take()
    (tmp_path / "s.db.leader").rename(tmp_path / "old")
    with pytest.raises(Unavailable):
        lock.check()
    (tmp_path / "s.db.leader").touch()
    with pytest.raises(Unavailable, match="replaced"):
        lock.check()
    lock.release()
