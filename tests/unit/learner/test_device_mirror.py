"""The copy of the candidates on a device is what the cache holds."""

import numpy as np
import pytest
import torch

from learner.candidates import Candidates
from learner.device import Mirror, resolve_device
from sealpool.types import ItemId, Items
from sealpool.v1 import common_pb2
from tests.support.fake_index import FakeUpdate

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[needs_gpu, pytest.mark.gpu])]


def put(candidates: Candidates, numbers: range, *, value: float, removed: range = range(0)) -> None:
    rows = np.full((len(numbers), 4), value, np.float32) + np.array(numbers, np.float32)[:, None]
    version = candidates.version + 1
    candidates.apply(
        FakeUpdate(
            added=Items(ids=[ItemId(str(number)) for number in numbers], vectors=rows),
            removed=[ItemId(str(number)) for number in removed],
            info=common_pb2.CandidatePoolInfo(version=version),
            base_version=version - 1,
            pool_direction=np.zeros(4, np.float32),
            pool_version=1,
        )
    )


@pytest.mark.parametrize("limit_bytes", [0, 1 << 20])
@pytest.mark.parametrize("device", DEVICES)
def test_the_mirror_follows_every_update(device: str, limit_bytes: int) -> None:
    candidates, mirror = Candidates(), Mirror(torch.device(device), limit_bytes=limit_bytes)
    for numbers, removed, value in (
        (range(10), range(0), 0.0),
        (range(5, 3000), range(3), 0.5),
        (range(0), range(100, 400), 0.0),
        (range(2), range(0), 9.0),
    ):
        put(candidates, numbers, value=value, removed=removed)
        mirror.sync(candidates)
        rows = mirror.rows(candidates, 0, len(candidates))
        assert rows.device.type == device
        np.testing.assert_array_equal(rows.cpu().numpy(), candidates.vectors)
        np.testing.assert_array_equal(mirror.rows(candidates, 1, 3).cpu().numpy(), candidates.vectors[1:3])
        slots = np.array([7, 0, 3], np.int64)
        np.testing.assert_array_equal(mirror.take(candidates, slots).cpu().numpy(), candidates.vectors[slots])


def test_auto_takes_a_gpu_where_there_is_one() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu").type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="here torch finds a CUDA device")
def test_a_gpu_that_is_not_there_is_said_to_be_missing() -> None:
    with pytest.raises(RuntimeError, match="finds no CUDA device"):
        resolve_device("cuda")
