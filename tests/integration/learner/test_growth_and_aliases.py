"""Growth after each pick, classes and aliases: a real learner, before a real index server where pools change."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import structlog
import torch
from prometheus_client import CollectorRegistry

from index_server.app import build
from index_server.settings import IndexServerSettings
from learner.expansion import Expander, HeldCampaigns, LabelledSet
from sealpool.client import IndexClient, LearnerClient
from sealpool.errors import InvalidArgument
from sealpool.types import Items
from sealpool.v1 import common_pb2, index_pb2
from tests.support.fake_index import FakeIndex
from tests.support.index_at_hand import wait_until_serving
from tests.support.learner_requests import item_ids, select, train

Serve = Callable[..., LearnerClient]
_CPU = torch.device("cpu")
BY_PICK = common_pb2.PolicySpec(name="seals", k=3, growth=common_pb2.CANDIDATE_GROWTH_PICK)
BY_ROUND = common_pb2.PolicySpec(name="seals", k=3)


@pytest.fixture
def real_index(tmp_path: Path) -> Iterator[IndexClient]:
    """An index server with the pools `first` and `second`: the same 60 items, embedded in two ways."""
    settings = IndexServerSettings(
        listen="127.0.0.1:0", metrics_listen="", data_dir=tmp_path / "index", search_threads=1
    )
    server = build(settings, registry=CollectorRegistry(), log=structlog.wrap_logger(structlog.ReturnLogger()))
    with grpc.insecure_channel(server.address) as channel:
        wait_until_serving(channel)
    with IndexClient(server.address) as client:
        for seed, name in enumerate(("first", "second")):
            client.create_pool(index_pb2.PoolSpec(name=name, dimension=4))
            rows = np.random.default_rng(seed).normal(size=(60, 4)).astype(np.float32)
            client.upsert(name, Items(ids=item_ids(range(60)), vectors=rows))
        yield client
    server.stop()


def candidates(index: IndexClient, pool: str) -> set[str]:
    return {item_id for items in index.list_candidates(pool, "c") for item_id in items.ids}


def test_a_batch_reaches_beyond_the_candidates_and_leaves_them_as_they_were(
    client: LearnerClient, index: FakeIndex
) -> None:
    train(client)
    plain = select(client, policy=BY_ROUND, batch_size=40)
    grown = select(client, policy=BY_PICK, batch_size=40)
    assert len(grown.ids) == 40 > len(plain.ids)
    assert list(grown.scores) == sorted(grown.scores, reverse=True)
    assert set(grown.origins) == {common_pb2.PICK_ORIGIN_CANDIDATE}
    assert grown.candidates == plain.candidates
    assert select(client, policy=BY_PICK, batch_size=40).ids == grown.ids
    assert select(client, policy=BY_ROUND, batch_size=40).ids == plain.ids


def test_nothing_is_picked_twice_beside_exploration_and_fill(client: LearnerClient, index: FakeIndex) -> None:
    train(client)
    options = {"policy": BY_PICK, "batch_size": 40, "exploration": 0.5}
    excluded = item_ids(range(20, 40))
    picks = select(client, excluded=excluded, fill_random=True, **options)
    assert len(set(picks.ids)) == 40
    assert not set(picks.ids) & {*excluded, *item_ids(range(9))}
    assert list(picks.origins).count(common_pb2.PICK_ORIGIN_EXPLORATION) == 20


@pytest.mark.parametrize("changes", [{"name": "full"}, {"name": "anchoral"}, {"growth": 7}])
def test_growth_that_a_policy_cannot_have_is_refused(
    client: LearnerClient, index: FakeIndex, changes: dict[str, Any]
) -> None:
    train(client)
    index.calls.clear()
    policy = common_pb2.PolicySpec(growth=changes.get("growth", common_pb2.CANDIDATE_GROWTH_PICK))
    policy.name = changes.get("name", "seals")
    with pytest.raises(InvalidArgument) as caught:
        select(client, policy=policy)
    assert caught.value.field == "header.policy.growth"
    assert index.calls == []


def test_a_real_index_server_grows_and_forgets_in_the_same_way(serve: Serve, real_index: IndexClient) -> None:
    learner = serve(real_index)
    train(learner, pool="first")
    plain = select(learner, pool="first", policy=BY_ROUND, batch_size=30)
    held = candidates(real_index, "first")
    grown = select(learner, pool="first", policy=BY_PICK, batch_size=30)
    assert len(grown.ids) == 30 > len(plain.ids)
    assert set(grown.ids) - held
    assert candidates(real_index, "first") == held
    assert select(learner, pool="first", policy=BY_PICK, batch_size=30).ids == grown.ids


def test_a_sub_pool_that_is_drawn_anew_is_held_as_the_index_server_has_it(
    serve: Serve, real_index: IndexClient
) -> None:
    learner = serve(real_index)
    policy = common_pb2.PolicySpec(name="random_subset", subpool_size=12, seed=3)
    seen = []
    for round_number, labelled in enumerate((9, 12, 15)):
        train(learner, range(labelled), round=round_number, pool="first")
        answer = select(learner, range(labelled), round=round_number, pool="first", policy=policy, batch_size=50)
        assert set(answer.ids) == candidates(real_index, "first")
        assert answer.candidates.size == 12
        again = select(learner, range(labelled), round=round_number, pool="first", policy=policy, batch_size=50)
        assert (again.ids, again.candidates) == (answer.ids, answer.candidates)
        seen.append(set(answer.ids))
    assert seen[0] != seen[1] != seen[2]


def test_anchoral_is_told_classes_once_and_again_where_they_were_corrected(real_index: IndexClient) -> None:
    campaigns = HeldCampaigns(_CPU, limit_bytes=1 << 20, device_limit_bytes=0)
    expander = Expander(real_index, told_per_call=4)
    policy = common_pb2.PolicySpec(name="anchoral", k=5, subpool_size=10, anchors=2)
    classes = {item_id: (number % 3,) for number, item_id in enumerate(item_ids(range(9)))}

    def expand() -> int:
        held = campaigns.get(real_index.get_pool("first"), "c")
        labelled = LabelledSet(expands=dict.fromkeys(classes, True), excluded=[], classes=classes)
        expander.expand(held, labelled, pool="first", campaign="c", round_number=0, policy=policy)
        assert {held.candidates.id_at(slot) for slot in range(len(held.candidates))} == candidates(  # type: ignore[arg-type]
            real_index, "first"
        )
        return held.candidates.version

    told = expand()
    assert len(candidates(real_index, "first")) == 10
    assert expand() == told
    classes[item_ids([0])[0]] = (2,)
    assert expand() == told + 1
    assert expand() == told + 1


def test_anchoral_picks_from_a_sub_pool_near_the_labelled_items(serve: Serve, real_index: IndexClient) -> None:
    learner = serve(real_index)
    policy = common_pb2.PolicySpec(name="anchoral", k=5, subpool_size=10, anchors=2)
    train(learner, pool="first")
    with pytest.raises(InvalidArgument, match="anchoral needs the classes"):
        select(learner, pool="first", policy=policy, classes=[])
    first = select(learner, pool="first", policy=policy)
    assert set(first.ids) == candidates(real_index, "first")
    assert len(first.ids) == 10
    train(learner, range(12), round=1, pool="first")
    second = select(learner, range(12), round=1, pool="first", policy=policy)
    assert set(second.ids) == candidates(real_index, "first") != set(first.ids)
    assert second.candidates.removed > 0


def test_only_classes_that_were_corrected_are_told_again(index: FakeIndex) -> None:
    expander = Expander(index, told_per_call=100)
    held = HeldCampaigns(_CPU, limit_bytes=1 << 20, device_limit_bytes=0).get(index.get_pool("pool"), "c")
    classes = {item_id: (number % 3,) for number, item_id in enumerate(item_ids(range(9)))}
    policy = common_pb2.PolicySpec(name="subset", subpool_size=20)

    def expand() -> None:
        labelled = LabelledSet(expands=dict.fromkeys(classes, False), excluded=[], classes=classes)
        expander.expand(held, labelled, pool="pool", campaign="c", round_number=0, policy=policy)

    expand()
    expand()
    before = dict(classes)
    corrected = item_ids([4])[0]
    classes[corrected] = (0, 2)
    expand()
    assert index.told_classes == [before, {}, {corrected: (0, 2)}]


def test_a_campaign_on_an_alias_goes_on_in_the_pool_that_it_is_given_to(serve: Serve, real_index: IndexClient) -> None:
    learner, direct = serve(real_index), serve(real_index, folder="direct")
    real_index.set_alias("items", "first")
    train(learner, pool="items")
    before = select(learner, pool="items")
    assert set(before.ids) <= candidates(real_index, "first")

    assert real_index.set_alias("items", "second") == "first"
    assert not train(learner, range(12), round=1, pool="items").from_checkpoint
    after = select(learner, range(12), round=1, pool="items")
    assert after.candidates.labelled == 12  # all of them, also those that the first pool was told
    assert set(after.ids) <= candidates(real_index, "second")
    # The same as a campaign that was never anywhere else.
    train(direct, range(12), round=1, pool="second", campaign="other")
    expected = select(direct, range(12), round=1, pool="second", campaign="other")
    assert (after.ids, after.scores) == (expected.ids, expected.scores)

    real_index.set_alias("items", "first")  # and back
    train(learner, pool="items")
    assert select(learner, pool="items").ids == before.ids


def test_a_round_ends_in_the_pool_that_its_model_was_trained_on(serve: Serve, real_index: IndexClient) -> None:
    learner = serve(real_index)
    real_index.set_alias("items", "first")
    train(learner, pool="items")
    expected = select(learner, pool="items")
    real_index.set_alias("items", "second")
    assert select(learner, pool="items").ids == expected.ids
    assert list(real_index.get_pool("second").campaigns) == []
    train(learner, pool="items")  # again, as after a round that failed
    assert set(select(learner, pool="items").ids) <= candidates(real_index, "second")


class _Switching:
    """An index server whose alias is given to another pool right after a select looked it up."""

    def __init__(self, index: IndexClient) -> None:
        self._index = index
        self.armed = False

    def get_pool(self, name: str) -> index_pb2.Pool:
        pool = self._index.get_pool(name)
        if self.armed:
            self._index.set_alias("items", "second")
        return pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)


def test_a_select_ends_in_the_pool_that_it_began_with(serve: Serve, real_index: IndexClient) -> None:
    real_index.set_alias("items", "first")
    switching = _Switching(real_index)
    learner = serve(switching)
    train(learner, pool="items")
    options = {"pool": "items", "policy": BY_PICK, "batch_size": 20, "exploration": 0.2, "fill_random": True}
    expected = select(learner, **options)
    real_index.drop_candidates("first", "c")
    switching.armed = True
    assert select(learner, **options).ids == expected.ids
    assert real_index.get_pool("items").spec.name == "second"
    assert list(real_index.get_pool("second").campaigns) == []
