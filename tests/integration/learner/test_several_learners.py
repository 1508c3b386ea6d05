"""Two learners over one data_dir and one index server, as real processes: they pick what one alone would pick."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sealpool.client import ClientOptions, IndexClient, LearnerClient
from sealpool.types import ItemId, Items, LabelledItems
from sealpool.v1 import common_pb2, index_pb2, learner_pb2
from tests.support.metrics_pages import label_values
from tests.support.processes import ServiceProcess

ITEMS, ROUNDS = 900, 4
MLP = common_pb2.NeuralSpec(epochs=20)
CLASSES = ["red", "green", "blue"]
Learners = Sequence[ServiceProcess]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def index(folder: Path) -> Iterator[ServiceProcess]:
    """An index server with a pool of three clusters; item-<number> is of cluster number % 3."""
    server = ServiceProcess("index_server", folder)
    server.start()
    rng = np.random.default_rng(0)
    vectors = (2 * np.eye(3, 8)[np.arange(ITEMS) % 3] + rng.normal(0, 0.8, (ITEMS, 8))).astype(np.float32)
    with IndexClient(server.address) as client:
        client.create_pool(index_pb2.PoolSpec(name="pool", dimension=8, engine="flat"))
        client.upsert("pool", Items(ids=[item(number) for number in range(ITEMS)], vectors=vectors))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def both(folder: Path, index: ServiceProcess) -> Iterator[Learners]:
    flags = ("--index-server", index.address, "--device", "cpu", "--threads", "1")
    made = [ServiceProcess("learner", folder, *flags) for _ in range(2)]
    yield made
    for learner in made:
        learner.kill()


@pytest.fixture
def learners(both: Learners) -> Learners:
    """Two learners that serve, whatever an earlier test did to them."""
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(start, both))
    return both


def start(learner: ServiceProcess) -> None:
    if not learner.runs:
        learner.start()


@pytest.fixture
def clients(learners: Learners) -> Iterator[list[LearnerClient]]:
    """One client of each learner."""
    made = [LearnerClient(learner.address) for learner in learners]
    yield made
    for client in made:
        client.close()


@pytest.fixture
def client(learners: Learners) -> Iterator[LearnerClient]:
    """One client of both, which keeps a campaign's calls together."""
    with LearnerClient(target_of(learners), options=ClientOptions(affinity=True)) as made:
        yield made


def target_of(learners: Learners) -> str:
    return "ipv4:" + ",".join(learner.address for learner in learners)


def item(number: int) -> ItemId:
    return ItemId(f"item-{number:03}")


def train(client: LearnerClient, campaign: str, round_number: int, labels: dict[ItemId, int], **model: object):
    header = learner_pb2.TrainHeader(
        campaign=campaign,
        round=round_number,
        pool="pool",
        task=common_pb2.TASK_KIND_MULTICLASS,
        classes=CLASSES,
        model=common_pb2.ModelSpec(**model),
        seed=round_number,
    )
    return client.train(header, LabelledItems(ids=list(labels), labels=[[label] for label in labels.values()]))


def select(client: LearnerClient, campaign: str, round_number: int, labels: dict[ItemId, int], policy: str):
    header = learner_pb2.SelectHeader(
        campaign=campaign,
        round=round_number,
        pool="pool",
        policy=common_pb2.PolicySpec(name=policy, k=10),
        batch_size=10,
        exploration=0.2,
        seed=round_number,
    )
    classes = [[label] for label in labels.values()]
    return client.select(header, list(labels), [True] * len(labels), [], classes=classes)


def first_labels() -> dict[ItemId, int]:
    return {item(number): number % 3 for number in range(9)}


def run_campaign(client_of: Callable[[int], LearnerClient], campaign: str, *, policy: str = "seals") -> list[object]:
    """Return each round's picks. A label is wrong in round 1, and right in the others."""
    labels, picks = first_labels(), []
    for round_number in range(ROUNDS):
        told = labels | ({item(0): 1} if round_number == 1 else {})
        train(client_of(round_number), campaign, round_number, told)
        answer = select(client_of(round_number), campaign, round_number, told, policy)
        picks.append((list(answer.ids), list(answer.scores), list(answer.origins), answer.candidates.size))
        labels |= {picked: int(picked[5:]) % 3 for picked in answer.ids}
    return picks


@pytest.mark.parametrize("policy", ["seals", "anchoral"])
def test_rounds_that_alternate_between_learners_pick_what_one_alone_picks(
    clients: list[LearnerClient], policy: str
) -> None:
    alone = run_campaign(lambda _: clients[0], f"alone-{policy}", policy=policy)
    assert len({picked for picks in alone for picked in picks[0]}) == 10 * ROUNDS
    alternating = run_campaign(lambda number: clients[number % 2], f"alternating-{policy}", policy=policy)
    assert alternating == alone


def test_concurrent_campaigns_at_changing_learners_pick_what_one_alone_picks(clients: list[LearnerClient]) -> None:
    alone = run_campaign(lambda _: clients[0], "alone")

    def run(number: int) -> list[object]:
        at = np.random.default_rng(number).integers(2, size=2 * ROUNDS).tolist()
        return run_campaign(lambda _: clients[at.pop()], f"concurrent-{number}")

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(run, range(4))) == [alone] * 4


def test_both_train_the_same_round_at_once_and_have_the_same_model(clients: list[LearnerClient], folder: Path) -> None:
    labels = {item(number): number % 3 for number in range(300)}
    together = threading.Barrier(2)

    def train_again(client: LearnerClient) -> list[object]:
        results = []
        for round_number in range(3):
            together.wait(60)
            result = train(
                client, "twice", round_number, labels, name="mlp", retrain=common_pb2.RETRAIN_WARM, neural=MLP
            )
            together.wait(60)
            predicted = next(iter(client.predict("twice", round=round_number, pool="pool", ids=list(labels))))
            results.append((result.loss, result.iterations, predicted.probabilities.tobytes()))
        return results

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(train_again, clients)
    assert first == second
    names = {path.name for path in (folder / "learner" / "campaigns" / "twice").iterdir()}
    assert names == {f"{number}.safetensors" for number in range(3)}


def holders(learners: Learners, campaign: str) -> list[int]:
    """Which learners hold candidates of a campaign."""
    name = "sealpool_learner_cached_candidates"
    held = [label_values(learner.metrics_address, name, "campaign") for learner in learners]
    return [number for number, campaigns in enumerate(held) if campaign in campaigns]


def test_a_campaign_stays_at_one_learner_and_goes_on_at_the_other_when_that_stops(
    learners: Learners, client: LearnerClient, clients: list[LearnerClient]
) -> None:
    alone = run_campaign(lambda _: clients[0], "stays-alone")
    for number in range(4):
        assert run_campaign(lambda _: client, f"stays-{number}") == alone
        assert len(holders(learners, f"stays-{number}")) == 1

    def stop_its_learner(round_number: int) -> LearnerClient:
        if round_number == 2 and all(learner.runs for learner in learners):
            (home,) = holders(learners, "moves")
            assert learners[home].stop() == 0
        return client

    assert run_campaign(stop_its_learner, "moves") == alone
    assert not all(learner.runs for learner in learners)


def test_a_training_whose_learner_is_killed_ends_at_the_other(both: Learners, client: LearnerClient) -> None:
    both[0].kill()
    both[0].start(failpoint="learner.train.before_checkpoint")
    for number in range(24):
        assert train(client, f"killed-{number}", 0, first_labels()).examples == 9
    both[0].wait_until_killed()
