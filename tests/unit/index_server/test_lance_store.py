import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from index_server.ports import OutcomeUnknown
from index_server.records import PayloadColumns, Records
from index_server.spec import VectorType
from index_server.store.lance_store import LanceStore
from sealpool.durable import sync_directory
from sealpool.errors import FailedPrecondition, ResourceExhausted, Unavailable

DIMENSION = 4


def records(*ids, text="t"):
    vectors = np.arange(len(ids) * DIMENSION, dtype=np.float32).reshape(-1, DIMENSION)
    payloads = PayloadColumns(texts=[text + i for i in ids], uris=[""] * len(ids), metadata_json=["{}"] * len(ids))
    return Records(ids=list(ids), vectors=vectors, payloads=payloads)


def ids_of(store):
    return [i for part in store.snapshot().scan(vectors=True, payloads=False) for i in part.ids]


def put(store, *ids, superseded=()):
    upload = store.begin()
    upload.write(records(*ids))
    upload.finish()
    store.commit([upload], np.array(superseded, np.uint64))


def compact(store):
    return store.commit_compaction(store.prepare_compaction(1 << 40))


def address_of(store, item_id):
    return store.snapshot().addresses()[ids_of(store).index(item_id)]


def files_in(directory):
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def directory(tmp_path):
    LanceStore.create(tmp_path, dimension=DIMENSION, vector_type=VectorType.FLOAT32)
    return tmp_path


@pytest.fixture
def store(directory):
    return LanceStore.open(directory)


def test_a_commit_adds_and_replaces_in_one_version(store):
    put(store, "a", "b")
    before = store.version
    put(store, "a", "c", superseded=[address_of(store, "a")])
    assert ids_of(store) == ["b", "a", "c"]
    assert store.version == before + 1


def test_reads_items_at_addresses_in_the_order_asked(store):
    put(store, "a", "b", "c")
    snapshot = store.snapshot()
    taken = snapshot.take(snapshot.addresses()[[2, 0]], vectors=True, payloads=True)
    assert taken.ids == ["c", "a"]
    np.testing.assert_array_equal(taken.vectors, records("a", "b", "c").vectors[[2, 0]])
    assert taken.payloads.texts == ["tc", "ta"]


def test_the_last_addresses_are_those_of_the_new_items(store):
    put(store, "a", "b")
    put(store, "c", superseded=[address_of(store, "a")])
    snapshot = store.snapshot()
    assert snapshot.take(snapshot.addresses(last=1), vectors=False, payloads=False).ids == ["c"]
    assert len(snapshot.addresses(last=0)) == 0


def test_a_snapshot_reads_its_version_whatever_happens_after(store):
    put(store, "a", "b")
    old = store.snapshot()
    scan = old.scan(vectors=True, payloads=True)
    for name in "cdef":
        put(store, name, superseded=[address_of(store, ids_of(store)[0])])
    assert [i for part in scan for i in part.ids] == ["a", "b"]


def test_versions_that_nobody_reads_are_removed_from_disk(store, directory):
    for name in "abcdef":
        put(store, name)
    assert len(list((directory / "items.lance" / "_versions").glob("*.manifest"))) == 1
    assert len(list((directory / "items.lance" / "data").iterdir())) == 6


def test_an_upload_that_is_not_committed_leaves_no_file(store, directory):
    before = files_in(directory)
    upload = store.begin()
    upload.write(records("a"))
    upload.finish()
    assert files_in(directory) != before
    upload.abort()
    assert files_in(directory) == before


@pytest.mark.parametrize("torn", [False, True], ids=["whole", "torn"])
def test_a_version_beyond_head_is_forgotten_when_opened(store, directory, torn):
    put(store, "a", "b")
    version, manifests = store.version, directory / "items.lance" / "_versions"
    newest = manifests / f"{2**64 - 1 - version - 1:020d}.manifest"
    content = next(manifests.glob("*.manifest")).read_bytes()
    newest.write_bytes(content[: len(content) // 2] if torn else content)
    (manifests / "latest_version_hint.json").write_text(f'{{"version": {version + 1}}}')
    (directory / "items.lance" / "data" / "orphan.lance").write_bytes(b"x")
    reopened = LanceStore.open(directory)
    assert reopened.version == version
    assert ids_of(reopened) == ["a", "b"]
    assert not newest.exists()
    assert not (directory / "items.lance" / "data" / "orphan.lance").exists()
    put(reopened, "c")
    assert ids_of(LanceStore.open(directory)) == ["a", "b", "c"]


def test_a_failed_commit_changes_nothing_and_the_next_one_succeeds(store, directory, monkeypatch):
    put(store, "a", "b")
    before = store.version

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    upload = store.begin()
    upload.write(records("c"))
    upload.finish()
    with monkeypatch.context() as patch:
        patch.setattr("index_server.store.lance_store.write_durably", refuse)
        with pytest.raises(Exception, match="disk space"):
            store.commit([upload], np.array([address_of(store, "a")], np.uint64))
    upload.abort()
    assert (store.version, ids_of(store)) == (before, ["a", "b"])
    assert len(list((directory / "items.lance" / "_deletions").iterdir())) == 0
    put(store, "d")
    assert ids_of(store) == ids_of(LanceStore.open(directory)) == ["a", "b", "d"]


def test_a_commit_of_unknown_outcome_keeps_its_files_for_when_the_store_is_opened(store, directory, monkeypatch):
    put(store, "a", "b")

    def fail(path):
        if (path / "HEAD").exists():
            raise OSError(5, "Input/output error")
        sync_directory(path)

    upload = store.begin()
    upload.write(records("c"))
    upload.finish()
    with monkeypatch.context() as patch:
        patch.setattr("sealpool.durable.sync_directory", fail)
        with pytest.raises(OutcomeUnknown):
            store.commit([upload], np.empty(0, np.uint64))
    upload.abort()
    with pytest.raises(Unavailable):
        put(store, "d")
    assert ids_of(LanceStore.open(directory)) == ["a", "b", "c"]


def test_an_upload_that_fails_during_a_commit_takes_none_of_its_files(store, directory, monkeypatch):
    put(store, "a", "b")
    doomed, failures = store.begin(), []
    doomed.write(records("z"))

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    def fail_beside():
        try:
            doomed.finish()
        except ResourceExhausted as error:
            failures.append(error)

    thread = threading.Thread(target=fail_beside)

    def begin_to_fail(name):
        if name == "index.upsert.after_data":
            thread.start()
            thread.join(0.3)  # long enough to fail, where nothing keeps it from it

    with monkeypatch.context() as patch:
        patch.setattr("index_server.store.lance_store.write_fragments", refuse)
        patch.setattr("index_server.store.lance_store.reach", begin_to_fail)
        store.commit([], np.array([address_of(store, "a")], np.uint64))
        thread.join()
    assert len(failures) == 1
    assert ids_of(LanceStore.open(directory)) == ["b"]


def test_a_closed_store_writes_nothing(store, directory):
    upload = store.begin()
    upload.write(records("a"))
    store.close()
    shutil.rmtree(directory / "items.lance")
    with pytest.raises(Unavailable):
        upload.finish()
    upload.abort()
    assert not (directory / "items.lance").exists()


def test_a_full_disk_refuses_an_upload_and_leaves_no_file(directory):
    # A limit on file size is what a test can set; it reaches us as a full disk does, from within Lance.
    code = f"""
import resource, signal, sys
import numpy as np
from pathlib import Path
from index_server.records import Records
from index_server.store.lance_store import LanceStore
from sealpool.errors import ResourceExhausted
store = LanceStore.open(Path({str(directory)!r}))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
upload = store.begin()
try:
    ids = [str(i) for i in range(200_000)]
    upload.write(Records(ids=ids, vectors=np.random.default_rng(0).standard_normal((200_000, 4), np.float32)))
    upload.finish()
except ResourceExhausted as error:
    upload.abort()
    print(error.setting)
"""
    before = files_in(directory)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "data_dir\n", done.stderr
    assert files_in(directory) <= before


def test_compaction_keeps_items_and_order_and_gives_new_addresses(store, directory):
    for name in "abcdefgh":
        put(store, name)
    put(store, "c", superseded=[address_of(store, "c")])
    before = ids_of(store)
    assert compact(store)
    assert ids_of(store) == before == ids_of(LanceStore.open(directory))
    snapshot = store.snapshot()
    assert snapshot.take(snapshot.addresses(), vectors=False, payloads=False).ids == before
    assert len(list((directory / "items.lance" / "data").iterdir())) == 1
    put(store, "z", superseded=[address_of(store, "a")])
    assert ids_of(store) == [*before[1:], "z"]


def test_many_small_fragments_want_compaction(store):
    for number in range(65):
        put(store, f"i{number}")
    assert store.wants_compaction()
    assert compact(store)
    assert not store.wants_compaction()


def test_a_store_without_head_cannot_be_opened(directory):
    (directory / "HEAD").write_text("{")
    with pytest.raises(FailedPrecondition, match="HEAD"):
        LanceStore.open(directory)


def test_float16_comes_back_as_float16(tmp_path):
    LanceStore.create(tmp_path, dimension=DIMENSION, vector_type=VectorType.FLOAT16)
    store = LanceStore.open(tmp_path)
    upload = store.begin()
    upload.write(Records(ids=["a"], vectors=np.full((1, DIMENSION), 1.5, np.float16)))
    upload.finish()
    store.commit([upload], np.empty(0, np.uint64))
    (part,) = store.snapshot().scan(vectors=True, payloads=True)
    assert part.vectors.dtype == np.float16
    assert part.payloads.texts == [""]
