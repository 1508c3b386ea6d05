import gc
import weakref

import numpy as np
import pytest

from index_server.pool import Pool
from index_server.records import Records
from index_server.spec import GraphKind, GraphSpec, PoolSpec
from tests.support.pools import expand, open_pool

PLAIN = PoolSpec(name="p", dimension=4)
WITH_GRAPH = PoolSpec(name="p", dimension=4, graph=GraphSpec(kind=GraphKind.FULL, neighbors=5))


@pytest.fixture
def without_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("spec", [PLAIN, WITH_GRAPH])
def test_a_pool_that_was_closed_and_let_go_keeps_no_memory_until_the_collector_comes(tmp_path, spec):
    Pool.create(tmp_path, spec)
    pool = open_pool(tmp_path, spec)
    pool.upsert([Records(ids=["a", "b", "c"], vectors=np.eye(3, 4, dtype=np.float32))])
    expand(pool, "red", ["a"])
    while pool.upkeep.run() is not None:
        pass
    held = weakref.ref(pool.index.engine)
    pool.close()
    del pool
    assert held() is None
