"""Between messages and arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealpool.batches import cut, from_batch, from_labelled_batch, join, to_batch, to_labelled_batches
from sealpool.errors import InvalidArgument
from sealpool.matrix import from_matrix, to_matrix
from sealpool.types import ItemId, Items, LabelledItems, Payload
from sealpool.v1 import common_pb2


def some_items(count: int, *, dimension: int = 3, payloads: bool = True) -> Items:
    return Items(
        ids=[ItemId(f"item-{number}") for number in range(count)],
        vectors=np.arange(count * dimension, dtype=np.float32).reshape(count, dimension),
        payloads=[Payload(text="t" * number, metadata={"n": number}) for number in range(count)] if payloads else None,
    )


def same(one: Items, other: Items) -> bool:
    vectors = one.vectors is other.vectors or np.array_equal(one.vectors, other.vectors)  # type: ignore[arg-type]
    return list(one.ids) == list(other.ids) and vectors and one.payloads == other.payloads


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_matrix_comes_back_as_float32(dtype: type) -> None:
    array = np.array([[1, 2.5], [-3, 0]], dtype)
    back = from_matrix(to_matrix(array))
    assert back.dtype == np.float32
    assert np.array_equal(back, array)


def test_an_array_that_is_not_contiguous_is_encoded_by_its_values() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert np.array_equal(from_matrix(to_matrix(array)), array)


def test_a_matrix_with_bytes_missing_is_refused() -> None:
    matrix = common_pb2.Matrix(data=b"\0" * 7, dtype=common_pb2.DTYPE_FLOAT32, rows=1, columns=2)
    with pytest.raises(InvalidArgument, match=r"vectors.data: has 7 bytes; 1 × 2 float32 take 8"):
        from_matrix(matrix)


def test_a_matrix_without_dtype_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"vectors.dtype"):
        from_matrix(common_pb2.Matrix(data=b"", rows=0, columns=0))


def test_items_come_back_from_a_batch_as_they_were() -> None:
    items = some_items(4)
    assert same(from_batch(to_batch(items)), items)


def test_what_was_not_asked_for_is_none_and_not_empty() -> None:
    back = from_batch(to_batch(Items(ids=[ItemId("a")])))
    assert back.vectors is None
    assert back.payloads is None


@given(count=st.integers(0, 40), chunk_bytes=st.integers(1, 400), payloads=st.booleans())
def test_chunks_put_together_are_the_whole(count: int, chunk_bytes: int, payloads: bool) -> None:
    items = some_items(count, payloads=payloads)
    chunks = list(cut(items, chunk_bytes=chunk_bytes))
    assert all(len(chunk) for chunk in chunks)
    assert same(join(chunks, vectors=True, payloads=payloads, dimension=3), items)


def test_chunks_stay_near_their_size() -> None:
    items = some_items(1000, dimension=64, payloads=False)
    sizes = [to_batch(chunk).ByteSize() for chunk in cut(items, chunk_bytes=10_000)]
    assert max(sizes) < 11_000
    assert len(sizes) < 30


def test_labelled_items_come_back_as_they_were() -> None:
    items = LabelledItems(ids=[ItemId(x) for x in "abc"], labels=[[0], [], [2, 1]])
    parts = [from_labelled_batch(batch) for batch in to_labelled_batches(items, chunk_rows=2)]
    assert [len(part) for part in parts] == [2, 1]
    assert [label for part in parts for label in part.labels] == [[0], [], [2, 1]]


@pytest.mark.parametrize(
    ("batch", "field"),
    [
        (common_pb2.LabelledBatch(ids=["a"], label_counts=[1, 1], labels=[0, 0]), "examples.label_counts"),
        (common_pb2.LabelledBatch(ids=["a"], label_counts=[2], labels=[0]), "examples.labels"),
        (common_pb2.LabelledBatch(ids=[], label_counts=[], labels=[0]), "examples.labels"),
    ],
)
def test_label_columns_that_do_not_add_up_are_refused(batch: common_pb2.LabelledBatch, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        from_labelled_batch(batch)
    assert caught.value.field == field
