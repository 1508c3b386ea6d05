"""Seeding by a strategy and by queries, with a real learner and a real index server behind the scheduler."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from index_server.app import build as build_index_server
from index_server.settings import IndexServerSettings
from learner.app import build as build_learner
from learner.settings import LearnerSettings
from sealpool.client import ClientOptions, IndexClient, LearnerClient
from sealpool.runtime.logs import make_logger
from sealpool.types import ItemId, Items, Payload
from sealpool.v1 import common_pb2, index_pb2, learner_pb2, scheduler_pb2
from tests.support.small_models import COLOURS, text_of, write_tiny_encoder
from tests.unit.scheduler.world import World, make_spec

OPTIONS = ClientOptions(retry_for_s=0)
HERE: dict[str, Any] = {"listen": "127.0.0.1:0", "metrics_listen": "", "log_level": "warning"}
COUNT = 90


class RealWorld(World):
    """A scheduler over real services."""

    def __init__(self, data_dir: Path, index: IndexClient, learner: LearnerClient) -> None:
        self._services = (index, learner)
        super().__init__(data_dir)

    def _start(self) -> None:
        self.index, self.learner = self._services
        super()._start()


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[IndexClient, LearnerClient, str]]:
    folder = tmp_path_factory.mktemp("services")
    encoder = write_tiny_encoder(folder / "encoder")
    index_settings = IndexServerSettings(data_dir=folder / "index", search_threads=1, **HERE)
    log = make_logger(index_settings, "index_server")
    index_server = build_index_server(index_settings, registry=CollectorRegistry(), log=log)
    index = IndexClient(index_server.address, options=ClientOptions())
    learner_settings = LearnerSettings(data_dir=folder / "learner", device="cpu", **HERE)
    learner_server = build_learner(learner_settings, registry=CollectorRegistry(), log=log, index=index)
    learner_server.start()
    learner_server.set_serving()
    learner = LearnerClient(learner_server.address, options=OPTIONS)
    texts = [text_of(number) for number in range(COUNT)]
    vectors = np.concatenate(list(learner.embed(texts, encoder=encoder)))
    index.create_pool(index_pb2.PoolSpec(name="pool", dimension=vectors.shape[1]))
    payloads = [Payload(text=text) for text in texts]
    index.upsert("pool", Items(ids=[ItemId(f"t{n}") for n in range(COUNT)], vectors=vectors, payloads=payloads))
    yield index, learner, encoder
    learner.close()
    learner_server.stop()
    index.close()
    index_server.stop()


@pytest.fixture
def world(tmp_path: Path, services: tuple[IndexClient, LearnerClient, str]) -> Iterator[RealWorld]:
    world = RealWorld(tmp_path, *services[:2])
    yield world
    world.close()


def seeded(world: World, seeding: scheduler_pb2.SeedingSpec, name: str, **changes: object) -> list[str]:
    changes = {"task": common_pb2.TASK_KIND_MULTICLASS, "classes": COLOURS, "seeding": seeding, **changes}
    world.client.create_campaign(make_spec(name=name, **changes))
    world.client.run_round(name)
    return world.picks(name)[0]


@pytest.mark.parametrize("strategy", ["", "k_center", "prob_cover", "auto"])
def test_a_strategy_seeds_a_campaign_whose_candidates_begin_with_its_first_labels(
    world: RealWorld, services: tuple[IndexClient, LearnerClient, str], strategy: str
) -> None:
    seeding = scheduler_pb2.SeedingSpec(kind=scheduler_pb2.SEEDING_KIND_STRATEGY, strategy=strategy)
    name = f"by-{strategy}" if strategy else "by-default"
    picks = seeded(world, seeding, name)
    assert len(set(picks)) == 6
    seed = world.client.list_rounds(name)[0]
    assert seed.strategy == {"": "typiclust", "auto": "typiclust"}.get(strategy, strategy)
    assert seed.strategy_reason == f"seeding by strategy, among {COUNT} items drawn at random"
    assert {int(item[1:]) % 3 for item in picks} == {0, 1, 2}
    again = seeded(world, seeding, f"{name}-again")
    assert again == picks
    labels = {item: [COLOURS[int(item[1:]) % 3]] for item in picks}
    world.client.submit_labels(name, labels, annotator="ann")
    round_ = world.client.run_round(name).round
    assert (round_.picks, round_.candidates.labelled) == (5, 6)
    assert services[0].get_pool("pool").size == COUNT


def test_queries_seed_with_the_items_that_read_alike(
    world: RealWorld, services: tuple[IndexClient, LearnerClient, str]
) -> None:
    encoder = learner_pb2.EmbedHeader(encoder=services[2], normalize=True)
    seeding = scheduler_pb2.SeedingSpec(
        kind=scheduler_pb2.SEEDING_KIND_QUERIES, queries=[text_of(1), text_of(2)], encoder=encoder
    )
    picks = seeded(world, seeding, "by-queries", seed_size=4)
    assert [text_of(int(item[1:])) for item in picks] == [text_of(1), text_of(2)] * 2
