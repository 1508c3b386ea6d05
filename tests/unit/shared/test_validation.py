"""Checks at the edge."""

import numpy as np
import pytest

from sealpool.errors import InvalidArgument, ResourceExhausted
from sealpool.validation import check_ids, check_name, check_payload_lists, check_vectors


@pytest.mark.parametrize("name", ["a", "0", "digits-2026", "A.b_c-d", "x" * 128])
def test_a_usable_name_is_returned(name: str) -> None:
    assert check_name("pool", name) == name


@pytest.mark.parametrize("name", ["", "-a", ".hidden", "../up", "a/b", "a b", "ä", "x" * 129, "a\n"])
def test_a_name_that_could_escape_its_folder_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^pool: ") as caught:
        check_name("pool", name)
    assert caught.value.field == "pool"


def test_an_id_of_256_bytes_is_taken_and_one_of_257_is_not() -> None:
    assert check_ids("ids", ["é" * 128]) == ["é" * 128]
    with pytest.raises(InvalidArgument, match=r"^ids: the id at position 1 "):
        check_ids("ids", ["a", "é" * 128 + "x"])


def test_an_id_with_a_zero_byte_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"position 0 holds a zero byte"):
        check_ids("ids", ["a\0b"])


def test_an_empty_id_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"position 0"):
        check_ids("ids", [""])


def test_a_repeated_id_is_refused_also_across_messages() -> None:
    seen: set[str] = set()
    check_ids("ids", ["a", "b"], seen=seen)
    with pytest.raises(InvalidArgument, match=r"'b' is repeated"):
        check_ids("ids", ["c", "b"], seen=seen)


def test_more_ids_than_the_limit_name_the_setting() -> None:
    with pytest.raises(ResourceExhausted, match=r"3 ids is over the limit of 2 \(setting max_ids\)"):
        check_ids("ids", ["a", "b", "c"], limit=2, setting="max_ids")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused_with_its_row(bad: float) -> None:
    vectors = np.ones((3, 2), np.float32)
    vectors[1, 1] = bad
    with pytest.raises(InvalidArgument, match=r"vectors: row 1 "):
        check_vectors("vectors", vectors)


def test_huge_numbers_whose_squares_overflow_float32_are_finite() -> None:
    vectors = np.full((1, 4), 3e38, np.float32)
    assert check_vectors("vectors", vectors, allow_zero=False) is vectors


def test_tiny_numbers_whose_squares_underflow_float32_are_not_zero() -> None:
    vectors = np.full((1, 4), 1e-40, np.float32)
    assert check_vectors("vectors", vectors, allow_zero=False) is vectors


def test_a_zero_vector_is_refused_only_where_direction_matters() -> None:
    vectors = np.array([[1, 0], [0, 0]], np.float32)
    check_vectors("vectors", vectors)
    with pytest.raises(InvalidArgument, match=r"row 1 is a zero vector"):
        check_vectors("vectors", vectors, allow_zero=False)


def test_rows_dimension_and_axes_are_checked() -> None:
    with pytest.raises(InvalidArgument, match="rows, not 3"):
        check_vectors("vectors", np.ones((2, 4), np.float32), rows=3)
    with pytest.raises(InvalidArgument, match="dimension 4, not 5"):
        check_vectors("vectors", np.ones((2, 4), np.float32), dimension=5)
    with pytest.raises(InvalidArgument, match="1 axes"):
        check_vectors("vectors", np.ones(4, np.float32))


def test_payload_columns_are_empty_or_parallel() -> None:
    check_payload_lists(2, [], [], ["{}", ""])
    with pytest.raises(InvalidArgument, match=r"payloads.texts: has 1 entries for 2 ids"):
        check_payload_lists(2, ["x"], [], [])


@pytest.mark.parametrize("metadata", ["[]", "{", "1", "null"])
def test_metadata_that_is_not_a_json_object_is_refused(metadata: str) -> None:
    with pytest.raises(InvalidArgument, match="entry 0 is not a JSON object"):
        check_payload_lists(1, [], [], [metadata])


def test_a_payload_over_its_size_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"payloads.uris: entry 0 is over 2,048 bytes"):
        check_payload_lists(1, [], ["u" * 2049], [])
