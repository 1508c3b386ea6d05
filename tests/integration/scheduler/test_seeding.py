"""The first batch is chosen as the campaign says, and again the same after a kill."""

from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from sealpool.errors import FailedPrecondition, Unavailable
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, learner_pb2, scheduler_pb2
from tests.unit.scheduler.fakes import vector_of
from tests.unit.scheduler.world import DATASET, World, make_spec

ENCODER = learner_pb2.EmbedHeader(encoder="encoder")
KINDS: dict[str, dict[str, Any]] = {
    "examples": {"kind": scheduler_pb2.SEEDING_KIND_EXAMPLES, "item_ids": ["i030", "i007"]},
    "queries": {"kind": scheduler_pb2.SEEDING_KIND_QUERIES, "queries": ["seals", "ice"], "encoder": ENCODER},
    "typiclust": {"kind": scheduler_pb2.SEEDING_KIND_STRATEGY},
    "concept": {"kind": scheduler_pb2.SEEDING_KIND_CONCEPT},
    "random": {},
}


def seeded(world: World, **changes: Any) -> scheduler_pb2.Round:
    world.client.create_campaign(make_spec(**changes))
    return world.client.run_round("c").round


def seeding(kind: str, **more: Any) -> scheduler_pb2.SeedingSpec:
    return scheduler_pb2.SeedingSpec(**{**KINDS[kind], **more})


def nearest(query: np.ndarray, items: list[str], count: int) -> list[str]:
    return sorted(items, key=lambda item: -float(vector_of(item) @ query))[:count]


def test_examples_come_first_and_then_their_nearest_neighbours_turn_by_turn(world: World) -> None:
    seed = seeded(world, seeding=seeding("examples"))
    picks = world.picks()[0]
    assert picks[:2] == ["i030", "i007"]
    others = [item for item in world.index.pools["pool"] if item not in ("i030", "i007")]
    near = [nearest(vector_of(example), others, 6) for example in ("i030", "i007")]
    expected: list[str] = []
    while len(expected) < 4:
        for one in near:
            item = next(item for item in one if item not in expected)
            expected.append(item)
    assert picks[2:] == expected[:4]
    assert (seed.strategy, seed.picks) == ("examples", 6)
    assert seed.strategy_reason == "seeding by examples: 2 given, and 4 of their nearest neighbours"


def test_examples_that_the_pool_has_lost_end_the_round_with_their_ids(world: World) -> None:
    world.client.create_campaign(make_spec(seeding=seeding("examples")))
    del world.index.pools["pool"][ItemId("i007")]
    with pytest.raises(FailedPrecondition, match=r"item_ids.*'i007'"):
        world.client.run_round("c")


def test_what_neighbours_leave_of_a_large_seed_set_is_drawn_at_random(world: World) -> None:
    world.index.add_pool("pool", 1200)
    changes = {"seed_size": 1100, "budget": 1200}
    seed = seeded(world, seeding=seeding("queries", queries=["seals"]), **changes)
    assert seed.picks == 1100
    assert seed.strategy_reason.endswith("; 100 drawn at random")
    assert world.picks()[0][:1000] == nearest(vector_of("seals"), list(world.index.pools["pool"]), 1000)


def test_queries_are_embedded_and_take_their_nearest_items_in_turn(world: World) -> None:
    seed = seeded(world, seeding=seeding("queries"))
    picks = world.picks()[0]
    items = list(world.index.pools["pool"])
    first = [nearest(vector_of(query), items, 1)[0] for query in ("seals", "ice")]
    assert picks[:2] == first
    assert len(set(picks)) == 6
    assert (seed.strategy, seed.strategy_reason) == ("queries", "seeding by queries: the items nearest to 2 queries")


def test_a_strategy_picks_without_labels_and_without_touching_the_campaigns_candidates(world: World) -> None:
    seed = seeded(world, seeding=seeding("typiclust"), policy=common_pb2.PolicySpec(name="seals", k=3))
    [(header, labelled, _, excluded)] = world.learner.selected
    assert (header.without_model, header.strategy.name, header.policy.name) == (True, "typiclust", "random_subset")
    assert (labelled, excluded, header.batch_size) == ([], [], 6)
    assert list(header.classes) == ["a", "b"]
    assert seed.strategy == "typiclust"
    assert seed.strategy_reason == "seeding by strategy, among 60 items drawn at random"
    assert not seed.HasField("candidates")


def test_a_concept_campaign_begins_with_some_positives_and_otherwise_others(world: World) -> None:
    seed = seeded(world, oracle=DATASET, seeding=seeding("concept"), seed_size=20, budget=40)
    picks = world.picks()[0]
    assert [world.truth(item) for item in picks] == ["b"] + ["a"] * 19
    assert seed.strategy_reason == "seeding by concept: 1 items of class 'b', and 19 others"


def test_a_concept_is_the_class_that_the_strategy_looks_for(world: World) -> None:
    strategy = common_pb2.StrategySpec(name="most_likely_positive", positive_class="a")
    seeded(world, oracle=DATASET, strategy=strategy, seeding=seeding("concept", positives=4))
    assert [world.truth(item) for item in world.picks()[0]] == ["a"] * 4 + ["b"] * 2


def test_many_concept_campaigns_read_their_pool_once_until_it_changes(world: World) -> None:
    world.index.add_pool("pool", 60, classes=("x", "y", "z"))
    for number, name in enumerate(("x", "y", "z")):
        oracle = scheduler_pb2.OracleSpec(name="dataset", other_class="other")
        spec = make_spec(name=name, classes=["other", name], oracle=oracle, seeding=seeding("concept", positives=2))
        world.client.create_campaign(spec)
        world.client.run_round(name)
        assert [int(item[1:]) % 3 == number for item in world.picks(name)[0]] == [True] * 2 + [False] * 4
    assert world.index.troubles.calls.count("scan_items") == 1
    world.index.versions["pool"] = 8
    seeded(world, oracle=oracle, classes=["other", "x"], seeding=seeding("concept"))
    assert world.index.troubles.calls.count("scan_items") == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_round_that_was_cut_off_while_it_seeded_comes_to_the_same_picks(world: World, kind: str) -> None:
    changes: dict[str, Any] = {"oracle": DATASET, "seeding": seeding(kind)}
    seeded(world, **changes)
    world.client.create_campaign(make_spec(**changes, name="cut"))
    failing, method = {"typiclust": (world.learner, "select")}.get(kind, (world.index, "get_pool"))
    failing.troubles.once(method, Unavailable("away"))
    with pytest.raises(Unavailable):
        world.client.run_round("cut")
    world.restart()
    with suppress(FailedPrecondition):  # it may have gone on by itself, and ended
        world.client.run_round("cut")
    assert len(set(world.picks()[0])) == 6
    assert world.picks("cut")[0] == world.picks()[0]


@pytest.mark.parametrize("kind", ["queries", "typiclust"])
def test_every_pick_of_the_seed_set_says_that_it_is_one(world: World, kind: str) -> None:
    seeded(world, seeding=seeding(kind))
    tasks = world.client.lease_tasks("c", annotator="ann", max_tasks=10).tasks
    assert {task.origin for task in tasks} == {common_pb2.PICK_ORIGIN_SEED}
    assert len(tasks) == 6
