"""Items of a stream: decided, asked about, and counted once."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from scheduler.storage import streams
from scheduler.streams.service import StreamService
from sealpool.client import ClientOptions, StreamClient, stream_item
from sealpool.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from sealpool.types import ItemId, Payload
from sealpool.v1 import common_pb2, learner_pb2, stream_pb2
from sealpool.v1 import scheduler_pb2 as pb
from tests.unit.scheduler.fakes import vector_of
from tests.unit.scheduler.world import DATASET, World, make_spec

ENCODER = learner_pb2.EmbedHeader(encoder="e", normalize=True)
ALL = pb.StreamSpec(threshold=pb.STREAM_THRESHOLD_FIXED, uncertainty=1e-6, budget_share=1, encoder=ENCODER)
NONE = pb.StreamSpec(threshold=pb.STREAM_THRESHOLD_FIXED, uncertainty=1, encoder=ENCODER)


@pytest.fixture
def connect(world: World) -> Iterator[Callable[[], StreamClient]]:
    clients: list[StreamClient] = []

    def make() -> StreamClient:
        options = ClientOptions(retry_for_s=0, timeout_s=20, long_timeout_s=20)
        clients.append(StreamClient(world.server.address, options=options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def begin(world: World, stream: pb.StreamSpec, **changes: Any) -> None:
    """Let campaign c have a model, and no task that waits."""
    world.client.create_campaign(make_spec(stream=stream, **{"budget": 100, "fill": pb.FILL_RANDOM, **changes}))
    world.client.run_round("c")
    world.label()
    world.client.run_round("c")
    world.label()


def texts(count: int, first: int = 0) -> list[stream_pb2.StreamItem]:
    return [
        stream_item(f"s{number}", text=f"new {number}", metadata={"labels": "a"})
        for number in range(first, first + count)
    ]


def tasks_of_stream(world: World) -> list[str]:
    leased = world.client.lease_tasks("c", annotator="x", max_tasks=1000).tasks
    return [task.item_id for task in leased if task.origin == common_pb2.PICK_ORIGIN_STREAM]


def test_an_item_in_doubt_is_in_the_pool_and_a_task_when_its_answer_comes(
    world: World, connect: Callable[[], StreamClient]
) -> None:
    begin(world, ALL)
    decision = next(connect().consider("c", texts(1)))
    assert decision.asked
    assert not decision.at_random
    assert decision.uncertainty == pytest.approx(1 - max(p.probability for p in decision.probabilities))
    assert [p.name for p in decision.probabilities] == ["a", "b"]
    assert list(decision.classes) == [max(decision.probabilities, key=lambda p: p.probability).name]
    assert decision.round == 1
    assert world.index.pools["pool"][ItemId("s0")] == Payload(text="new 0", metadata={"labels": "a"})
    assert np.allclose(world.index.vectors["pool"][ItemId("s0")], vector_of("new 0"))
    task = world.client.lease_tasks("c", annotator="x", max_tasks=1).tasks[0]
    assert (task.item_id, task.text, task.score) == ("s0", "new 0", decision.uncertainty)
    assert (task.origin, task.purpose) == (common_pb2.PICK_ORIGIN_STREAM, pb.LABEL_PURPOSE_TRAINING)
    answer = world.client.submit_labels("c", {"s0": ["a"]}, annotator="x")
    assert (answer.accepted, answer.unsolicited) == (1, 0)


def test_an_item_that_is_not_asked_about_joins_the_pool_only_if_the_spec_says_so(
    world: World, connect: Callable[[], StreamClient]
) -> None:
    begin(world, NONE)
    joining = make_spec(name="j", stream=pb.StreamSpec(**{**_fields(NONE), "join_pool": True}), budget=100)
    world.client.create_campaign(joining)
    world.client.run_round("j")
    world.label("j")
    world.client.run_round("j")
    client = connect()
    assert not any(decision.asked for decision in client.consider("c", texts(5)))
    assert "s0" not in world.index.pools["pool"]
    assert not any(decision.asked for decision in client.consider("j", texts(5)))
    assert all(f"s{number}" in world.index.pools["pool"] for number in range(5))
    assert tasks_of_stream(world) == []


def _fields(spec: pb.StreamSpec) -> dict[str, Any]:
    return {field.name: value for field, value in spec.ListFields()}


def test_an_item_that_comes_again_gets_the_decision_it_had(world: World, connect: Callable[[], StreamClient]) -> None:
    begin(world, pb.StreamSpec(uncertainty=0.2, random_share=0.3, budget_share=0.5, encoder=ENCODER))
    client = connect()
    first = list(client.consider("c", texts(40)))
    asked = tasks_of_stream(world)
    assert 5 < len(asked) < 35
    again = client.consider_batch("c", [*texts(40), *texts(1)])
    assert all(decision.repeated_id for decision in again)
    for before, after in zip(first, again, strict=False):
        after.repeated_id = False
        assert before == after
    assert client.get_stream("c").seen == 40
    assert tasks_of_stream(world) == []
    world.client.pause_campaign("c")
    assert client.consider_batch("c", texts(40))[0].repeated_id
    with pytest.raises(FailedPrecondition, match="paused"):
        client.consider_batch("c", texts(41))


def test_what_is_decided_does_not_depend_on_how_items_are_grouped(
    make_world: Callable[..., World],
) -> None:
    told = []
    for size in (1, 7, 60):
        world = make_world()
        begin(world, pb.StreamSpec(uncertainty=0.2, random_share=0.2, budget_share=0.3, encoder=ENCODER))
        with StreamClient(world.server.address) as client:
            decisions = []
            for start in range(0, 60, size):
                decisions += client.consider_batch("c", texts(min(size, 60 - start), start))
            told.append(([d.SerializeToString() for d in decisions], client.get_stream("c").SerializeToString()))
    assert told[0] == told[1] == told[2]


def test_a_stream_goes_on_after_a_restart_as_if_there_had_been_none(make_world: Callable[..., World]) -> None:
    told = []
    for restarts in (False, True):
        world = make_world()
        begin(world, pb.StreamSpec(uncertainty=0.2, budget_share=0.3, encoder=ENCODER))
        with StreamClient(world.server.address) as client:
            client.consider_batch("c", texts(50))
        if restarts:
            world.restart()
        with StreamClient(world.server.address) as client:
            client.consider_batch("c", texts(50, 50))
            told.append(client.get_stream("c").SerializeToString())
    assert told[0] == told[1]


@pytest.mark.parametrize("kind", ["everything", "budgeted"])
def test_never_more_is_asked_than_the_budget_leaves(
    world: World, connect: Callable[[], StreamClient], kind: str
) -> None:
    budgeted = pb.StreamSpec(threshold=pb.STREAM_THRESHOLD_BUDGETED, horizon=5, uncertainty=1e-6, encoder=ENCODER)
    begin(world, ALL if kind == "everything" else budgeted, budget=20)
    world.client.run_round("c")  # 11 labelled, 5 more handed out
    client = connect()
    asked = sum(decision.asked for decision in client.consider("c", texts(60)))
    assert asked == 20 - world.client.get_campaign("c").labels - 5
    waiting = world.client.get_campaign("c")
    assert waiting.labels + waiting.open_tasks == 20
    assert client.get_stream("c").asked == asked


def test_a_round_that_has_not_picked_yet_keeps_its_share_of_the_budget_and_picks_none_of_the_streams_items(
    world: World, connect: Callable[[], StreamClient]
) -> None:
    begin(world, ALL, budget=56)
    release = world.learner.troubles.hold("train")
    round_ = threading.Thread(target=world.client.run_round, args=("c",))
    round_.start()
    assert world.learner.troubles.reached["train"].wait(20)
    asked = [decision.item_id for decision in connect().consider_batch("c", texts(60)) if decision.asked]
    assert len(asked) == 56 - 11 - 5
    release()
    round_.join(20)
    assert world.client.list_rounds("c")[-1].state == pb.ROUND_STATE_FINISHED
    campaign = world.client.get_campaign("c")
    assert campaign.labels + campaign.open_tasks == 56


def test_two_schedulers_on_one_database_decide_one_after_the_other(world: World) -> None:
    begin(world, ALL, budget=60)
    store = world.scheduler.store
    services = [StreamService(store=store, index=world.index, learner=world.learner, max_labels=100) for _ in range(2)]

    def consider(number: int) -> int:
        request = stream_pb2.ConsiderBatchRequest(campaign="c", items=texts(4, 2 * number))
        return sum(not decision.repeated_id for decision in services[number % 2].consider_batch(request).decisions)

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(consider, range(24))) == 50
    stream = services[0].get("c")
    assert (stream.seen, stream.asked) == (50, 60 - 11)


def test_with_an_oracle_of_its_own_the_items_wait_for_the_next_round(
    world: World, connect: Callable[[], StreamClient]
) -> None:
    world.client.create_campaign(make_spec(stream=ALL, budget=30, oracle=DATASET))
    world.client.run_round("c")
    world.client.run_round("c")
    connect().consider_batch("c", texts(3))
    assert tasks_of_stream(world) == []
    world.client.run_round("c")
    assert {"s0", "s1", "s2"} <= {label.item_id for label in world.labels()}


def test_an_item_that_the_pool_has_is_that_item_and_nothing_is_overwritten(
    world: World, connect: Callable[[], StreamClient]
) -> None:
    begin(world, ALL)
    labelled = world.labels()[0].item_id
    free = next(item for item in world.index.pools["pool"] if item not in {x.item_id for x in world.labels()})
    before = dict(world.index.pools["pool"])
    items = [stream_item(item, text="another", vector=np.ones(4, np.float32)) for item in (labelled, free)]
    decisions = connect().consider_batch("c", items)
    assert [decision.asked for decision in decisions] == [False, True]  # nobody is asked twice
    assert world.index.pools["pool"] == before
    assert world.index.vectors.get("pool", {}) == {}
    assert tasks_of_stream(world) == [free]


def test_a_batch_is_applied_once_and_answered_alike(world: World, connect: Callable[[], StreamClient]) -> None:
    begin(world, ALL)
    client = connect()
    first = client.consider_batch("c", texts(3), request_id="r")
    world.learner.troubles.always("predict", Unavailable("away"))
    assert client.consider_batch("c", texts(3), request_id="r") == first
    with pytest.raises(InvalidArgument, match="other content"):
        client.consider_batch("c", texts(4), request_id="r")


def test_a_batch_with_a_fault_decides_of_nothing(world: World, connect: Callable[[], StreamClient]) -> None:
    begin(world, ALL)
    client = connect()
    with pytest.raises(InvalidArgument, match="items\\[1\\]"):
        client.consider_batch("c", [*texts(1), stream_item("s9")])
    assert client.get_stream("c").seen == 0
    world.index.troubles.once("upsert", Unavailable("away"))
    with pytest.raises(Unavailable):
        client.consider_batch("c", texts(2))
    assert client.get_stream("c").seen == 0
    assert all(decision.asked for decision in client.consider_batch("c", texts(2)))


def test_items_before_the_one_at_fault_are_decided_of(world: World, connect: Callable[[], StreamClient]) -> None:
    begin(world, ALL)
    client = connect()
    decisions = client.consider("c", [*texts(3), stream_item("s9"), *texts(3, 10)])
    assert [next(decisions).item_id for _ in range(3)] == ["s0", "s1", "s2"]
    with pytest.raises(InvalidArgument, match="s9"):
        next(decisions)
    assert client.get_stream("c").seen == 3


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (stream_pb2.StreamItem(text="x"), "id"),
        (stream_pb2.StreamItem(id="s"), "neither text nor vector"),
        (stream_item("s", vector=np.ones(3, np.float32)), "dimension 3"),
        (stream_item("s", vector=np.array([1, np.nan, 0, 0], np.float32)), "NaN"),
        (stream_item("s", vector=np.zeros(4, np.float32)), "zero vector"),
        (stream_item("s", text="x" * (1 << 20) + "x"), "over 1,048,576 bytes"),
        (stream_pb2.StreamItem(id="s", text="x", metadata_json="[]"), "JSON object"),
    ],
)
def test_an_item_that_is_wrong_is_refused(
    world: World, connect: Callable[[], StreamClient], item: stream_pb2.StreamItem, words: str
) -> None:
    begin(world, ALL)
    with pytest.raises(InvalidArgument, match=words):
        list(connect().consider("c", [item]))


def test_a_call_out_of_place_is_refused(world: World, connect: Callable[[], StreamClient]) -> None:
    client = connect()
    with pytest.raises(NotFound):
        list(client.consider("nobody", texts(1)))
    with pytest.raises(InvalidArgument, match="campaign"):
        list(client.consider("", texts(1)))
    world.client.create_campaign(make_spec(name="plain"))
    for call in (lambda: client.consider_batch("plain", texts(1)), lambda: client.get_stream("plain")):
        with pytest.raises(FailedPrecondition, match="no stream"):
            call()
    world.client.create_campaign(make_spec(stream=pb.StreamSpec()))
    with pytest.raises(InvalidArgument, match="encoder"):
        client.consider_batch("c", texts(1))
    with pytest.raises(FailedPrecondition, match="no model yet"):
        client.consider_batch("c", [stream_item("s", vector=np.ones(4, np.float32))])
    with pytest.raises(InvalidArgument, match="empty"):
        client.consider_batch("c", [])
    assert client.get_stream("c") == stream_pb2.GetStreamResponse(threshold=0.3)


def test_limits_are_named(make_world: Callable[..., World]) -> None:
    world = make_world(max_labels=2)
    begin_spec = make_spec(stream=ALL)
    world.client.create_campaign(begin_spec)
    with StreamClient(world.server.address) as client, pytest.raises(ResourceExhausted, match="max_labels"):
        client.consider_batch("c", texts(3))


def test_streams_of_several_callers_are_decided_one_after_the_other(
    world: World, connect: Callable[[], StreamClient]
) -> None:
    begin(world, ALL, budget=60)
    clients = [connect() for _ in range(4)]

    def consider(client: StreamClient, first: int) -> int:
        # Halves of neighbours overlap: every item but the outermost comes from two callers.
        return sum(not decision.repeated_id for decision in client.consider("c", texts(20, first)))

    with ThreadPoolExecutor(4) as threads:
        decided = list(threads.map(consider, clients, range(0, 40, 10)))
    assert sum(decided) == 50
    stream = clients[0].get_stream("c")
    assert (stream.seen, stream.asked) == (50, 60 - 11)
    assert len(tasks_of_stream(world)) == 49


def test_how_a_stream_stands_is_exported(world: World, connect: Callable[[], StreamClient]) -> None:
    begin(world, ALL)
    client = connect()
    client.consider_batch("c", texts(10))
    stream = client.get_stream("c")
    value = world.registry.get_sample_value
    label = {"campaign": "c"}
    assert value("sealpool_scheduler_stream_seen_items", label) == stream.seen == 10
    assert value("sealpool_scheduler_stream_asked_items", label) == stream.asked
    assert value("sealpool_scheduler_stream_uncertainty_ratio", label) == stream.mean_uncertainty > 0
    assert value("sealpool_scheduler_stream_asked_ratio", label) == stream.asked_share > 0


def test_streams_work_on_postgresql(make_world: Callable[..., World], postgres_url: str) -> None:
    world = make_world(database_url=postgres_url)
    begin(world, ALL, name="c")
    with StreamClient(world.server.address) as client:
        assert all(decision.asked for decision in client.consider("c", texts(20)))
        assert [decision.repeated_id for decision in client.consider_batch("c", texts(21))] == [True] * 20 + [False]
        assert client.get_stream("c").seen == 21


def test_decisions_that_were_forgotten_are_made_anew_and_nobody_is_asked_twice(
    world: World, connect: Callable[[], StreamClient]
) -> None:
    begin(world, ALL)
    client = connect()
    client.consider_batch("c", texts(3))
    assert sorted(tasks_of_stream(world)) == ["s0", "s1", "s2"]
    world.clock.advance(10)
    with world.scheduler.store.writing() as session:
        streams.forget_before(session, world.clock.now())
    again = client.consider_batch("c", texts(3))
    assert [(decision.asked, decision.repeated_id) for decision in again] == [(False, False)] * 3
    world.clock.advance(100_000)
    assert sorted(tasks_of_stream(world)) == ["s0", "s1", "s2"]
