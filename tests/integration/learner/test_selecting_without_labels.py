"""With nothing labelled, a part of the pool drawn at random is picked from, and no candidate pool begins."""

from collections.abc import Sequence

from sealpool.client import LearnerClient
from sealpool.types import ItemId
from sealpool.v1 import common_pb2, learner_pb2
from tests.support.fake_index import FakeIndex
from tests.support.learner_requests import CLASSES, item_ids, select_header


def first_batch(
    client: LearnerClient, *, excluded: Sequence[ItemId] = (), **changes: object
) -> learner_pb2.SelectResponse:
    fields = {
        "without_model": True,
        "task": common_pb2.TASK_KIND_MULTICLASS,
        "classes": CLASSES,
        "strategy": common_pb2.StrategySpec(name="typiclust"),
        "policy": common_pb2.PolicySpec(name="random_subset", subpool_size=30),
        **changes,
    }
    return client.select(select_header(**fields), [], [], excluded)


def test_a_strategy_picks_from_what_was_drawn_and_the_index_server_is_told_of_no_campaign(
    client: LearnerClient, index: FakeIndex
) -> None:
    excluded = item_ids(range(60))
    batch = first_batch(client, excluded=excluded)
    assert len(set(batch.ids)) == 10
    assert not set(batch.ids) & set(excluded)
    assert set(batch.origins) == {common_pb2.PICK_ORIGIN_CANDIDATE}
    assert (batch.strategy, batch.candidates.size, batch.candidates.pool_share) == ("typiclust", 30, 0.25)
    assert index.campaigns == {}
    assert list(first_batch(client, excluded=excluded).ids) == list(batch.ids)


def test_another_seed_of_the_round_or_of_the_policy_draws_others(client: LearnerClient) -> None:
    def drawn(seed: int, policy_seed: int) -> set[str]:
        policy = common_pb2.PolicySpec(name="random_subset", subpool_size=10, seed=policy_seed)
        return set(first_batch(client, seed=seed, policy=policy).ids)

    assert drawn(5, 0) == drawn(5, 0)
    assert len({frozenset(drawn(5, 0)), frozenset(drawn(6, 0)), frozenset(drawn(5, 1))}) == 3


def test_a_thousand_are_drawn_unless_told_and_a_smaller_pool_whole(client: LearnerClient) -> None:
    assert first_batch(client, policy=common_pb2.PolicySpec(name="random_subset")).candidates.size == 120
