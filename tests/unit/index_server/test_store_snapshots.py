import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import numpy as np
import pytest

from index_server.records import Records
from index_server.spec import PoolSpec, VectorType
from index_server.store.directory import PoolDirectory
from index_server.store.lance_store import LanceStore
from index_server.store.snapshots import read_snapshot_spec, restore_snapshot, write_snapshot
from sealpool.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

DIMENSION = 4
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def put(store, *ids):
    upload = store.begin()
    upload.write(Records(ids=list(ids), vectors=np.ones((len(ids), DIMENSION), np.float32)))
    upload.finish()
    store.commit([upload], np.empty(0, np.uint64))


def ids_of(store):
    return [i for part in store.snapshot().items() for i in part.ids.to_pylist()]


def journal(path, *versions):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS change (campaign TEXT, pool_version INTEGER)")
        connection.executemany("INSERT INTO change VALUES ('c', ?)", [(version,) for version in versions])


def changes_of(path):
    with closing(sqlite3.connect(path)) as connection:
        return [version for (version,) in connection.execute("SELECT pool_version FROM change ORDER BY 1")]


@pytest.fixture
def pools(tmp_path):
    directory = PoolDirectory(tmp_path / "data")
    yield directory
    directory.close()


@pytest.fixture
def pool(pools):
    def fill(path):
        LanceStore.create(path, dimension=DIMENSION, vector_type=VectorType.FLOAT32)
        (path / "engine.state").write_bytes(b"trained")

    pools.create(PoolSpec(name="p", dimension=DIMENSION), NOW, fill)
    return pools.path("p")


@pytest.fixture
def store(pool):
    store = LanceStore.open(pool)
    put(store, "a", "b")
    return store


def test_a_pool_comes_back_as_it_was_under_another_name(pools, pool, store, tmp_path):
    snapshot = store.snapshot()
    journal(pool / "candidates.sqlite", snapshot.version - 1, snapshot.version, snapshot.version + 1)
    put(store, "later")
    uri = str(tmp_path / "elsewhere" / "snap")
    written = write_snapshot(pool, snapshot, uri)
    assert read_snapshot_spec(uri).name == "p"
    pools.create(PoolSpec(name="q", dimension=DIMENSION), NOW, lambda path: restore_snapshot(uri, path) and None)
    restored = LanceStore.open(pools.path("q"))
    assert (restored.version, ids_of(restored)) == (snapshot.version, ["a", "b"])
    assert changes_of(pools.path("q") / "candidates.sqlite") == [snapshot.version - 1, snapshot.version]
    assert (pools.path("q") / "engine.state").read_bytes() == b"trained"
    put(restored, "c")
    assert ids_of(LanceStore.open(pools.path("q"))) == ["a", "b", "c"]
    files = [path for path in (tmp_path / "elsewhere").rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert (written.files, written.bytes) == (len(files), sum(path.stat().st_size for path in files))
    assert changes_of(pool / "candidates.sqlite")[-1] == snapshot.version + 1


def test_nothing_is_left_in_the_pool(pool, store, tmp_path):
    before = sorted(path.name for path in pool.iterdir())
    write_snapshot(pool, store.snapshot(), str(tmp_path / "snap"))
    assert sorted(path.name for path in pool.iterdir()) == before


def test_a_place_that_is_taken_is_left_alone(pool, store, tmp_path):
    (tmp_path / "snap").mkdir()
    (tmp_path / "snap" / "mine").write_text("x")
    with pytest.raises(AlreadyExists):
        write_snapshot(pool, store.snapshot(), str(tmp_path / "snap"))
    assert [path.name for path in (tmp_path / "snap").iterdir()] == ["mine"]


def test_a_place_of_an_unknown_kind_is_refused_without_showing_its_keys(pool, store):
    with pytest.raises(InvalidArgument, match="ftp://host/x") as caught:
        write_snapshot(pool, store.snapshot(), "ftp://user:secret@host/x")
    assert "secret" not in caught.value.message


@pytest.fixture
def snap(pool, store, tmp_path):
    write_snapshot(pool, store.snapshot(), str(tmp_path / "snap"))
    return tmp_path / "snap"


@pytest.fixture
def into(tmp_path):
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def test_without_anything_there_is_no_snapshot(tmp_path, into):
    with pytest.raises(NotFound):
        restore_snapshot(str(tmp_path / "nothing"), into)


def test_a_snapshot_without_manifest_is_incomplete(snap, into):
    (snap / "manifest.json").unlink()
    with pytest.raises(FailedPrecondition, match="incomplete"):
        restore_snapshot(str(snap), into)


@pytest.mark.parametrize("name", ["HEAD", "engine.state", "items.lance/data"])
@pytest.mark.parametrize("harm", ["flipped", "short", "gone"])
def test_a_damaged_file_is_found(snap, into, name, harm):
    path = snap / name
    if path.is_dir():
        (path,) = path.iterdir()
    content = bytearray(path.read_bytes())
    if harm == "gone":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content if harm == "flipped" else content[:-1])
    with pytest.raises(FailedPrecondition, match=r"damaged|missing"):
        restore_snapshot(str(snap), into)


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "items.lance/../../evil", "items.lance/data", "", "a/b/c"])
def test_a_manifest_that_names_files_outside_is_refused(snap, into, path):
    about = json.loads((snap / "manifest.json").read_text())
    about["files"][0]["path"] = path
    (snap / "manifest.json").write_text(json.dumps(about))
    with pytest.raises(FailedPrecondition, match="no file of a pool"):
        restore_snapshot(str(snap), into)


@pytest.mark.parametrize("content", ["{", "{}", '{"format": 2}', '{"format": 1, "pool_version": 1, "files": [{}]}'])
def test_a_damaged_manifest_is_refused(snap, into, content):
    (snap / "manifest.json").write_text(content)
    with pytest.raises(FailedPrecondition):
        restore_snapshot(str(snap), into)
