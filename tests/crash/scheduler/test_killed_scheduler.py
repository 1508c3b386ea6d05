"""The scheduler, killed with SIGKILL at each of its named points, ends at the same picks and labels."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sealpool.client import ClientOptions, SchedulerClient
from sealpool.errors import Unavailable
from sealpool.v1 import scheduler_pb2
from tests.crash.scheduler.services_behind import services_behind
from tests.support.processes import ServiceProcess
from tests.unit.scheduler.fakes import FakeIndex
from tests.unit.scheduler.world import DATASET, make_spec

POINTS = [
    "scheduler.round.after_start",
    "scheduler.round.after_train:2",
    "scheduler.round.after_evaluate:2",
    "scheduler.round.after_select:3",
    "scheduler.round.after_picks:2",
    "scheduler.round.after_label:2",
]
SUBMIT_POINTS = ["scheduler.submit.before_commit:2", "scheduler.submit.after_commit:2"]


@pytest.fixture(scope="module")
def behind() -> Iterator[tuple[FakeIndex, str]]:
    with services_behind() as served:
        yield served


def make_process(folder: Path, address: str) -> ServiceProcess:
    folder.mkdir()
    flags = ("--index-server", address, "--learner", address, "--resume-every-s", "0.5", "--retry-for-s", "5")
    return ServiceProcess("scheduler", folder, *flags)


def drive(process: ServiceProcess, index: FakeIndex, spec: scheduler_pb2.CampaignSpec) -> None:
    """Run a campaign to its end as a patient client does, whatever happens to the scheduler meanwhile."""
    with SchedulerClient(process.address, options=ClientOptions(retry_for_s=60, timeout_s=60)) as client:
        client.create_campaign(spec)
        while client.run_round("c").campaign_state == scheduler_pb2.CAMPAIGN_STATE_ACTIVE:
            if spec.oracle.name:
                continue
            tasks = client.lease_tasks("c", annotator="x", max_tasks=100).tasks
            pool = index.pools["pool"]
            labels = {task.item_id: [str(pool[task.item_id].metadata["labels"])] for task in tasks}
            client.submit_labels("c", labels, annotator="x")


def outcome(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    queries = {
        "rounds": "SELECT number, kind, state, labels, picks, snapshot FROM rounds ORDER BY number",
        "tasks": "SELECT round, rank, item_id, score, origin, state FROM tasks ORDER BY round, rank",
        "labels": "SELECT item_id, classes, round, unsolicited, corrects, purpose FROM labels ORDER BY sequence",
    }
    database = sqlite3.connect(folder / "scheduler" / "scheduler.db")
    try:
        return {name: database.execute(query).fetchall() for name, query in queries.items()}
    finally:
        database.close()


def undisturbed(folder: Path, behind: tuple[FakeIndex, str], spec: scheduler_pb2.CampaignSpec) -> object:
    index, address = behind
    process = make_process(folder, address)
    process.start()
    try:
        drive(process, index, spec)
        assert process.stop() == 0
    finally:
        process.kill()
    return outcome(folder)


def killed_at(folder: Path, behind: tuple[FakeIndex, str], spec: scheduler_pb2.CampaignSpec, point: str) -> object:
    index, address = behind
    process = make_process(folder, address)
    process.start(failpoint=point)
    try:
        with ThreadPoolExecutor(1) as pool:
            driving = pool.submit(drive, process, index, spec)
            process.wait_until_killed()
            process.start()
            driving.result(60)
        assert process.stop() == 0
    finally:
        process.kill()
    return outcome(folder)


DATASET_SPEC = make_spec(oracle=DATASET, evaluation_pool="held-out")
PEOPLE_SPEC = make_spec()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, behind: tuple[FakeIndex, str]) -> tuple[object, object]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return undisturbed(folder / "dataset", behind, DATASET_SPEC), undisturbed(folder / "people", behind, PEOPLE_SPEC)


@pytest.mark.parametrize("point", POINTS)
def test_a_round_goes_on_to_the_same_picks(
    point: str, tmp_path: Path, behind: tuple[FakeIndex, str], expected: tuple[object, object]
) -> None:
    assert killed_at(tmp_path / "killed", behind, DATASET_SPEC, point) == expected[0]


@pytest.mark.parametrize("point", SUBMIT_POINTS)
def test_no_label_is_lost_and_none_counts_twice(
    point: str, tmp_path: Path, behind: tuple[FakeIndex, str], expected: tuple[object, object]
) -> None:
    assert killed_at(tmp_path / "killed", behind, PEOPLE_SPEC, point) == expected[1]


def test_labels_committed_before_a_kill_still_fire_their_rule(tmp_path: Path, behind: tuple[FakeIndex, str]) -> None:
    process = make_process(tmp_path / "killed", behind[1])
    process.start(failpoint="scheduler.submit.after_commit")
    spec = make_spec(seed_size=0, rule=scheduler_pb2.RoundRule(after_labels=2))
    try:
        with SchedulerClient(process.address, options=ClientOptions(retry_for_s=0)) as client:
            client.create_campaign(spec)
            with pytest.raises(Unavailable):
                client.submit_labels("c", {"i000": ["a"], "i001": ["b"]}, annotator="x")
        process.wait_until_killed()
        process.start()
        with SchedulerClient(process.address) as client:
            states = (event.round_changed.round.state for event in client.watch_campaign("c"))
            assert scheduler_pb2.ROUND_STATE_FINISHED in states
    finally:
        process.kill()
