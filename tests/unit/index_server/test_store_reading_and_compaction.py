import threading

import numpy as np
import pytest
from lance.fragment import write_fragments

from index_server.records import Records
from index_server.spec import VectorType
from index_server.store import vector_pages
from index_server.store.lance_store import LanceStore
from sealpool.errors import ResourceExhausted, Unavailable

DIMENSION = 64


def vectors_of(ids):
    return np.stack([np.random.default_rng(sum(map(ord, i))).standard_normal(DIMENSION) for i in ids])


def records(ids, dtype=np.float32):
    return Records(ids=list(ids), vectors=vectors_of(ids).astype(dtype))


def names(prefix, count):
    return [f"{prefix}{number}" for number in range(count)]


def uploaded(store, ids, dtype=np.float32):
    upload = store.begin()
    upload.write(records(ids, dtype))
    upload.finish()
    return upload


def put(store, ids, superseded=()):
    store.commit([uploaded(store, ids)], np.array(superseded, np.uint64))


def delete(store, ids):
    snapshot = store.snapshot()
    known = [i for part in snapshot.scan(vectors=False, payloads=False) for i in part.ids]
    store.commit([], snapshot.addresses()[[known.index(i) for i in ids]])


def read(snapshot):
    parts = list(snapshot.items())
    ids = [i for part in parts for i in part.ids.to_pylist()]
    return ids, np.concatenate([part.vectors for part in parts]) if parts else np.empty((0, DIMENSION))


def files_in(directory):
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(params=["float32", "float16"])
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture
def store(tmp_path):
    LanceStore.create(tmp_path, dimension=DIMENSION, vector_type=VectorType.FLOAT32)
    return LanceStore.open(tmp_path)


@pytest.fixture(params=["plain", "decoded"])
def way(request, monkeypatch):
    monkeypatch.setattr(vector_pages, "PART_BYTES", 7 * DIMENSION * 4)  # several parts, none a divisor of a page
    if request.param == "decoded":
        monkeypatch.setattr(vector_pages, "_plain_rows", lambda *_: 0)
    return request.param


def test_several_uploads_become_one_version_in_the_order_given(store):
    first, second = uploaded(store, ["a", "b"]), uploaded(store, ["c"])
    before = store.version
    store.commit([second, first], np.empty(0, np.uint64))
    assert read(store.snapshot())[0] == ["c", "a", "b"]
    assert store.version == before + 1


def test_items_come_as_they_were_written_without_those_deleted(store, way):
    ids = names("i", 1000)
    put(store, ids[:600])
    put(store, ids[600:])
    gone = set(ids[20:40] + ids[590:610])
    delete(store, gone)
    left = [i for i in ids if i not in gone]
    found, vectors = read(store.snapshot())
    assert found == left
    np.testing.assert_array_equal(vectors, records(left).vectors)


def test_items_of_an_empty_store_are_none(store):
    assert list(store.snapshot().items()) == []


def test_vectors_of_an_upload_are_read_back_before_its_commit(tmp_path, dtype, way):
    LanceStore.create(tmp_path, dimension=DIMENSION, vector_type=VectorType(dtype.name))
    store = LanceStore.open(tmp_path)
    ids = names("i", 500)
    upload = uploaded(store, ids, dtype)
    parts = list(upload.vectors())
    assert len(parts) > 10
    assert parts[0].dtype == dtype
    np.testing.assert_array_equal(np.concatenate(parts), vectors_of(ids).astype(dtype))
    assert store.snapshot().count == 0


def test_pages_of_wide_vectors_are_found_to_be_plain(store, tmp_path):
    put(store, names("i", 500))
    (path,) = (tmp_path / "items.lance" / "data").iterdir()
    plain = vector_pages.PlainVectors.find(path, "vector", DIMENSION, np.dtype(np.float32))
    assert plain is not None
    with plain:
        assert plain.rows == 500


def test_a_page_that_lance_reads_otherwise_is_left_to_lance(store, tmp_path, monkeypatch):
    put(store, names("i", 500))
    (path,) = (tmp_path / "items.lance" / "data").iterdir()
    monkeypatch.setattr(vector_pages.PlainVectors, "_position", lambda *_: 8)
    assert vector_pages.PlainVectors.find(path, "vector", DIMENSION, np.dtype(np.float32)) is None


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr("index_server.store.upload.PART_BYTES", 10 * DIMENSION * 4)


def test_parts_that_are_written_in_the_background_keep_their_order(store, small_parts):
    ids, upload = names("i", 200), store.begin()
    for start in range(0, 200, 20):
        upload.write(records(ids[start : start + 20]))
    upload.finish()
    assert len(upload.fragments) == 10
    np.testing.assert_array_equal(np.concatenate(list(upload.vectors())), records(ids).vectors)
    store.commit([upload], np.empty(0, np.uint64))
    assert read(store.snapshot())[0] == ids


def test_what_fails_in_the_background_fails_the_upload_and_leaves_no_file(store, tmp_path, small_parts, monkeypatch):
    before, upload = files_in(tmp_path), store.begin()
    upload.write(records(names("i", 20)))

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("index_server.store.lance_store.write_fragments", refuse)
    upload.write(records(names("j", 20)))
    with pytest.raises(ResourceExhausted):
        upload.finish()
    upload.abort()
    assert files_in(tmp_path) == before


def test_closing_waits_for_the_part_in_flight(store, small_parts, monkeypatch):
    began, may_end, closed = threading.Event(), threading.Event(), threading.Event()

    def slowly(*args, **kwargs):
        began.set()
        may_end.wait(10)
        return write_fragments(*args, **kwargs)

    monkeypatch.setattr("index_server.store.lance_store.write_fragments", slowly)
    upload = store.begin()
    upload.write(records(names("i", 20)))
    began.wait(10)
    closing = threading.Thread(target=lambda: (store.close(), closed.set()))
    closing.start()
    assert not closed.wait(0.1)
    may_end.set()
    closing.join()
    upload.write(records(names("j", 5)))
    with pytest.raises(Unavailable):
        upload.finish()
    upload.abort()


def test_a_prepared_compaction_lets_commits_happen_meanwhile(store, tmp_path):
    for name in "abcd":
        put(store, [name])
    rewrite = store.prepare_compaction(1 << 40)
    put(store, ["e"])
    assert store.commit_compaction(rewrite)
    assert read(store.snapshot())[0] == list("abcde") == read(LanceStore.open(tmp_path).snapshot())[0]
    assert len(list((tmp_path / "items.lance" / "data").iterdir())) == 2


def test_a_compaction_of_items_deleted_meanwhile_is_refused_and_leaves_no_file(store, tmp_path):
    for name in "abcd":
        put(store, [name, name * 2])
    rewrite = store.prepare_compaction(1 << 40)
    delete(store, ["b"])
    before = store.version
    assert not store.commit_compaction(rewrite)
    del rewrite
    assert (store.version, len(list((tmp_path / "items.lance" / "data").iterdir()))) == (before, 4)
    assert read(store.snapshot())[0] == ["a", "aa", "bb", "c", "cc", "d", "dd"]


def test_a_compaction_that_is_not_committed_is_gone_when_the_store_is_opened_again(store, tmp_path):
    for name in "abcd":
        put(store, [name])
    before = files_in(tmp_path / "items.lance" / "data")
    store.prepare_compaction(1 << 40)
    assert files_in(tmp_path / "items.lance" / "data") > before
    assert read(LanceStore.open(tmp_path).snapshot())[0] == list("abcd")
    assert files_in(tmp_path / "items.lance" / "data") == before


def test_a_failed_compaction_changes_nothing(store, tmp_path, monkeypatch):
    for name in "abcd":
        put(store, [name])
    before = files_in(tmp_path)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    rewrite = store.prepare_compaction(1 << 40)
    with monkeypatch.context() as patch:
        patch.setattr("index_server.store.lance_store.write_durably", refuse)
        with pytest.raises(ResourceExhausted):
            store.commit_compaction(rewrite)
    del rewrite
    assert files_in(tmp_path / "items.lance" / "data") == {
        name.removeprefix("items.lance/data/") for name in before if "/data/" in name
    }
    put(store, ["e"])
    assert read(LanceStore.open(tmp_path).snapshot())[0] == list("abcde")


def test_compaction_rewrites_no_more_than_its_budget_and_gets_done_in_steps(store):
    for number in range(10):
        put(store, [f"{number}a", f"{number}b"])
    steps = 0
    while (rewrite := store.prepare_compaction(8 * DIMENSION * 4)) is not None:
        assert sum(fragment.physical_rows for fragment in rewrite.new_fragments) <= 22
        assert store.commit_compaction(rewrite)
        steps += 1
        assert steps < 20
    assert steps > 1
    assert read(store.snapshot())[0] == [f"{number}{letter}" for number in range(10) for letter in "ab"]


def test_nothing_to_rewrite_is_none(store):
    put(store, ["a"])
    assert store.prepare_compaction(1 << 40) is None


def test_a_purge_leaves_no_byte_of_deleted_items_and_all_others_in_their_order(store, tmp_path):
    put(store, [*names("a", 150), "zzz", *names("x", 150)])
    put(store, names("b", 300))
    put(store, ["c"])
    gone = vectors_of(["zzz", "c"]).astype(read(store.snapshot())[1].dtype)
    assert all(any(vector.tobytes() in path.read_bytes() for path in data_files(tmp_path)) for vector in gone)
    delete(store, ["zzz", "c"])
    steps = 0
    while (rewrite := store.prepare_purge(1)) is not None:
        assert store.commit_compaction(rewrite)
        steps += 1
    del rewrite
    assert steps == 1  # the fragment that c was in went with it
    assert store.collect(before=store.version)
    assert not any(vector.tobytes() in path.read_bytes() for path in data_files(tmp_path) for vector in gone)
    kept = names("a", 150) + names("x", 150) + names("b", 300)
    assert read(store.snapshot())[0] == kept == read(LanceStore.open(tmp_path).snapshot())[0]


def test_files_that_somebody_still_reads_are_told_and_stay(store, tmp_path):
    put(store, ["a", "b"])
    reading = store.snapshot()
    delete(store, ["a"])
    assert store.commit_compaction(store.prepare_purge(1 << 40))
    assert not store.collect(before=store.version)
    assert read(reading)[0] == ["a", "b"]
    del reading
    assert store.collect(before=store.version)
    assert len(files_in(tmp_path / "items.lance" / "data")) == 1


def data_files(directory):
    return [path for path in (directory / "items.lance").rglob("*") if path.is_file()]
