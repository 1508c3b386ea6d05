"""What picks a round's batch, how large that is, and what the round says of it."""

from collections.abc import Callable

import pytest

from sealpool.errors import FailedPrecondition, NotFound, Unavailable
from sealpool.types import ItemId, Payload
from sealpool.v1 import common_pb2, scheduler_pb2
from tests.unit.scheduler.world import DATASET, World, make_spec


def make_rare(world: World, positives: int = 6) -> None:
    """Leave the class b to the last items of the pool alone."""
    pool = world.index.pools["pool"]
    for number, item in enumerate(pool):
        pool[item] = Payload(metadata={"labels": "b" if number >= len(pool) - positives else "a"})


def run_to_the_end(world: World, name: str = "c") -> list[scheduler_pb2.Round]:
    while world.client.get_campaign(name).state == scheduler_pb2.CAMPAIGN_STATE_ACTIVE:
        world.client.run_round(name)
    return world.client.list_rounds(name)


def test_while_all_labels_are_of_one_class_a_data_set_campaign_picks_by_representation(world: World) -> None:
    make_rare(world)
    world.client.create_campaign(
        make_spec(
            oracle=DATASET,
            seed_size=1,
            batch_size=2,
            budget=40,
            fill=scheduler_pb2.FILL_NONE,
            strategy=common_pb2.StrategySpec(name="margin"),
            policy=common_pb2.PolicySpec(growth=common_pb2.CANDIDATE_GROWTH_PICK),
        )
    )
    rounds = run_to_the_end(world)
    assert (rounds[0].strategy, rounds[0].strategy_reason) == ("random", "")
    cold = [r for r in rounds[1:] if r.labels == 0]
    assert cold
    assert all(not r.HasField("quality") and r.picks == 2 for r in cold)
    assert {r.strategy for r in cold} == {"typiclust"}
    assert all(r.strategy_reason.startswith("labels of one class only: all ") for r in cold)
    assert cold[0].strategy_reason == "labels of one class only: all 1 labelled items are of class 'a'"
    assert {(r.strategy, r.strategy_reason) for r in rounds if r.labels and r.picks} == {("margin", "")}
    assert rounds[-1].labels == 40
    headers = [header for header, *_ in world.learner.selected]
    for header in headers:
        is_cold = header.round in {r.number for r in cold}
        assert (header.without_model, header.fill_random) == (is_cold, is_cold)
        assert header.strategy == common_pb2.StrategySpec(name="typiclust" if is_cold else "margin")
        assert list(header.classes) == (["a", "b"] if is_cold else [])
        assert (header.task == common_pb2.TASK_KIND_BINARY) is is_cold
        assert (header.policy.growth == common_pb2.CANDIDATE_GROWTH_PICK) is not is_cold


def test_a_cold_start_makes_the_same_picks_again(make_world: Callable[..., World]) -> None:
    picks = []
    for seed in (1, 1, 2):
        world = make_world()
        make_rare(world)
        world.client.create_campaign(make_spec(oracle=DATASET, seed_size=2, batch_size=2, budget=30, seed=seed))
        run_to_the_end(world)
        assert any(header.without_model for header, *_ in world.learner.selected)
        picks.append(world.picks())
    assert picks[0] == picks[1] != picks[2]


@pytest.mark.parametrize("name", ["k_center", "auto", "random"])
def test_a_strategy_that_needs_no_model_picks_from_labels_of_one_class_and_does_not_wait_for_another(
    world: World, name: str
) -> None:
    world.client.create_campaign(make_spec(strategy=common_pb2.StrategySpec(name=name), expand_from_classes=["b"]))
    world.client.run_round("c")
    items = [task.item_id for task in world.client.lease_tasks("c", annotator="x", max_tasks=4).tasks]
    world.client.submit_labels("c", {item: ["a"] for item in items}, annotator="x")
    cold = world.client.run_round("c").round
    assert (cold.labels, cold.picks, cold.strategy) == (0, 5, name)
    assert cold.strategy_reason == "labels of one class only: all 4 labelled items are of class 'a'"
    header, labelled, expand_from, excluded = world.learner.selected[-1]
    assert (header.without_model, header.strategy.name) == (True, name)
    assert (set(labelled), expand_from) == (set(items), [False] * 4)
    assert set(excluded) == set(world.picks()[0]) - set(items)
    assert world.learner.told_classes[-1] == {ItemId(item): (0,) for item in items}
    world.client.submit_labels("c", {items[0]: ["b"]}, annotator="x")
    warm = world.client.run_round("c").round
    assert (warm.labels, warm.strategy) == (4, name)
    assert not world.learner.selected[-1][0].without_model


def test_without_any_label_there_is_nothing_to_expand_from_and_the_draw_is_random(world: World) -> None:
    world.client.create_campaign(make_spec(oracle=DATASET, strategy=common_pb2.StrategySpec(name="k_center")))
    world.index.troubles.once("get_items", NotFound("item", "x"))
    with pytest.raises(FailedPrecondition):
        world.client.run_round("c")
    second = world.client.run_round("c").round
    assert (second.labels, second.picks, second.strategy) == (0, 5, "random")
    assert world.learner.selected == []


def test_a_round_says_what_the_learner_chose_and_why_and_what_training_did_otherwise(world: World) -> None:
    world.learner.chosen = ("prob_cover", "40 labels are too few")
    world.learner.notes = ["the batch was halved", "class 'b' has one label"]
    world.client.create_campaign(make_spec(strategy=common_pb2.StrategySpec(name="auto")))
    world.client.run_round("c")
    world.label()
    one = world.client.run_round("c").round
    assert (one.strategy, one.strategy_reason) == ("prob_cover", "40 labels are too few")
    assert list(one.notes) == ["the batch was halved", "class 'b' has one label"]
    world.restart()
    assert world.client.list_rounds("c")[-1] == one


def test_an_alias_of_another_library_is_the_strategy_itself(world: World) -> None:
    told = common_pb2.StrategySpec(name="GreedyCoreset")
    assert world.client.create_campaign(make_spec(strategy=told)).spec.strategy.name == "k_center"


def shared(**changes: object) -> scheduler_pb2.CampaignSpec:
    return make_spec(**{"batch_size": 0, "batch_share": 0.07, "budget": 60, "oracle": DATASET, **changes})


def test_a_share_of_the_pool_is_taken_of_the_pool_as_it_is_when_a_round_begins(world: World) -> None:
    world.client.create_campaign(shared())
    assert [world.client.run_round("c").round.picks for _ in range(2)] == [6, 5]  # the seed set, ceil(4.2)
    world.index.pools["pool"].update({ItemId(f"n{i}"): Payload(metadata={"labels": "a"}) for i in range(40)})
    assert world.client.run_round("c").round.picks == 7
    assert run_to_the_end(world)[-1].labels == 60


def test_the_budget_cuts_a_share_as_it_cuts_a_count(world: World) -> None:
    world.client.create_campaign(shared(batch_share=1.0, budget=20))
    assert [r.picks for r in run_to_the_end(world)] == [6, 14, 0]


def test_a_round_of_a_share_waits_for_an_index_server_that_does_not_say_how_large_the_pool_is(world: World) -> None:
    world.client.create_campaign(shared())
    world.client.run_round("c", request_id="first")
    world.index.troubles.always("get_pool", Unavailable("index is restarting"))
    with pytest.raises(Unavailable, match="index is restarting"):
        world.client.run_round("c")
    assert len(world.client.list_rounds("c")) == 1
    assert world.client.run_round("c", request_id="first").round.number == 0
    world.index.troubles.always("get_pool", None)
    assert world.client.run_round("c").round.picks == 5


def test_a_count_of_items_begins_a_round_without_the_index_server(world: World) -> None:
    world.client.create_campaign(make_spec(oracle=DATASET))
    world.client.run_round("c")
    world.index.troubles.always("get_pool", Unavailable("away"))
    assert world.client.run_round("c").round.picks == 5


def test_a_round_of_a_share_begins_by_rule_once_the_index_server_is_back(make_world: Callable[..., World]) -> None:
    world = make_world(resume_every_s=0.1)
    world.client.create_campaign(
        shared(oracle=scheduler_pb2.OracleSpec(), rule=scheduler_pb2.RoundRule(after_labels=3))
    )
    world.client.run_round("c")
    world.index.troubles.always("get_pool", Unavailable("away"))
    world.label()
    world.index.troubles.always("get_pool", None)
    finished = (e.round_changed.round for e in world.client.watch_campaign("c") if e.HasField("round_changed"))
    assert next(r.picks for r in finished if r.number == 1 and r.state == scheduler_pb2.ROUND_STATE_FINISHED) == 5


def test_a_round_counts_where_its_picks_came_from(make_world: Callable[..., World]) -> None:
    world = make_world()
    world.client.create_campaign(make_spec())
    seeded = world.client.run_round("c").round
    assert dict(enumerate(seeded.origin_counts))[common_pb2.PICK_ORIGIN_SEED] == 6
    world.label()
    picked = world.client.run_round("c").round
    assert sum(picked.origin_counts) == picked.origin_counts[common_pb2.PICK_ORIGIN_CANDIDATE] == picked.picks == 5
