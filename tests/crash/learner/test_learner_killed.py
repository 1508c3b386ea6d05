"""A learner killed at its worst moments trains and picks after its restart as if nothing had happened."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sealpool.client import ClientOptions, IndexClient, LearnerClient
from sealpool.errors import Unavailable
from sealpool.types import ItemId, Items
from sealpool.v1 import common_pb2, index_pb2, learner_pb2
from tests.support.learner_requests import item_ids, select, train
from tests.support.processes import ServiceProcess

IMPATIENT = ClientOptions(retry_for_s=0)


@pytest.fixture(scope="module")
def index_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real index server with one pool of 200 items."""
    server = ServiceProcess("index_server", tmp_path_factory.mktemp("index"))
    server.start()
    rng = np.random.default_rng(0)
    centres = np.eye(3, 6, dtype=np.float32) * 2
    vectors = (centres[np.arange(200) % 3] + rng.normal(0, 0.7, (200, 6))).astype(np.float32)
    with IndexClient(server.address) as client:
        client.create_pool(index_pb2.PoolSpec(name="pool", dimension=6))
        client.upsert("pool", Items(ids=item_ids(range(200)), vectors=vectors))
    yield server.address
    server.kill()


@pytest.fixture
def learner(index_address: str, tmp_path: Path) -> Iterator[ServiceProcess]:
    process = learner_process(index_address, tmp_path)
    yield process
    process.kill()


@pytest.fixture(scope="module")
def undisturbed(index_address: str, tmp_path_factory: pytest.TempPathFactory) -> list[list[ItemId]]:
    """The picks of three rounds of a learner that nobody kills."""
    process = learner_process(index_address, tmp_path_factory.mktemp("calm"))
    process.start()
    with LearnerClient(process.address) as client:
        picks = [round_of(client, "calm", number)[1] for number in range(3)]
    process.kill()
    return picks


def learner_process(index_address: str, folder: Path) -> ServiceProcess:
    return ServiceProcess("learner", folder, "--index-server", index_address, "--device", "cpu", "--threads", "1")


def round_of(client: LearnerClient, campaign: str, round_number: int) -> tuple[learner_pb2.TrainResult, list[ItemId]]:
    """Train and select on the first 9, 12, … items."""
    numbers = range(9 + 3 * round_number)
    result = train(client, numbers, campaign=campaign, round=round_number)
    strategy = common_pb2.StrategySpec(name="information_density", density_over=common_pb2.DENSITY_OVER_CANDIDATES)
    picks = select(
        client,
        numbers,
        campaign=campaign,
        round=round_number,
        strategy=strategy,
        exploration=0.2,
        fill_random=True,
    )
    return result, [ItemId(i) for i in picks.ids]


@pytest.mark.parametrize(
    ("point", "from_checkpoint"),
    [
        ("learner.train.before_checkpoint:2", False),
        ("learner.train.after_checkpoint:2", True),
        ("learner.select.after_expand:2", True),
    ],
)
def test_a_killed_round_goes_on_to_the_same_picks(
    learner: ServiceProcess, undisturbed: list[list[ItemId]], point: str, from_checkpoint: bool
) -> None:
    name = point.replace(":", "-")
    learner.start(failpoint=point)
    with LearnerClient(learner.address, options=IMPATIENT) as client:
        first = round_of(client, f"killed-{name}", 0)[1]
        with pytest.raises(Unavailable):
            round_of(client, f"killed-{name}", 1)
    learner.wait_until_killed()

    learner.start()
    with LearnerClient(learner.address) as client:
        result, second = round_of(client, f"killed-{name}", 1)
        assert result.from_checkpoint is from_checkpoint
        third = round_of(client, f"killed-{name}", 2)[1]
    assert [first, second, third] == undisturbed
