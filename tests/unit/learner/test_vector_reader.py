"""Vectors are read once while the pool stays as it is, and never more are kept than the limit allows."""

import numpy as np
import pytest

from learner.vectors import VectorReader
from sealpool.types import ItemId
from tests.support.fake_index import FakeIndex

IDS = [ItemId(i) for i in ("a", "b", "ghost", "c")]


@pytest.fixture
def index() -> FakeIndex:
    return FakeIndex({"a": [1, 0], "b": [0, 1], "c": [1, 1]})


def reads(index: FakeIndex) -> list[tuple[str, ...]]:
    return [ids for _, ids in index.calls]


def test_found_rows_point_into_what_was_asked_for(index: FakeIndex) -> None:
    found = VectorReader(index, cache_bytes=1 << 20).read(index.get_pool("pool"), IDS)
    assert found.rows.tolist() == [0, 1, 3]
    np.testing.assert_array_equal(found.vectors, [[1, 0], [0, 1], [1, 1]])


def test_only_what_is_not_held_is_read(index: FakeIndex) -> None:
    reader = VectorReader(index, cache_bytes=1 << 20)
    reader.read(index.get_pool("pool"), IDS[:2])
    reader.read(index.get_pool("pool"), IDS)
    assert reads(index) == [("a", "b"), ("ghost", "c")]


def test_a_changed_pool_is_read_anew(index: FakeIndex) -> None:
    reader = VectorReader(index, cache_bytes=1 << 20)
    reader.read(index.get_pool("pool"), IDS)
    index.put("a", [5, 5])
    assert reader.read(index.get_pool("pool"), IDS[:1]).vectors.tolist() == [[5, 5]]
    index.vectors[ItemId("a")] = np.array([6, 6], np.float32)
    index.created_s += 1  # deleted and made anew, at the same version
    assert reader.read(index.get_pool("pool"), IDS[:1]).vectors.tolist() == [[6, 6]]


def test_the_limit_holds_and_the_answer_is_whole_all_the_same(index: FakeIndex) -> None:
    reader = VectorReader(index, cache_bytes=650)  # two entries of about 300
    assert len(reader.read(index.get_pool("pool"), IDS).rows) == 3
    assert 0 < reader.cached_bytes <= 650
    none = VectorReader(index, cache_bytes=0)
    assert len(none.read(index.get_pool("pool"), IDS).rows) == 3
    assert none.cached_bytes == 0
