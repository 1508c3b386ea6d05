"""What is said of a pool while it is made or deleted."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime

import pytest
import structlog

from index_server.catalog import PoolCatalog
from index_server.places import Places
from index_server.pool import UpkeepSettings
from index_server.spec import PoolSpec
from index_server.store.directory import PoolDirectory
from sealpool.errors import AlreadyExists, NotFound, Unavailable
from tests.support.pools import LIMITS, NoWatermarks, index_settings

SPEC = PoolSpec(name="p", dimension=4)


@pytest.fixture
def catalog(tmp_path):
    catalog = PoolCatalog(
        PoolDirectory(tmp_path),
        settings=index_settings(),
        upkeep=UpkeepSettings(quiet_s=0.0, patience_s=0.0, compaction_bytes=1 << 30),
        limits=LIMITS,
        watermarks=NoWatermarks(),
        places=Places(snapshot_roots=(str(tmp_path / "snapshots"),), source_roots=()),
        loading_threads=1,
        clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        log=structlog.wrap_logger(structlog.ReturnLogger()),
    )
    catalog.start(lambda: None)
    with closing(catalog):
        yield catalog


@pytest.fixture
def held(monkeypatch):
    """Hold up what the directory of pools does, by the name of the method, until the test lets it go on."""
    held_up, go_on = threading.Event(), threading.Event()

    def hold(name):
        real = getattr(PoolDirectory, name)

        def wait_and_do(*arguments):
            held_up.set()
            assert go_on.wait(20)
            return real(*arguments)

        monkeypatch.setattr(PoolDirectory, name, wait_and_do)
        return held_up, go_on

    return hold


def uses(catalog, tmp_path):
    return [
        lambda: catalog.get("p"),
        lambda: catalog.create_snapshot("p", str(tmp_path / "snapshots" / "one")),
        lambda: catalog.set_alias("a", "p"),
        lambda: catalog.delete("p"),
    ]


def test_a_pool_that_is_being_deleted_is_said_to_be_and_its_name_is_not_free_yet(catalog, tmp_path, held):
    catalog.create(SPEC)
    held_up, go_on = held("delete")
    with ThreadPoolExecutor(1) as other:
        deleting = other.submit(catalog.delete, "p")
        assert held_up.wait(20)
        for use in uses(catalog, tmp_path):
            with pytest.raises(Unavailable, match="pool 'p' is being deleted"):
                use()
        with pytest.raises(AlreadyExists):
            catalog.create(SPEC)
        go_on.set()
        deleting.result()
    with pytest.raises(NotFound, match="no such pool: 'p'"):
        catalog.get("p")
    catalog.create(SPEC)


def test_a_pool_that_is_being_made_is_said_to_be(catalog, tmp_path, held):
    held_up, go_on = held("create")
    with ThreadPoolExecutor(1) as other:
        making = other.submit(catalog.create, SPEC)
        assert held_up.wait(20)
        for use in uses(catalog, tmp_path):
            with pytest.raises(Unavailable, match="pool 'p' is being made"):
                use()
        go_on.set()
        making.result()
    assert catalog.get("p").size == 0
