import lance
import numpy as np
import pyarrow as pa
import pytest

from index_server.spec import LanceSource, PoolSpec, VectorType
from index_server.store.foreign import ForeignLanceStore
from sealpool.errors import FailedPrecondition, InvalidArgument

DIMENSION = 64


def vectors(count, dtype=np.float32):
    return np.random.default_rng(0).standard_normal((count, DIMENSION)).astype(dtype)


def table(ids, numbers, **more):
    flat = pa.array(numbers.reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, DIMENSION)
    return pa.table({"key": ids, "embedding": column, **more})


def spec(uri, **changes):
    source = {"uri": str(uri), "id_column": "key", "vector_column": "embedding"}
    kind = changes.pop("vector_type", VectorType.FLOAT32)
    dimension = changes.pop("dimension", DIMENSION)
    return PoolSpec(name="p", dimension=dimension, vector_type=kind, source=LanceSource(**source | changes))


@pytest.fixture
def uri(tmp_path):
    return tmp_path / "theirs.lance"


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "pool").mkdir()
    return tmp_path / "pool"


def opened(directory, pool):
    ForeignLanceStore.create(directory, pool)
    return ForeignLanceStore.open(directory, pool)


def ids_of(store):
    return [i for part in store.snapshot().items() for i in part.ids.to_pylist()]


def test_integers_are_ids_as_text(directory, uri):
    numbers = vectors(300)
    lance.write_dataset(table(pa.array(range(300), pa.int64()), numbers), uri)
    store = opened(directory, spec(uri))
    assert ids_of(store) == [str(i) for i in range(300)]
    np.testing.assert_array_equal(np.concatenate([part.vectors for part in store.snapshot().items()]), numbers)
    snapshot = store.snapshot()
    assert snapshot.take(snapshot.addresses()[[7, 2]], vectors=False, payloads=False).ids == ["7", "2"]


def test_payload_columns_are_read_and_missing_ones_are_blank(directory, uri):
    titles = pa.array(["one", None], pa.large_string())
    lance.write_dataset(table(pa.array(["a", "b"], pa.large_string()), vectors(2), title=titles), uri)
    store = opened(directory, spec(uri, text_column="title"))
    (part,) = store.snapshot().scan(vectors=True, payloads=True)
    assert part.ids == ["a", "b"]
    assert (part.payloads.texts, part.payloads.uris) == (["one", ""], ["", ""])


def test_float16_is_read_as_float16(directory, uri):
    numbers = vectors(40, np.float16)
    lance.write_dataset(table([str(i) for i in range(40)], numbers), uri)
    (part,) = opened(directory, spec(uri, vector_type=VectorType.FLOAT16)).snapshot().items()
    assert part.vectors.dtype == np.float16
    np.testing.assert_array_equal(part.vectors, numbers)


def test_what_is_written_there_later_is_not_seen(directory, uri):
    lance.write_dataset(table(["a"], vectors(1)), uri)
    ForeignLanceStore.create(directory, spec(uri))
    lance.write_dataset(table(["b"], vectors(1)), uri, mode="append")
    assert ids_of(ForeignLanceStore.open(directory, spec(uri))) == ["a"]


def test_it_is_read_only(directory, uri):
    lance.write_dataset(table(["a"], vectors(1)), uri)
    store = opened(directory, spec(uri))
    for call in (
        store.begin,
        lambda: store.commit([], np.empty(0, np.uint64)),
        lambda: store.prepare_compaction(1),
        lambda: store.commit_compaction(object()),
    ):
        with pytest.raises(FailedPrecondition, match="pool p is read-only"):
            call()
    assert not store.wants_compaction()


def test_a_version_that_is_gone_cannot_be_opened(directory, uri):
    lance.write_dataset(table(["a"], vectors(1)), uri)
    ForeignLanceStore.create(directory, spec(uri))
    uri.rename(uri.with_name("moved"))
    with pytest.raises(FailedPrecondition, match="cannot be read as it was"):
        ForeignLanceStore.open(directory, spec(uri))


def broken(numbers):
    numbers[1, 3] = np.nan
    return numbers


@pytest.mark.parametrize(
    ("columns", "changes", "field", "problem"),
    [
        (table(["a", "b"], vectors(2)), {"id_column": "nope"}, "id_column", "no column 'nope'"),
        (table(pa.array([1.0, 2.0]), vectors(2)), {}, "id_column", "not strings or integers"),
        (table(["a", None], vectors(2)), {}, "id_column", "null in 1 rows"),
        (table(["a", "b", "a"], vectors(3)), {}, "id_column", "1 rows repeat an id, 'a' for one"),
        (table(["a", ""], vectors(2)), {}, "id_column", "0 to 1 bytes"),
        (table(["a", "b"], vectors(2)), {"vector_column": "key"}, "vector_column", "not fixed_size_list"),
        (table(["a", "b"], vectors(2, np.float64)), {}, "vector_column", "holds double numbers"),
        (table(["a", "b"], vectors(2, np.float16)), {}, "vector_column", "spec.vector_type is float32"),
        (table(["a", "b"], vectors(2)), {"dimension": 8}, "vector_column", "64 dimensions"),
        (table(["a", "b"], broken(vectors(2))), {}, "vector_column", "NaN"),
        (table(["a", "b"], vectors(2), n=[1, 2]), {"text_column": "n"}, "text_column", "not strings"),
    ],
)
def test_a_data_set_that_does_not_fit_is_refused(directory, uri, columns, changes, field, problem):
    lance.write_dataset(columns, uri)
    with pytest.raises(InvalidArgument, match=problem) as caught:
        ForeignLanceStore.create(directory, spec(uri, **changes))
    assert caught.value.field == f"spec.source.{field}"
    assert list(directory.iterdir()) == []


def test_a_uri_without_a_data_set_is_refused(directory, uri):
    with pytest.raises(InvalidArgument, match="cannot be opened") as caught:
        ForeignLanceStore.create(directory, spec(uri))
    assert caught.value.field == "spec.source.uri"
