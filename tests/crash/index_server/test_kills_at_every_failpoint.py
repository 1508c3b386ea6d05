"""An index server is killed at every named point of its write path, in the middle of drawn calls, and started again.

SEALPOOL_KILLS says how many children are killed; each takes about two seconds. Every point is taken in turn.
"""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import index_server
from tests.support.index_at_hand import index_server as served
from tests.support.index_at_hand import stub_of
from tests.support.index_history import Progress, read_journal, wrongs
from tests.support.index_workload import State, Step, Workload, read_state
from tests.support.recorded_index import child_command, child_environment

KILLS = int(os.environ.get("SEALPOOL_KILLS", "14"))
STEPS = 24
SEEDS = 1 + KILLS // 50
AT_START = {"index.graph.before_renumbering", "index.graph.after_renumbering"}
"""Passed when a pool is read in which most items were deleted: see test_graph_killed.py."""

NAMED = re.compile(r"""\breach\(\s*(f?)["']([^"']+)["']""")


def named_points() -> set[str]:
    """Return the patterns of all points that the source names; a part that is put in at run time is any word."""
    found = set()
    for path in Path(index_server.__file__).parent.rglob("*.py"):
        for formatted, name in NAMED.findall(path.read_text()):
            escaped = re.escape(name)
            found.add(re.sub(r"\\\{.*?\\\}", r"[a-z_]+", escaped) if formatted else escaped)
    return found


@dataclass(frozen=True)
class Undisturbed:
    """A run that nobody killed: its steps, what could be seen after each, and how often each point was passed."""

    seed: int
    steps: list[Step]
    states: list[State]
    passed: dict[str, int]


def undisturbed(seed: int, folder: Path) -> Undisturbed:
    folder.mkdir()
    options = ["states", f"counts={folder / 'counts'}"]
    command = child_command(folder / "data", folder / "journal", seed=seed, steps=STEPS, options=options)
    subprocess.run(command, env=child_environment(), check=True, timeout=120)
    states = [entry["state"] for entry in read_journal(folder / "journal") if "state" in entry]
    passed = json.loads((folder / "counts").read_text())
    return Undisturbed(seed, list(Workload(seed).steps(STEPS)), states, passed)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return [undisturbed(seed, folder / str(seed)) for seed in range(SEEDS)]


def killed(run: Undisturbed, folder: Path, failpoint: str) -> Progress:
    """Kill a child at a point, and return how far it came."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    command = child_command(folder / "data", folder / "journal", seed=run.seed, steps=STEPS)
    environment = child_environment(SEALPOOL_FAILPOINT=failpoint)
    child = subprocess.run(command, env=environment, capture_output=True, timeout=120)
    if child.returncode == 0 and ":" in failpoint:  # what is done in the background is not done equally often
        return killed(run, folder, failpoint.partition(":")[0])
    assert child.returncode == -signal.SIGKILL, f"{failpoint}: {child.stderr.decode()[-2000:]}"
    progress = Progress()
    for entry in read_journal(folder / "journal"):
        progress.take(entry)
    return progress


def test_no_named_point_is_left_out(runs):
    passed = set().union(*(run.passed for run in runs))
    missed = {point for point in named_points() if not any(re.fullmatch(point, name) for name in passed)}
    assert missed == {re.escape(point) for point in AT_START}


def test_whatever_was_acknowledged_before_a_kill_is_there_after_it_and_nothing_is_half_there(runs, tmp_path):
    chance = np.random.default_rng(KILLS)
    points = sorted(set().union(*(run.passed for run in runs)))
    for number, point in enumerate(itertools.islice(itertools.cycle(points), max(KILLS, len(points)))):
        passing = [run for run in runs if point in run.passed]
        run = passing[number % len(passing)]
        failpoint = f"{point}:{chance.integers(1, run.passed[point] + 1)}"
        folder = tmp_path / str(number)
        progress = killed(run, folder, failpoint)
        with served(folder / "data") as channel:
            found = read_state(stub_of(channel))
            left_over = [path for path in (folder / "data" / "pools").iterdir() if path.name.startswith(".")]
        assert left_over == [], f"seed {run.seed}, killed at {failpoint}"
        assert wrongs(found, progress, run.states, run.steps) == [], f"seed {run.seed}, killed at {failpoint}"


def test_a_lost_item_would_be_found_out(runs):
    run = runs[0]
    progress = Progress(len(run.steps) - 1, {0})
    found = json.loads(json.dumps(run.states[-1]))
    assert wrongs(found, progress, run.states, run.steps) == []
    lost = next(iter(found["p"]["items"]))
    del found["p"]["items"][lost]
    assert any(lost in wrong for wrong in wrongs(found, progress, run.states, run.steps))
