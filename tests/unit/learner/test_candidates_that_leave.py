"""Sub-pools that are drawn anew and capped pools: many candidates leave and come at once."""

import numpy as np
import pytest
import torch

from learner.candidates import Candidates, Slot
from learner.draws import keys_of
from learner.expansion import HeldCampaigns
from sealpool.types import ItemId, Items
from sealpool.v1 import common_pb2, index_pb2
from tests.support.fake_index import FakeUpdate

VECTORS = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)


def update(added: list[int], removed: list[int], *, version: int) -> FakeUpdate:
    return FakeUpdate(
        added=Items(ids=[ItemId(str(number)) for number in added], vectors=VECTORS[added]),
        removed=[ItemId(str(number)) for number in removed],
        info=common_pb2.CandidatePoolInfo(version=version),
        base_version=version - 1,
        pool_direction=np.zeros(3, np.float32),
        pool_version=1,
    )


@pytest.mark.parametrize("sizes", [(100, 100, 100), (200, 20, 300), (150, 0, 150), (50, 40, 30)])
def test_what_is_held_and_what_a_device_is_told_follow_every_draw(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    candidates = Candidates()
    copy: dict[int, np.ndarray] = {}
    held: set[int] = set()
    for version, size in enumerate(sizes, start=1):
        drawn = set(rng.choice(400, size, replace=False).tolist())
        candidates.apply(update(sorted(drawn - held), sorted(held - drawn), version=version))
        held = drawn
        copy |= {int(slot): candidates.vectors[slot].copy() for slot in candidates.take_changed_slots()}
        assert {candidates.id_at(Slot(slot)) for slot in range(len(candidates))} == {str(number) for number in held}
        for number in held:
            (slot,) = candidates.slots_of([ItemId(str(number))])
            for row in (candidates.vectors[slot], copy[int(slot)]):
                np.testing.assert_array_equal(row, VECTORS[number])
            assert candidates.keys[slot] == keys_of([ItemId(str(number))])[0]
        units = VECTORS[sorted(held)] / np.linalg.norm(VECTORS[sorted(held)], axis=1, keepdims=True)
        np.testing.assert_allclose(candidates.direction, units.mean(axis=0) if held else np.zeros(3), atol=1e-6)


def test_who_never_was_one_may_leave_and_who_comes_back_at_once_stays() -> None:
    candidates = Candidates()
    candidates.apply(update([1, 2, 3], [], version=1))
    candidates.apply(update([2], [2, 3, 3, 9], version=2))
    assert len(candidates) == 2
    assert len(candidates.slots_of([ItemId("1"), ItemId("2")])) == 2


def test_candidates_of_a_pool_that_the_campaign_left_are_let_go() -> None:
    campaigns = HeldCampaigns(torch.device("cpu"), limit_bytes=1 << 30, device_limit_bytes=0)
    first, second = (index_pb2.Pool(spec=index_pb2.PoolSpec(name=name)) for name in ("pool@1", "pool@2"))
    campaigns.get(first, "c").candidates.apply(update([1, 2, 3], [], version=1))
    campaigns.get(first, "other").candidates.apply(update([1], [], version=1))
    assert campaigns.sizes() == {"c": 3, "other": 1}
    assert len(campaigns.get(second, "c").candidates) == 0
    assert campaigns.sizes() == {"c": 0, "other": 1}
    assert campaigns.get(first, "c").candidates.version == 0
