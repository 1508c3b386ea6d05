"""Power is cut while a real index server writes: what was not synced is lost, torn or there, and it is started again.

A server is recorded once (tests/support/file_recorder.c) and then cut off at many places of the record, so a crash
costs a start of the server. SEALPOOL_POWER_CUTS says how many there are, SEALPOOL_POWER_CUT_SEEDS in how many records.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.file_recorder import Kind, compile_recorder, missing_tool
from tests.support.power_cut import replay
from tests.support.recorded_index import Crash, Recording, power_cuts, record_server, wrongs_after

CUTS = int(os.environ.get("SEALPOOL_POWER_CUTS", "100"))
SEEDS = range(1, 1 + int(os.environ.get("SEALPOOL_POWER_CUT_SEEDS", "1")))
STEPS = 40

WRITTEN_THROUGH_MEMORY = re.compile(r"-shm$|\d\.(lists|marks)$")
"""SQLite's index of its log, made anew after a crash, and the neighbour graph, which is found anew. No record tells
what is in them, so after a power cut here it is gone."""

pytestmark = pytest.mark.skipif(bool(missing_tool()), reason=missing_tool())


@pytest.fixture(scope="module")
def recorder(tmp_path_factory):
    return compile_recorder(tmp_path_factory.mktemp("recorder"))


@pytest.fixture(scope="module", params=SEEDS)
def recording(request, recorder, tmp_path_factory):
    return record_server(recorder, tmp_path_factory.mktemp("recorded"), seed=request.param, steps=STEPS)


def first_wrong(recording: Recording, crashes: Iterable[Crash], folder: Path) -> list[str]:
    for crash in crashes:
        found = wrongs_after(crash, recording, folder)
        if found:
            return [f"after record {crash.after} of {len(recording.records)}, step {crash.progress.begun}:", *found]
    return []


def without(recording: Recording, unsynced: str) -> Recording:
    """Return the recording of a server that did not sync what `unsynced` matches."""
    syncs = (Kind.SYNC_FILE, Kind.SYNC_DIRECTORY)
    kept = [r for r in recording.records if r.kind not in syncs or not re.search(unsynced, r.path)]
    assert len(kept) < len(recording.records)
    return Recording(kept, recording.left, recording.steps, recording.states)


def test_the_record_holds_everything_the_server_did_to_its_files(recording):
    disk = replay(recording.records)
    seen = disk.in_memory()
    hidden = {path for path in seen if WRITTEN_THROUGH_MEMORY.search(path)}
    assert {p: c for p, c in seen.items() if p not in hidden} == {
        p: c for p, c in recording.left.items() if p not in hidden
    }
    assert len(recording.states) == len(recording.steps)


def test_nothing_is_written_through_memory_but_what_may_be_lost(recording):
    for position, record in enumerate(recording.records):
        if record.kind is Kind.MAPPED:
            name = replay(recording.records[:position]).mapped_name(record.inode)
            assert WRITTEN_THROUGH_MEMORY.search(name), name


def test_what_was_acknowledged_survives_a_power_cut_and_nothing_is_half_there(recording, tmp_path):
    crashes = power_cuts(recording.records, count=CUTS, seed=len(recording.records))
    assert first_wrong(recording, crashes, tmp_path) == []


@pytest.mark.parametrize(
    "unsynced",
    [
        "",
        r"items\.lance/data/.*\.lance$",
        r"items\.lance/data$",
        r"items\.lance/_deletions/.*",
        r"items\.lance/_versions/.*",
        r"items\.lance/_versions$",
        r"\.HEAD\.new$",
        r"pools/p$",
        r"candidates\.sqlite-wal$",
        r"pools$",
        r"snapshots/one/",
        r"snapshots/one$",
    ],
)
def test_a_server_that_did_not_sync_would_be_found_out(recording, unsynced, tmp_path):
    careless = without(recording, unsynced)
    crashes = power_cuts(careless.records, count=max(CUTS, 200), seed=1)  # found after a few, as a rule
    assert first_wrong(careless, crashes, tmp_path) != []
