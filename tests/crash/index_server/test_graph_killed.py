"""A pool in which most items were deleted is killed at the start, while its neighbour graph gets new numbers.

No other kill test comes there: they change pools, and this happens only at a start.
"""

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from index_server.graph.neighbour_graph import NeighbourGraph
from index_server.pool import Pool
from index_server.records import Records
from index_server.spec import GraphKind, GraphSpec, PoolSpec
from tests.support.pools import open_pool
from tests.support.recorded_index import child_environment

SPEC = PoolSpec(name="p", dimension=4, graph=GraphSpec(kind=GraphKind.FULL, neighbors=5))
ITEMS, DELETED = 1600, 1200
IDS = [f"item-{number}" for number in range(ITEMS)]
KEPT = IDS[DELETED:]


@pytest.fixture
def directory(tmp_path):
    Pool.create(tmp_path, SPEC)
    with closing(open_pool(tmp_path, SPEC)) as pool:
        vectors = np.random.default_rng(0).standard_normal((ITEMS, 4), dtype=np.float32)
        pool.upsert([Records(ids=IDS, vectors=vectors)])
        pool.delete(IDS[:DELETED])
        while pool.upkeep.run() is not None:
            pass
        assert pool.graph_items == len(KEPT)
    return tmp_path


def neighbours(directory):
    """Return what each item's neighbours are, and how many of them the graph knew."""
    with closing(open_pool(directory, SPEC)) as pool:
        known = pool.graph_items
        found = pool.search_ids(KEPT, 5, exclude=[], vectors=False)
        return known, found.ids, found.scores.tolist()


def true_neighbours(directory):
    """Return the same from the vectors alone."""
    with closing(open_pool(directory, SPEC)) as pool:
        found = pool.search_ids(KEPT, 6, exclude=[], vectors=False)  # more than the graph has
        ids = np.array(found.ids).reshape(len(KEPT), 6)[:, :5]
        return ids.ravel().tolist()


@pytest.mark.parametrize("point", ["index.graph.before_renumbering", "index.graph.after_renumbering"])
def test_a_neighbour_graph_that_was_being_numbered_anew_answers_right_and_knows_no_less(directory, point):
    environment = child_environment(SEALPOOL_FAILPOINT=point)
    child = subprocess.run([sys.executable, __file__, str(directory)], env=environment, capture_output=True, timeout=60)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    known, ids, scores = neighbours(directory)
    assert known == len(KEPT)
    assert ids == true_neighbours(directory)
    assert neighbours(directory) == (known, ids, scores)
    assert len(list((directory / "graph").glob("*.lists"))) == 1


def test_keys_are_numbered_anew_when_such_a_pool_is_read(directory):
    open_pool(directory, SPEC).close()
    with closing(
        NeighbourGraph.open(directory / "graph", neighbors=5, store_version=10**6, live_count=len(KEPT))
    ) as it:
        assert it.key_count == len(KEPT)


if __name__ == "__main__":
    open_pool(Path(sys.argv[1]), SPEC)
