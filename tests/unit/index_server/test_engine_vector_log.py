"""Whole vectors beside an index of codes, in memory and on disk."""

import gc
import os
import resource

import numpy as np
import pytest

from index_server.engines import ENGINES, BuildRequest
from index_server.engines.vector_log import vector_log
from index_server.spec import Device, EngineOptions, Metric, VectorType


@pytest.fixture(params=["memory", "disk"])
def directory(request, tmp_path):
    return tmp_path if request.param == "disk" else None


@pytest.fixture
def small_files():
    """Lets no file grow beyond 1 MiB: an allocation beyond it fails as one on a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def vectors_of(count, dimension=3, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def test_gives_back_what_was_written_across_growth(directory):
    log = vector_log(1000, VectorType.FLOAT32, directory)
    vectors = vectors_of(40_000, 1000)  # more than one step of the file
    for start in range(0, len(vectors), 9000):
        log.write(start, vectors[start : start + 9000])
    rows = np.array([39_999, 0, 16_777, 0, 31_000])
    np.testing.assert_array_equal(log.take(rows), vectors[rows])


def test_writing_again_overwrites_what_followed(directory):
    log = vector_log(3, VectorType.FLOAT32, directory)
    log.write(0, vectors_of(10))
    log.write(4, vectors_of(2, seed=1))
    np.testing.assert_array_equal(
        log.take(np.array([3, 4, 5])), np.vstack([vectors_of(10)[3:4], vectors_of(2, seed=1)])
    )


def test_rounds_to_float16_where_that_is_kept(directory):
    log = vector_log(3, VectorType.FLOAT16, directory)
    log.write(0, vectors_of(10))
    given = log.take(np.arange(10))
    assert given.dtype == np.float32
    np.testing.assert_array_equal(given, vectors_of(10).astype(np.float16))


def test_takes_nothing(directory):
    log = vector_log(3, VectorType.FLOAT32, directory)
    log.write(0, vectors_of(0))
    assert log.take(np.empty(0, np.int64)).shape == (0, 3)


def test_a_file_of_vectors_has_no_name_and_is_closed_with_its_owner(tmp_path):
    log = vector_log(3, VectorType.FLOAT32, tmp_path)
    log.write(0, vectors_of(10))
    assert not list(tmp_path.iterdir())
    assert log.memory_bytes == 0
    descriptor = log._file
    os.fstat(descriptor)
    del log
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize("name", ["ivf_pq", "lsh"])
def test_a_full_disk_refuses_an_addition_and_the_engine_goes_on(name, tmp_path, small_files):
    vectors = vectors_of(500, 8)
    request = BuildRequest(
        dimension=8,
        metric=Metric.L2,
        options=EngineOptions(ivf_lists=2, ivf_probes=2),
        device=Device.CPU,
        items=500,
        sample=lambda count: vectors[:count],
        saved=None,
        threads=1,
        seed=0,
        scratch_dir=tmp_path,
    )
    engine = ENGINES[name].build(request)
    with pytest.raises(OSError, match="too large"):
        engine.add(np.arange(500), vectors)
    assert engine.size == 0
    small_files()
    engine.add(np.arange(500), vectors)
    engine.reveal(np.arange(500))
    assert engine.search(vectors[3:4], 1)[0].tolist() == [[3]]
