"""A change that is killed at a named point and made again ends where one does that nobody disturbed.

That what was acknowledged survives, and that nothing is half there, test_kills_at_every_failpoint.py tries for every
point. Here it is which side of a point a change is on, and what comes after.
"""

import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from index_server.pool import Pool
from index_server.records import Records
from index_server.spec import PoolSpec
from tests.support.pools import expand, open_pool
from tests.support.recorded_index import child_environment

SPEC = PoolSpec(name="p", dimension=4)
OLD = [f"old-{number}" for number in range(20)]


def records(ids, seed):
    vectors = np.random.default_rng(seed).standard_normal((len(ids), SPEC.dimension), dtype=np.float32)
    return Records(ids=ids, vectors=vectors)


def upsert(pool):
    pool.upsert([records(["old-0", "old-1", "old-2", "new-0"], seed=2)])


def delete(pool):
    pool.delete(OLD[:6])


def grow(pool):
    expand(pool, "c", ["old-9"], k=8)


def compact(pool):
    """End in a compaction, of many small fragments with deletions among them."""
    for number in range(70):
        pool.upsert([records([f"more-{number}", "old-0"], seed=number)])
    pool.upkeep.run()


def purge(pool):
    pool.delete(OLD[:6])
    pool.purge()


ACTIONS = {action.__name__: action for action in (upsert, delete, grow, compact, purge)}


@pytest.fixture
def directory(tmp_path):
    directory = tmp_path / "pool"
    directory.mkdir()
    Pool.create(directory, SPEC)
    with closing(open_pool(directory, SPEC)) as pool:
        pool.upsert([records(OLD, seed=1)])
        expand(pool, "c", ["old-10"], k=8)
    return directory


def state_of(directory):
    """Return everything a caller can see of a pool but its version, items and candidates in order."""
    with closing(open_pool(directory, SPEC)) as pool:
        parts = list(pool.scan(vectors=True, payloads=False).parts)
        view = pool.candidates("c", vectors=True, payloads=False)
        members = {i: v.tolist() for part in view.added for i, v in zip(part.ids, part.vectors, strict=True)}
        return {
            "ids": [item_id for part in parts for item_id in part.ids],
            "vectors": np.concatenate([part.vectors for part in parts]).tolist(),
            "candidates": members,
            "candidate version": view.campaign.version,
            "sample": pool.sample(5, seed=1, campaign="c", exclude=[])[1],
        }


def done(action, directory):
    with closing(open_pool(directory, SPEC)) as pool:
        ACTIONS[action](pool)
    return state_of(directory)


def killed(action, directory, failpoint):
    child = subprocess.run(
        [sys.executable, __file__, action, str(directory)],
        env=child_environment(SEALPOOL_FAILPOINT=failpoint),
        capture_output=True,
        timeout=60,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    return state_of(directory)


@pytest.mark.parametrize(
    ("action", "failpoint", "happened"),
    [
        ("upsert", "index.upsert.after_data", False),
        *((action, "index.upsert.after_commit", False) for action in ("upsert", "delete")),
        *((action, "index.upsert.after_head", True) for action in ("upsert", "delete")),
        ("grow", "index.expand.before_record", False),
        ("grow", "index.expand.after_record", True),
    ],
)
def test_a_change_is_there_from_one_point_on_and_can_be_made_again(directory, tmp_path, action, failpoint, happened):
    before = state_of(directory)
    undisturbed = done(action, shutil.copytree(directory, tmp_path / "undisturbed"))
    assert undisturbed != before
    assert killed(action, directory, failpoint) == (undisturbed if happened else before)
    again = done(action, directory)
    if action == "upsert" and happened:  # replaced once more, so its candidates changed twice
        assert again["candidate version"] > undisturbed["candidate version"]
        again["candidate version"] = undisturbed["candidate version"]
    assert again == undisturbed


@pytest.mark.parametrize(
    "failpoint", ["index.compact.after_data", "index.compact.after_commit", "index.compact.after_head"]
)
def test_a_compaction_that_is_killed_changes_no_item_and_is_made_good(directory, failpoint):
    found = killed("compact", directory, failpoint)
    assert found["ids"] == [*OLD[1:], *(f"more-{number}" for number in range(70)), "old-0"]
    with closing(open_pool(directory, SPEC)) as pool:
        near = pool.search(np.ones((1, 4), np.float32), 200, exclude=[], vectors=False)
        assert sorted(near.ids) == sorted(found["ids"])
        while pool.upkeep.run() is not None:
            pass
    after = state_of(directory)  # which removes the files that only the pool before it still read
    assert after == found
    assert len(list((directory / "items.lance" / "data").iterdir())) < 10


@pytest.mark.parametrize(
    "failpoint", ["index.compact.after_data", "index.compact.after_commit", "index.compact.after_head"]
)
def test_a_purge_that_is_killed_has_deleted_and_is_made_good_by_asking_again(directory, failpoint):
    vector = records(OLD, seed=1).vectors[3].tobytes()
    assert killed("purge", directory, failpoint)["ids"] == OLD[6:]
    with closing(open_pool(directory, SPEC)) as pool:
        purge(pool)
    assert state_of(directory)["ids"] == OLD[6:]
    files = [path for path in (directory / "items.lance").rglob("*") if path.is_file()]
    assert files
    assert not any(vector in path.read_bytes() for path in files)


if __name__ == "__main__":
    ACTIONS[sys.argv[1]](open_pool(Path(sys.argv[2]), SPEC))
