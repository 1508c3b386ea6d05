"""An index server recorded while it is put through drawn steps, and opened again on what a power cut leaves of it."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from sealpool.matrix import to_matrix
from sealpool.v1 import common_pb2, index_pb2, index_pb2_grpc
from tests.support.file_recorder import Kind, Record, read_records, recorded_environment
from tests.support.index_at_hand import index_server, snapshots_beside, stub_of
from tests.support.index_history import Progress, differences, read_journal, wrongs
from tests.support.index_workload import DIMENSION, State, Step, Workload, read_state
from tests.support.power_cut import Disk, read_tree, write_tree

_CHILD = Path(__file__).with_name("index_child.py")
_USED = 8
"""Of so many crashes one is followed by more changes and another start."""

Tree = dict[str, bytes | None]


def child_command(data_dir: Path, journal: Path, *, seed: int, steps: int, options: Sequence[str] = ()) -> list[str]:
    """Return how to run an index server through the steps of `seed`, in a process of its own."""
    return [sys.executable, str(_CHILD), str(data_dir), str(journal), str(seed), str(steps), *options]


def child_environment(**more: str) -> dict[str, str]:
    """Return the environment of such a process."""
    kept = {name: value for name, value in os.environ.items() if name != "SEALPOOL_FAILPOINT"}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1", **more}


@dataclass(frozen=True, slots=True)
class Recording:
    """What a server did, and what could be seen after each step."""

    records: Sequence[Record]
    left: Tree
    """The files that are really there after it."""
    steps: Sequence[Step]
    states: Sequence[State]


@dataclass(frozen=True, slots=True)
class Crash:
    """A power cut: after how many records, what is left, and how far the server was."""

    after: int
    left: Tree
    progress: Progress


def record_server(library: Path, folder: Path, *, seed: int, steps: int) -> Recording:
    """Put an index server through `steps` steps, below `folder`, and return what it did."""
    root, log, journal = folder / "root", folder / "records", folder / "journal"
    root.mkdir(parents=True)
    command = child_command(root / "data", journal, seed=seed, steps=steps, options=["states"])
    environment = child_environment(**recorded_environment(library, root=root, log=log))
    subprocess.run(command, env=environment, check=True, timeout=300)
    states = [entry["state"] for entry in read_journal(journal) if "state" in entry]
    return Recording(read_records(log), read_tree(root), list(Workload(seed).steps(steps)), states)


def power_cuts(records: Sequence[Record], *, count: int, seed: int) -> Iterator[Crash]:
    """Cut power `count` times: after every acknowledgement, and else after any record.

    The first cut at a place loses all that was not synced, later ones keep some of it.
    """
    places = _places(records, count, random.Random(seed))
    chance = random.Random(seed)
    disk, progress = Disk(), Progress()
    for position, record in enumerate(records, 1):
        if record.kind is Kind.MARK:
            progress.take_line(record.path)
        disk.apply(record)
        for repetition in range(places.get(position, 0)):
            left = disk.after_power_cut(chance) if repetition else disk.synced()
            yield Crash(position, left, Progress(progress.begun, set(progress.acknowledged)))


def _places(records: Sequence[Record], count: int, chance: random.Random) -> dict[int, int]:
    """Return how often to cut after how many records."""
    acknowledged = [
        position for position, record in enumerate(records, 1) if record.kind is Kind.MARK and '"ack"' in record.path
    ]
    places = dict.fromkeys(acknowledged[:count], 1)
    for number in range(count - len(places)):
        position = chance.choice(acknowledged) if number % 3 == 0 else chance.randrange(1, len(records) + 1)
        places[position] = places.get(position, 0) + 1
    return places


def wrongs_after(crash: Crash, recording: Recording, folder: Path) -> list[str]:
    """Open an index server on what is left and return what is wrong with it."""
    root = folder / "crash"
    write_tree(crash.left, root)
    try:
        with index_server(root / "data") as channel:
            found = read_state(stub_of(channel))
            wrong = wrongs(found, crash.progress, recording.states, recording.steps)
            wrong = wrong or _wrongs_of_snapshot(stub_of(channel), snapshots_beside(root / "data"), crash, recording)
        return wrong or (_wrongs_of_use(root / "data", found) if crash.after % _USED == 0 else [])
    except grpc.RpcError as error:
        return [f"the server cannot be read: {error.details()}"]
    finally:
        shutil.rmtree(root)


def _wrongs_of_snapshot(
    stub: index_pb2_grpc.IndexServiceStub, snapshots: Path, crash: Crash, recording: Recording
) -> list[str]:
    """Restore a snapshot that was acknowledged before the crash: return what is wrong with its items."""
    progress = crash.progress
    for number, step in enumerate(recording.steps[: progress.begun + 1]):
        call = step.calls[0]
        if call.method != "CreateSnapshot" or (number == progress.begun and not progress.acknowledged):
            continue
        uri = str(snapshots / Path(call.requests[0].uri).name)
        stub.RestoreSnapshot(index_pb2.RestoreSnapshotRequest(uri=uri, name="again"), timeout=60)
        found, wanted = read_state(stub)["again"], recording.states[number][call.requests[0].pool]
        stub.DeletePool(index_pb2.DeletePoolRequest(name="again"), timeout=60)
        wrong = differences({"again": {"items": found["items"]}}, {"again": {"items": wanted["items"]}})
        if wrong:
            return [f"the snapshot of step {number}, acknowledged, but: {what}" for what in wrong]
    return []


def _wrongs_of_use(data_dir: Path, found: State) -> list[str]:
    """Add an item to each pool and start again: return what is wrong with the pools then."""
    batch = common_pb2.ItemBatch(ids=["after"], vectors=to_matrix(np.ones((1, DIMENSION), np.float32)))
    batch.payloads.texts.append("after")
    for name in found:
        with index_server(data_dir) as channel:
            stub_of(channel).Upsert(iter([index_pb2.UpsertRequest(pool=name, items=batch, last=True)]), timeout=60)
        found[name]["items"]["after"] = [[1.0] * DIMENSION, "after"]
        found[name]["size"] += 1
    with index_server(data_dir) as channel:
        return differences(read_state(stub_of(channel)), found)
