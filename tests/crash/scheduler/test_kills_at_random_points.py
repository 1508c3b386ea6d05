"""The scheduler, killed with SIGKILL at random moments under two campaigns at once, ends where it would have ended.

SEALPOOL_KILLS says how often; each kill takes about two seconds. SEALPOOL_KILL_SEED draws other moments.
"""

import os
import random
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from sealpool.client import ClientOptions, SchedulerClient
from sealpool.v1 import scheduler_pb2
from tests.crash.scheduler.services_behind import services_behind
from tests.support.processes import ServiceProcess
from tests.unit.scheduler.fakes import FakeIndex
from tests.unit.scheduler.world import DATASET, make_spec

KILLS = int(os.environ.get("SEALPOOL_KILLS", "4"))
SEED = int(os.environ.get("SEALPOOL_KILL_SEED", "1"))
LONGEST_S = 1.0
"""Of the time that a process runs before it is killed; a campaign that nothing disturbs takes less."""

QUERIES = {
    "rounds": "SELECT number, kind, rounds.state, labels, picks FROM rounds JOIN campaigns ON id = campaign_id "
    "WHERE name = ? ORDER BY number",
    "tasks": "SELECT round, rank, item_id, tasks.state FROM tasks JOIN campaigns ON campaigns.id = campaign_id "
    "WHERE name = ? ORDER BY round, rank",
    "labels": "SELECT item_id, classes, round, corrects FROM labels JOIN campaigns ON id = campaign_id "
    "WHERE name = ? ORDER BY item_id",
    "annotations": "SELECT item_id, classes, round, outcome FROM annotations JOIN campaigns ON id = campaign_id "
    "WHERE name = ? ORDER BY item_id",
}


@pytest.fixture(scope="module")
def behind() -> Iterator[tuple[FakeIndex, str]]:
    with services_behind() as served:
        yield served


def drive(process: ServiceProcess, index: FakeIndex, spec: scheduler_pb2.CampaignSpec) -> None:
    """Run a campaign to its end as a patient client does, whatever happens to the scheduler meanwhile."""
    with SchedulerClient(process.address, options=ClientOptions(retry_for_s=120, timeout_s=120)) as client:
        client.create_campaign(spec)
        while client.run_round(spec.name).campaign_state == scheduler_pb2.CAMPAIGN_STATE_ACTIVE:
            if spec.oracle.name:
                continue
            while tasks := client.lease_tasks(spec.name, annotator="x", max_tasks=3).tasks:
                pool = index.pools["pool"]
                labels = {task.item_id: [str(pool[task.item_id].metadata["labels"])] for task in tasks}
                client.submit_labels(spec.name, labels, annotator="x")


def outcome(folder: Path, campaign: str) -> dict[str, list[tuple[object, ...]]]:
    database = sqlite3.connect(folder / "scheduler" / "scheduler.db")
    try:
        return {name: database.execute(query, (campaign,)).fetchall() for name, query in QUERIES.items()}
    finally:
        database.close()


def make_process(folder: Path, address: str) -> ServiceProcess:
    folder.mkdir()
    flags = ("--index-server", address, "--learner", address, "--resume-every-s", "0.3", "--retry-for-s", "5")
    return ServiceProcess("scheduler", folder, *flags)


def both_done(driving: list[Future[None]]) -> bool:
    return all(future.done() for future in driving)


def test_killed_again_and_again_no_label_is_lost_and_none_counts_twice(
    tmp_path: Path, behind: tuple[FakeIndex, str]
) -> None:
    index, address = behind
    specs = [make_spec(name="people", seed=7), make_spec(name="dataset", seed=7, oracle=DATASET)]
    expected = {}
    process = make_process(tmp_path / "undisturbed", address)
    try:
        process.start()
        for spec in specs:
            drive(process, index, spec)
            expected[spec.name] = outcome(tmp_path / "undisturbed", spec.name)
        assert process.stop() == 0
    finally:
        process.kill()
    process = make_process(tmp_path / "killed", address)
    moments = random.Random(SEED)
    kills = generation = 0
    never = threading.Event()
    try:
        process.start()
        while kills < KILLS:
            names = [f"{spec.name}-{generation}" for spec in specs]
            again = []
            for spec, name in zip(specs, names, strict=True):
                again.append(scheduler_pb2.CampaignSpec.FromString(spec.SerializeToString()))
                again[-1].name = name
            with ThreadPoolExecutor(2) as threads:
                driving = [threads.submit(drive, process, index, spec) for spec in again]
                while not both_done(driving) and kills < KILLS:
                    never.wait(moments.uniform(0, LONGEST_S))
                    process.kill()
                    kills += 1
                    process.start()
                for future in driving:
                    future.result(120)
            for spec, name in zip(specs, names, strict=True):
                found = outcome(tmp_path / "killed", name)
                assert found == expected[spec.name], f"{name} after {kills} kills"
            generation += 1
        assert process.stop() == 0
    finally:
        process.kill()
