"""Until it has read a pool after a restart, the index server says that it is empty: the scheduler waits."""

import pytest

from sealpool.errors import Unavailable
from tests.unit.scheduler.world import DATASET, World, make_spec

SHARED = {"batch_size": 0, "batch_share": 0.05, "oracle": DATASET}


def test_a_campaign_is_begun_once_its_pools_are_read(world: World) -> None:
    world.index.loading = {"pool"}
    with pytest.raises(Unavailable, match="pool 'pool' is being read from disk"):
        world.client.create_campaign(make_spec())
    world.index.loading = set()
    assert world.client.create_campaign(make_spec()).spec.name == "c"


def test_a_round_whose_batch_is_a_share_of_the_pool_begins_once_it_is_read(world: World) -> None:
    world.client.create_campaign(make_spec(**SHARED))
    world.client.run_round("c")
    world.index.loading = {"pool"}
    with pytest.raises(Unavailable, match="is being read from disk"):
        world.client.run_round("c")
    world.index.loading = set()
    size = len(world.index.pools["pool"])
    assert world.client.run_round("c").round.number == 1
    assert len(world.picks()[1]) == -(-size * 5 // 100)


def test_the_seed_batch_notes_a_version_that_was_read(world: World) -> None:
    world.client.create_campaign(make_spec())
    world.index.loading = {"pool"}
    with pytest.raises(Unavailable, match="is being read from disk"):
        world.client.run_round("c")
    world.index.loading = set()
    assert world.client.run_round("c").round.pool_version == 7
