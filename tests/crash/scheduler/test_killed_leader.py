"""Of two schedulers on one PostgreSQL the leader is killed in the middle of a round: the other ends the same round.

Or it freezes, and thaws after the other has taken over.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests.contract.scheduler.postgres import fresh_database, running_postgres
from tests.crash.scheduler.services_behind import services_behind
from tests.crash.scheduler.test_killed_scheduler import DATASET_SPEC, drive
from tests.support.processes import ServiceProcess
from tests.unit.scheduler.fakes import FakeIndex
from tests.unit.scheduler.world import DATASET, World, make_spec


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture(scope="module")
def behind() -> Iterator[tuple[FakeIndex, str]]:
    with services_behind() as served:
        yield served


def make_process(folder: Path, address: str, database: str) -> ServiceProcess:
    folder.mkdir(parents=True)
    flags = ("--index-server", address, "--learner", address, "--retry-for-s", "5", "--http-listen", "")
    return ServiceProcess("scheduler", folder, "--database-url", database, *flags)


def outcome(database: str) -> list[list[tuple[object, ...]]]:
    queries = (
        "SELECT number, kind, state, labels, picks, snapshot FROM rounds ORDER BY number",
        "SELECT round, rank, item_id, score, origin, state FROM tasks ORDER BY round, rank",
        "SELECT item_id, classes::text, round, purpose FROM labels ORDER BY sequence",
    )
    engine = create_engine(database)
    with engine.connect() as connection:
        found = [[tuple(row) for row in connection.execute(text(query))] for query in queries]
    engine.dispose()
    return found


@pytest.fixture(scope="module")
def expected(
    tmp_path_factory: pytest.TempPathFactory, server: str, behind: tuple[FakeIndex, str]
) -> list[list[tuple[object, ...]]]:
    database = fresh_database(server, "undisturbed")
    process = make_process(tmp_path_factory.mktemp("undisturbed") / "one", behind[1], database)
    process.start()
    try:
        drive(process, behind[0], DATASET_SPEC)
        assert process.stop() == 0
    finally:
        process.kill()
    return outcome(database)


@pytest.mark.parametrize("point", ["scheduler.round.after_train:2", "scheduler.round.after_picks:2"])
def test_the_other_scheduler_ends_the_round_with_the_same_picks(
    point: str,
    tmp_path: Path,
    server: str,
    behind: tuple[FakeIndex, str],
    expected: list[list[tuple[object, ...]]],
) -> None:
    database = fresh_database(server, point)
    leader, follower = (make_process(tmp_path / name, behind[1], database) for name in ("leader", "follower"))
    leader.start(failpoint=point)
    follower.start()
    try:
        with ThreadPoolExecutor(1) as pool:
            driving = pool.submit(drive, follower, behind[0], DATASET_SPEC)
            leader.wait_until_killed()
            driving.result(60)
        assert follower.stop() == 0
    finally:
        leader.kill()
        follower.kill()
    assert outcome(database) == expected


def wait_until(happened: Callable[[], bool]) -> None:
    for _ in range(2_000):
        if happened():
            return
        threading.Event().wait(0.02)
    raise AssertionError("it did not happen")


def test_a_leader_that_thaws_commits_nothing_of_its_round(
    tmp_path: Path, server: str, behind: tuple[FakeIndex, str]
) -> None:
    database = fresh_database(server, "frozen")
    leader, index = make_process(tmp_path / "leader", behind[1], database), behind[0]
    leader.start()
    follower = World(tmp_path / "follower", database_url=database)
    try:
        assert leader._process is not None
        follower.client.create_campaign(make_spec(oracle=DATASET))
        release = index.troubles.hold("sample_items")
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(follower.client.run_round, "c")
            assert index.troubles.reached["sample_items"].wait(20)
            os.kill(leader._process.pid, signal.SIGSTOP)
            wait_until(follower.scheduler.leads)
            assert running.result(30).round.number == 0
        release()  # it is answered, and frozen
        os.kill(leader._process.pid, signal.SIGCONT)
        wait_until(lambda: "left to another scheduler" in leader.log.read_text())
        assert "phase ended" not in leader.log.read_text()
        assert follower.scheduler.leader.epoch() == 2
        assert len(follower.labels()) == sum(len(items) for items in follower.picks().values()) == 6
        assert leader.stop() == 0
    finally:
        index.troubles.release()
        leader.kill()
        follower.close()
