import errno
import os

import numpy as np
import pytest

from index_server.table.columns import Column


@pytest.fixture(params=["memory", "file"])
def column(request, tmp_path):
    column = Column(np.int64, directory=tmp_path if request.param == "file" else None)
    yield column
    column.close()


def test_it_grows_by_zeros_and_keeps_what_it_has(column):
    for start in range(0, 60_000, 7919):
        new = column.extend(7919)
        assert not new.any()
        new[:] = np.arange(start, start + 7919)
    assert len(column) == 8 * 7919
    np.testing.assert_array_equal(column.values, np.arange(8 * 7919))


def test_a_view_stays_valid_while_the_column_grows(column):
    column.extend(3)[:] = [1, 2, 3]
    before = column.values
    column.extend(1_000_000)
    assert before.tolist() == [1, 2, 3]


def test_a_view_can_still_be_read_once_the_column_is_closed(column):
    column.extend(3)[:] = [1, 2, 3]
    values = column.values
    column.close()
    assert values.tolist() == [1, 2, 3]


def test_its_file_has_no_name(tmp_path):
    column = Column(np.uint8, directory=tmp_path)
    column.extend(100_000)
    assert list(tmp_path.iterdir()) == []
    column.close()


def test_a_full_disk_is_an_error_that_leaves_it_as_it_was(tmp_path, monkeypatch):
    column = Column(np.int64, directory=tmp_path)
    column.extend(2)[:] = [7, 8]

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse)
        for grow in (column.reserve, column.extend):
            with pytest.raises(OSError, match="No space"):
                grow(1_000_000)
        assert column.values.tolist() == [7, 8]
    column.reserve(1_000_000)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse)
        column.extend(1_000_000)
    assert column.values[:3].tolist() == [7, 8, 0]
    column.close()
