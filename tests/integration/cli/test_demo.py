"""`sealpool demo` with three real services: what it leaves behind, and that it leaves nothing running."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

KEYS = {"round", "labels", "candidates", "pool_share", "accuracy", "mean_average_precision", "seconds"}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(directory: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "sealpool.cli.main", "demo", "--directory", str(directory), *more]


def services_in(directory: Path) -> list[int]:
    """Return the processes that have a folder under `directory` on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                arguments = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if f"{directory}/".encode() in arguments:
                found.append(int(entry.name))
    return found


def test_the_demo_writes_a_whole_report_and_ends_alone(tmp_path):
    for _ in range(2):  # a second run in the same folder works, too
        done = subprocess.run(
            command(tmp_path, "--rounds", "2"),
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert services_in(tmp_path) == []
    report = json.loads((tmp_path / "report.json").read_text())
    for rows in (report["rounds"], report["random"]):
        assert [row["round"] for row in rows] == [1, 2]
        assert all(row.keys() == KEYS for row in rows)
        assert all(row["seconds"].keys() == {"expand", "train", "score"} for row in rows)
        assert [row["labels"] for row in rows] == [20, 40]
    assert report["rounds"][0]["accuracy"] == report["random"][0]["accuracy"]  # the same seed set
    assert 0 < report["rounds"][0]["pool_share"] < 0.5 < report["random"][0]["pool_share"]
    assert report["final"]["labels"] == 60
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "src=" not in page
    assert 'href="http' not in page
    assert "Random sampling" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_demo_that_is_stopped_in_the_middle_leaves_nothing_running(tmp_path, number):
    process = subprocess.Popen(
        command(tmp_path, "--rounds", "60", "--batch", "20"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=ENVIRONMENT,
    )  # fmt: skip
    database = tmp_path / "scheduler" / "scheduler.db"
    wait_for(lambda: database.exists() or process.poll() is not None)
    assert process.poll() is None, process.stderr.read()
    assert len(services_in(tmp_path)) == 3
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    if number is not signal.SIGKILL:
        assert process.returncode == 128 + number
        assert "Traceback" not in err
    wait_for(lambda: not services_in(tmp_path))


def test_own_texts_without_an_encoder_are_told_what_to_pass(tmp_path):
    data = tmp_path / "texts.csv"
    data.write_text("id,text,labels\n" + "".join(f"{n},text {n},{'xy'[n % 2]}\n" for n in range(60)))
    done = subprocess.run(
        command(tmp_path / "demo", "--data", str(data), "--rounds", "2", "--embedder", "/no/such/encoder"),
        capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "/no/such/encoder" in done.stderr.splitlines()[-1]
    assert services_in(tmp_path) == []


def wait_for(condition, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("not in time")
        time.sleep(0.05)  # other processes' files and ends: nothing to wait on
