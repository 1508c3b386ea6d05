"""A child process is killed at each named point of the write path, and the pool is opened again."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import structlog

from index_server.engines.selection import EngineRules
from index_server.index import IndexSettings
from index_server.limits import Limits
from index_server.pool import Pool
from index_server.records import Records
from index_server.spec import PoolSpec

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


ACTIONS = {"upsert": upsert, "delete": delete, "grow": grow}


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


if __name__ == "__main__":
    ACTIONS[sys.argv[1]](Path(sys.argv[2]))
