"""Of two schedulers on one PostgreSQL the leader is killed in the middle of a round: the other ends the same round."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests.contract.scheduler.postgres import fresh_database, running_postgres
from tests.crash.scheduler.services_behind import services_behind
from tests.crash.scheduler.test_killed_scheduler import DATASET_SPEC, drive
from tests.support.processes import ServiceProcess
from tests.unit.scheduler.fakes import FakeIndex


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
