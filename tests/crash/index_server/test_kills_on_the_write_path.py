"""A child process is killed at each named point of the write path, and the pool is opened again."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import structlog

from index_server.catalog import PoolCatalog, PoolState
from index_server.engines.selection import EngineRules
from index_server.index import IndexSettings
from index_server.limits import Limits
from index_server.pool import Pool
from index_server.records import Records
from index_server.spec import PoolSpec
from index_server.store.directory import PoolDirectory

SPEC = PoolSpec(name="p", dimension=4)
LIMITS = Limits(**dict.fromkeys(Limits.__dataclass_fields__, 10_000))
SETTINGS = IndexSettings(rules=EngineRules(flat_items=1000, gpus=0), threads=1, seed=0, max_removed_share=0.5)
OLD = [f"old-{number}" for number in range(20)]


def opened(directory):
    return Pool.load(
        directory, SPEC, settings=SETTINGS, limits=LIMITS, log=structlog.wrap_logger(structlog.ReturnLogger())
    )


def records(ids, seed):
    vectors = np.random.default_rng(seed).standard_normal((len(ids), SPEC.dimension), dtype=np.float32)
    return Records(ids=ids, vectors=vectors)


def expand(pool, labelled, held=0):
    return pool.expand(
        "c",
        policy="seals",
        k=8,
        labelled=labelled,
        expand_from=labelled,
        held_version=held,
        vectors=True,
        payloads=False,
    )


def read(pool):
    """Return everything a caller can see of a pool."""
    parts = list(pool.scan(vectors=True, payloads=False).parts)
    view = pool.candidates("c", vectors=True, payloads=False)
    members = {i: v.tolist() for part in view.added for i, v in zip(part.ids, part.vectors, strict=True)}
    return (
        [item_id for part in parts for item_id in part.ids],
        np.concatenate([part.vectors for part in parts]).tolist(),
        members,
        view.campaign.version,
        sorted(view.campaign.labelled),
        pool.sample(5, seed=1, campaign="c", exclude=[]),
    )


def upsert(directory):
    opened(directory).upsert([records(["old-0", "old-1", "old-2", "new-0"], seed=2)])


def delete(directory):
    opened(directory).delete(OLD[:6])


def grow(directory):
    expand(opened(directory), ["old-9"])


def compact(directory):
    # Ends in a compaction, of many small fragments with deletions among them.
    pool = opened(directory)
    for number in range(70):
        pool.upsert([records([f"more-{number}", "old-0"], seed=number)])


def catalog(data_dir):
    """Return the catalog of the pools below `data_dir`, all of them read."""
    loaded = threading.Event()
    catalog = PoolCatalog(
        PoolDirectory(data_dir),
        settings=SETTINGS,
        limits=LIMITS,
        loading_threads=1,
        clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        log=structlog.wrap_logger(structlog.ReturnLogger()),
    )
    catalog.start(loaded.set)
    assert loaded.wait(30)
    return catalog


def create_pool(data_dir):
    catalog(data_dir).create(PoolSpec(name="new", dimension=4))


def delete_pool(data_dir):
    catalog(data_dir).delete("p")


ACTIONS = {
    "upsert": upsert,
    "delete": delete,
    "grow": grow,
    "compact": compact,
    "create_pool": create_pool,
    "delete_pool": delete_pool,
}


@pytest.fixture
def directory(tmp_path):
    directory = tmp_path / "pool"
    directory.mkdir()
    Pool.create(directory, SPEC)
    pool = opened(directory)
    pool.upsert([records(OLD, seed=1)])
    expand(pool, ["old-10"])
    pool.close()
    return directory


def state_of(directory):
    pool = opened(directory)
    try:
        return read(pool)
    finally:
        pool.close()


def killed(action, directory, failpoint):
    environment = {**os.environ, "SEALPOOL_FAILPOINT": failpoint, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run(
        [sys.executable, __file__, action, str(directory)], env=environment, capture_output=True, timeout=60
    )
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()


@pytest.mark.parametrize("action", ["upsert", "delete"])
@pytest.mark.parametrize(
    ("failpoint", "happened"),
    [
        ("index.upsert.after_data", False),
        ("index.upsert.after_commit", False),
        ("index.upsert.after_head", True),
    ],
)
def test_a_change_of_items_happens_whole_or_not_at_all(directory, action, failpoint, happened):
    before = state_of(directory)
    killed(action, directory, failpoint)
    after = state_of(directory)
    ACTIONS[action](directory)
    done = state_of(directory)
    if happened:
        assert after[0] != before[0]
        assert after[2] != before[2]  # candidates were among the items
        if action == "delete":
            assert after == done
    else:
        assert after == before
    assert done[0] != before[0]


@pytest.mark.parametrize(
    ("failpoint", "happened"), [("index.expand.before_record", False), ("index.expand.after_record", True)]
)
def test_an_expansion_happens_whole_or_not_at_all_and_can_be_repeated(directory, failpoint, happened):
    before = state_of(directory)
    killed("grow", directory, failpoint)
    after = state_of(directory)
    assert (after == before) is not happened
    grow(directory)
    done = state_of(directory)
    if happened:
        assert done == after
    assert "old-9" in done[4]


def test_an_undisturbed_change_ends_where_a_killed_and_repeated_one_does(directory, tmp_path):
    other = shutil.copytree(directory, tmp_path / "other")
    killed("upsert", directory, "index.upsert.after_commit")
    upsert(directory)
    upsert(other)
    assert state_of(directory) == state_of(other)


@pytest.mark.parametrize(
    "failpoint", ["index.compact.after_data", "index.compact.after_commit", "index.compact.after_head"]
)
def test_a_compaction_that_is_killed_changes_no_item_and_is_made_good(directory, failpoint):
    killed("compact", directory, failpoint)
    pool = opened(directory)
    items = [i for part in pool.scan(vectors=True, payloads=True).parts for i in part.ids]
    assert items == [*OLD[1:], *(f"more-{number}" for number in range(len(items) - len(OLD))), "old-0"]
    assert sorted(pool.search(np.ones((1, 4), np.float32), 200, exclude=[]).ids) == sorted(items)
    assert len(read(pool)[2]) == 8
    pool.close()
    opened(directory).close()  # removes the files that only the pool before still read
    assert len(list((directory / "items.lance" / "data").iterdir())) < 10
    pool = opened(directory)
    pool.upsert([records(["after"], seed=3)])
    pool.close()
    assert state_of(directory)[0] == [*items, "after"]


@pytest.mark.parametrize(
    ("failpoint", "exists"), [("index.create.before_rename", False), ("index.create.after_rename", True)]
)
def test_a_pool_is_made_whole_or_not_at_all(tmp_path, failpoint, exists):
    killed("create_pool", tmp_path, failpoint)
    pools = catalog(tmp_path)
    assert [(status.name, status.state) for status in pools.statuses()] == [("new", PoolState.READY)] * exists
    assert len(list((tmp_path / "pools").iterdir())) == exists
    if not exists:
        pools.create(PoolSpec(name="new", dimension=4))
    assert pools.get("new").upsert([records(["a"], seed=0)]).inserted == 1
    pools.close()


@pytest.mark.parametrize(
    ("failpoint", "exists"), [("index.delete.before_rename", True), ("index.delete.after_rename", False)]
)
def test_a_pool_is_deleted_whole_or_not_at_all(tmp_path, failpoint, exists):
    pools = catalog(tmp_path)
    for name in ("p", "other"):
        pools.create(PoolSpec(name=name, dimension=4))
        pools.get(name).upsert([records(OLD, seed=1)])
    pools.close()
    killed("delete_pool", tmp_path, failpoint)
    pools = catalog(tmp_path)
    left = ["other", *["p"] * exists]
    assert [status.name for status in pools.statuses()] == left
    assert sorted(path.name for path in (tmp_path / "pools").iterdir()) == left
    assert all(pools.get(name).size == len(OLD) for name in left)
    pools.close()


if __name__ == "__main__":
    ACTIONS[sys.argv[1]](Path(sys.argv[2]))
