"""A pool that cannot be read leaves no file open, wherever reading it fails."""

import gc
import os
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from index_server.pool import Pool
from index_server.records import Records
from index_server.spec import GraphKind, GraphSpec, PoolSpec
from sealpool.errors import SealpoolError
from tests.support.pools import expand, open_pool

SPEC = PoolSpec(name="p", dimension=4, graph=GraphSpec(kind=GraphKind.FULL, neighbors=10))
IDS = [f"item-{number}" for number in range(300)]

STEPS = [
    "index_server.store.lance_snapshot.LanceSnapshot.addresses",
    "index_server.pool.read_engine_state",
    "index_server.table.item_table.HashIndex.insert",
    "index_server.index.PoolIndex.append",
    "index_server.index.SearchMerger.__init__",
    "index_server.candidates.journal._check_format",
    "index_server.candidates.journal.sync_directory",
    "index_server.candidates.journal.Journal.load",
    "index_server.graph.key_log.sync_directory",
    "index_server.graph.key_log.KeyLog.load",
    "index_server.graph.neighbour_graph._remove_lists",
    "index_server.graph.neighbour_graph._tidied",
    "index_server.pool_graph.GraphBuilder.__init__",
    "index_server.pool.PoolState.__init__",
    "index_server.pool.PoolUpkeep.__init__",
]


@pytest.fixture
def directory(tmp_path):
    Pool.create(tmp_path, SPEC)
    with closing(open_pool(tmp_path, SPEC)) as pool:
        vectors = np.random.default_rng(0).standard_normal((len(IDS), 4), dtype=np.float32)
        pool.upsert([Records(ids=IDS, vectors=vectors)])
        expand(pool, "red", IDS[:3])
        while pool.upkeep.run() is not None:
            pass
    return tmp_path


def open_files(directory):
    """Return what this process has open below `directory`, unnamed files too.

    A map of a file counts until its last view is gone. A file that the collector has to close is a warning, and so an
    error.
    """
    gc.collect()
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            target = str(descriptor.readlink())
            if target.startswith(str(directory)):
                found.append(target)
    return sorted(found)


def fail_for_io(*_args, **_more):
    raise OSError(5, "Input/output error")


def failed_load(directory):
    """Try to read the pool, and return whether that failed."""
    with suppress(OSError, SealpoolError):
        open_pool(directory, SPEC).close()
        return False
    return True


@pytest.mark.parametrize("step", STEPS)
def test_nothing_stays_open_when_reading_a_pool_fails(directory, monkeypatch, step):
    before = open_files(directory)
    with monkeypatch.context() as patch:
        patch.setattr(step, fail_for_io)
        assert failed_load(directory)
    assert open_files(directory) == before
    with closing(open_pool(directory, SPEC)) as pool:
        assert pool.size == len(IDS)


def test_nothing_stays_open_when_there_is_no_room_for_one_more_file(directory, monkeypatch):
    real, left = os.posix_fallocate, []

    def refuse_the_last(descriptor, offset, length):
        if left.pop() == 0:
            raise OSError(28, "No space left on device")
        real(descriptor, offset, length)

    before = open_files(directory)
    monkeypatch.setattr(os, "posix_fallocate", refuse_the_last)
    for allowed in count():
        left[:] = range(allowed + 1)
        failed = failed_load(directory)
        assert open_files(directory) == before
        if not failed:
            break
    assert allowed > 4
