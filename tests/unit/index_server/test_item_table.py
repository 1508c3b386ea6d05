import errno
import os

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index_server.table.item_table import ItemTable
from sealpool.errors import NotFound

IDS = ["a", "ü", "日本", "\U0001f9ad", "a\x00b", "a b"]


def append(table, ids, first_address=0):
    addresses = np.arange(first_address, first_address + len(ids), dtype=np.uint64)
    return table.append(ids, addresses, np.ones(len(ids), np.float32))


@pytest.fixture(params=["memory", "file"])
def table(request, tmp_path):
    table = ItemTable(directory=tmp_path if request.param == "file" else None)
    yield table
    table.close()


@pytest.mark.parametrize("kind", [list, pa.array, lambda ids: pa.array(["x", *ids], pa.large_string())[1:]])
def test_ids_of_every_script_are_found(table, kind):
    append(table, ["before"])
    assert append(table, kind(IDS)).tolist() == [1, 2, 3, 4, 5, 6]
    assert table.find(IDS).tolist() == [1, 2, 3, 4, 5, 6]
    assert table.ids_at(np.array([3, 1, 3])) == ["日本", "a", "日本"]
    assert table.find(["u", "日", "a\x00", "b"]).tolist() == [-1] * 4


def test_the_empty_string_is_never_there(table):
    assert table.find([""]).tolist() == [-1]
    append(table, IDS)
    table.skip_to(20)
    assert table.find(["", "a"]).tolist() == [-1, 0]


def test_an_empty_table_answers(table):
    assert append(table, []).tolist() == []
    assert (len(table), table.rows, table.find([]).tolist(), table.ids_at(np.empty(0, np.int64))) == (0, 0, [], [])


def test_dead_items_are_not_found_but_their_ids_can_be_read(table):
    append(table, IDS)
    table.retire(np.array([0, 2]))
    assert table.find(["a", "ü", "日本"]).tolist() == [-1, 1, -1]
    assert table.ids_at(np.array([0, 2])) == ["a", "日本"]
    assert (len(table), table.rows) == (4, 6)
    assert table.live_rows().tolist() == [1, 3, 4, 5]
    with pytest.raises(NotFound, match="日本"):
        table.lookup(["ü", "日本"])


def test_a_replaced_item_is_found_where_it_lies_now_however_often_it_was_replaced(table):
    append(table, IDS)
    for number in range(2000):
        table.retire(table.lookup(["ü"]))
        append(table, ["ü"], 100 + number)
    assert table.find(IDS).tolist() == [0, 2005, 2, 3, 4, 5]
    assert table.addresses_at(table.find(["ü"])).tolist() == [2099]


def test_moved_items_have_new_addresses_in_the_order_of_rows(table):
    append(table, IDS)
    table.retire(np.array([1]))
    table.move(np.array([10, 11, 12, 13, 14], np.uint64))
    assert table.addresses_at(np.array([0, 2, 5])).tolist() == [10, 11, 14]
    with pytest.raises(ValueError, match="4 addresses for 5"):
        table.move(np.zeros(4, np.uint64))


def test_skipped_rows_are_dead(table):
    append(table, ["a"])
    table.skip_to(5)
    table.skip_to(2)
    assert append(table, ["b"]).tolist() == [5]
    assert table.live_rows().tolist() == [0, 5]
    assert table.find(["a", "b"]).tolist() == [0, 5]


def test_it_takes_over_rows_of_another_table(table):
    other = ItemTable()
    append(other, IDS, 50)
    append(table, ["first"])
    assert table.extend_from(other, np.array([2, 4])).tolist() == [1, 2]
    assert table.find(["日本", "a\x00b", "a"]).tolist() == [1, 2, -1]
    assert table.addresses_at(np.array([1, 2])).tolist() == [52, 54]


def test_an_item_takes_at_most_24_bytes_of_memory(tmp_path):
    table = ItemTable(directory=tmp_path)
    for start in range(0, 200_000, 10_000):
        append(table, [f"item-{number:012}" for number in range(start, start + 10_000)])
    assert table.nbytes <= 24 * 200_000
    assert table.find(["item-000000199999", "item-000000200000"]).tolist() == [199_999, -1]
    table.close()


def test_a_full_disk_is_an_error_before_anything_was_taken_in(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    table = ItemTable(directory=tmp_path)
    append(table, IDS)
    many = [f"item-{number}" for number in range(100_000)]
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse)
        with pytest.raises(OSError, match="No space"):
            table.reserve(len(many), text_bytes=1_000_000)
        assert (len(table), table.find(IDS).tolist()) == (6, [0, 1, 2, 3, 4, 5])
    table.reserve(len(many), text_bytes=1_500_000)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse)
        append(table, many)
    assert table.find(many[-1:]).tolist() == [100_005]
    table.close()


SOME = st.lists(st.sampled_from([*IDS, *"bcdefgh"]), unique=True, max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["upsert", "delete", "skip", "copy"]), SOME), max_size=15))
def test_it_is_a_dict_that_keeps_the_order_of_arrival(steps):
    table, model = ItemTable(), {}
    for step, ids in steps:
        if step == "skip":
            table.skip_to(table.rows + len(ids))
        elif step == "copy":
            other = ItemTable()
            other.extend_from(table, table.live_rows())
            table = other
        else:
            rows = table.find(ids)
            table.retire(rows[rows >= 0])
            for item_id in ids:
                model.pop(item_id, None)
            if step == "upsert":
                append(table, ids, 1000 * len(model))
                model |= dict(zip(ids, range(1000 * len(model), 1000 * len(model) + len(ids)), strict=True))
        assert table.ids_at(table.live_rows()) == list(model)
        assert table.addresses_at(table.find(model)).tolist() == list(model.values())
        assert (table.find([*IDS, "b"]) >= 0).tolist() == [item_id in model for item_id in [*IDS, "b"]]
