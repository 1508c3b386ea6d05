"""`sealpool up` with three real services, and a user's session against it."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

Answer = Callable[..., dict]


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Up:
    """`sealpool up` as a process, with its addresses once it serves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "sealpool.cli.main", "up", "--json", "--data-dir", str(folder), "--no-metrics"]
        command += ["--index-port", "0", "--learner-port", "0", "--scheduler-port", "0"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.stderr.read())
        self.addresses = json.loads(line)
        self.children = children_of(self.process.pid)

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal; return exit code and stderr once it and its children are gone."""
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("up"))
    yield running
    if running.process.poll() is None:
        running.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def sealpool(up: Up) -> Answer:
    environment = {
        **os.environ,
        "SEALPOOL_INDEX": up.addresses["index_server"],
        "SEALPOOL_LEARNER": up.addresses["learner"],
        "SEALPOOL_SCHEDULER": up.addresses["scheduler"],
    }

    def call(*arguments: object) -> dict:
        command = [sys.executable, "-m", "sealpool.cli.main", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.startswith("{") else {"lines": done.stdout.splitlines()}

    return call


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clusters of 60 items, with the class in `labels`."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("items") / "items.jsonl"
    rows = [
        {"id": f"i{n}", "labels": "ab"[n % 2], "vector": (rng.normal(0, 0.3, 4) + np.eye(4)[n % 2]).tolist()}
        for n in range(120)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_campaign_from_a_file_to_its_export(sealpool, items, tmp_path):
    made = sealpool("pool", "ingest", "p", items, "--create", "--json")
    assert (made["created"], made["inserted"], made["size"]) == (True, 120, 120)
    again = sealpool("pool", "ingest", "p", items, "--json")
    assert (again["inserted"], again["replaced"], again["size"]) == (0, 120, 120)
    assert sealpool("pool", "show", "p", "--json")["spec"]["dimension"] == 4

    sealpool("pool", "ingest", "held-out", items, "--create", "--json")
    sizes = ("--budget", 30, "--batch", 10, "--seed-size", 10, "--k", 5)
    source = ("--classes-from-metadata", "labels", "--oracle", "dataset", "--evaluation-pool", "held-out")
    created = sealpool("campaign", "create", "c", "--pool", "p", *sizes, *source, "--json")
    assert created["spec"]["task"] == "binary"
    assert created["spec"]["classes"] == ["a", "b"]

    answer = sealpool("campaign", "run", "c", "--json")
    assert answer["campaign"]["state"] == "completed"
    assert answer["campaign"]["labels"] == 30
    assert answer["rounds"][-1]["quality"]["accuracy"] > 0.8

    target = tmp_path / "labels.jsonl"
    assert sealpool("campaign", "export", "c", "-o", target, "--json")["labels"] == 30
    truth = {row["id"]: row["labels"] for row in map(json.loads, items.read_text().splitlines())}
    exported = [json.loads(line) for line in target.read_text().splitlines()]
    assert all([truth[row["id"]]] == row["labels"] for row in exported)
    assert len({row["id"] for row in exported}) == 30


def test_people_take_tasks_and_hand_in_labels(sealpool, items):
    sealpool("pool", "ingest", "q", items, "--create", "--json")
    sealpool(*"campaign create d --pool q --class a --class b --budget 20 --batch 5 --seed-size 5 --json".split())  # noqa: SIM905
    assert sealpool("campaign", "run", "d", "--json")["campaign"]["open_tasks"] == 5
    tasks = sealpool("tasks", "next", "d", "-n", 5, "--annotator", "ann", "--json")["tasks"]
    labels = [f"{task['item_id']}={'ab'[int(task['item_id'][1:]) % 2]}" for task in tasks]
    assert sealpool("labels", "submit", "d", *labels, "--annotator", "ann", "--json")["accepted"] == 5
    assert sealpool("campaign", "show", "d", "--json")["campaign"]["labels"] == 5
    assert sealpool("campaign", "archive", "d", "--json")["state"] == "archived"


def test_a_second_up_fails_before_it_starts_anything(up, tmp_path):
    def second(*arguments: object) -> str:
        command = [sys.executable, "-m", "sealpool.cli.main", "up", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr

    logs = {log: log.stat().st_size for log in (up.folder / "logs").iterdir()}
    assert second("--data-dir", up.folder).startswith("error: another sealpool up runs on ")
    port = up.addresses["learner"].rpartition(":")[2]
    said = second("--data-dir", tmp_path / "other", "--learner-port", port, "--index-port", 0, "--scheduler-port", 0)
    assert said.startswith(f"error: port {port} of learner cannot be used: Address already in use; give another")
    port = int(up.addresses["http"].rpartition(":")[2])
    said = second(
        "--data-dir", tmp_path / "other", "--index-port", 0, "--learner-port", 0, "--scheduler-port", port - 20
    )
    assert said.startswith(f"error: port {port} for HTTP of scheduler cannot be used: Address already in use; give ")
    assert "--scheduler-port (it is twenty above), or --no-http" in said
    assert {log: log.stat().st_size for log in logs} == logs


def test_the_http_address_it_names_answers(up, sealpool):
    with urllib.request.urlopen(f"{up.addresses['http']}/v1/campaigns") as answer:
        found = json.load(answer)["campaigns"]
    told = sealpool("campaign", "list", "--json")["campaigns"]
    assert [one["spec"]["name"] for one in found] == [one["spec"]["name"] for one in told]


def test_sigterm_stops_all_three(up):
    assert len(up.children) == 3
    code, _ = up.end(signal.SIGTERM)
    assert code == 143
    assert not any(map(is_alive, up.children))


def test_a_service_that_dies_brings_the_others_down_and_is_named(tmp_path):
    up = Up(tmp_path)
    victim = next(pid for pid in up.children if b"learner" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
    os.kill(victim, signal.SIGKILL)
    _, err = up.process.communicate(timeout=60)
    assert up.process.returncode == 1
    assert "error: learner was killed by SIGKILL; its log: " in err.splitlines()[-1]
    assert not any(map(is_alive, up.children))
